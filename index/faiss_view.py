"""A faiss index over vectors that stay in their own memory-mapped file.

faiss reads an index from memory without copying its vectors, as long as its own header stands directly before them.
The file is mapped copy-on-write and that header is written over the end of the .npy header: one private page, the file
itself is never touched. So a graph needs no second copy of the vectors, neither on disk nor in memory.
"""

import mmap
import struct
from typing import Any

import numpy as np

from index.array_file import HEADER_BYTES
from index.errors import IndexFormatError
from index.faiss_library import load_faiss
from index.vector_file import VectorFile

_COUNT_AT = 8
"""Where a faiss header holds the number of vectors: after the four-letter code and the int32 dimension."""


class FaissView:
    """`index` scans or scores the vectors of `file` by inner product, or by L2. Keep this object while using it.

    file: float32 or float16 storage. Raises IndexFormatError where this faiss lays its header out in another way.
    """

    def __init__(self, file: VectorFile, *, l2: bool) -> None:
        faiss = load_faiss()
        metric = faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT
        if file.storage == "float32":
            empty, unit = faiss.IndexFlat(file.dim, metric), 4  # it counts its values, not their bytes
        else:
            empty, unit = faiss.IndexScalarQuantizer(file.dim, faiss.ScalarQuantizer.QT_fp16, metric), 1
        with file.path.open("rb") as opened:
            self._mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        buffer = np.frombuffer(self._mapped, np.uint8)
        header = bytearray(faiss.serialize_index(empty).tobytes())
        size_bytes = file.raw.nbytes
        header[_COUNT_AT : _COUNT_AT + 8] = struct.pack("<q", len(file))
        header[-8:] = struct.pack("<Q", size_bytes // unit)
        start = HEADER_BYTES - len(header)
        if start < 0:
            raise IndexFormatError(f"faiss {faiss.__version__} needs {len(header)} bytes of header: update grapnel")
        buffer[start:HEADER_BYTES] = np.frombuffer(header, np.uint8)
        self._reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(buffer[start:]), len(header) + size_bytes)
        self.index: Any = faiss.read_index(self._reader)
        if self.index.ntotal != len(file) or self.index.codes.is_owned or self.index.codes.byte_size() != size_bytes:
            raise IndexFormatError(f"faiss {faiss.__version__} does not map vectors as expected: update grapnel")
