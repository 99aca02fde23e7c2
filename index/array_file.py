"""One array in one file, memory-mapped: a NumPy file of version 1.0 in C order whose values begin at byte 128."""

import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from index.durable import storage_errors
from index.errors import IndexFormatError

HEADER_BYTES: Final = 128
"""Where the values begin."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00\{'descr': '([<|]\w+)', 'fortran_order': False, 'shape': \(([\d, ]+)\), \} *\n", re.ASCII
)


def write_header(file: BinaryIO, descr: str, shape: tuple[int, ...]) -> None:
    """Write the first 128 bytes of a file whose values follow. descr: NumPy's name of the type, such as "<f4"."""
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    assert file.tell() == HEADER_BYTES, "NumPy pads its header for arrays that grow"


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array of numbers, little-endian. Raises OSError."""
    values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    with path.open("wb") as file:
        write_header(file, values.dtype.str, values.shape)
        file.write(values.data)


def map_array(path: Path, ndim: int) -> npt.NDArray[Any]:
    """Return the values of such a file: a plain, read-only view of a memory map.

    What is never read takes no memory, and the kernel may drop the rest.
    Raises IndexFormatError on a file that is missing, cut, too long or of another shape, StorageError when it cannot
    be read. Cost: two pages read.
    """
    with storage_errors("read", path):
        if not path.is_file():
            raise IndexFormatError(f"{path} is missing: rebuild it")
        with path.open("rb") as file:
            header = _HEADER.fullmatch(file.read(HEADER_BYTES))
            size_bytes = os.fstat(file.fileno()).st_size
        try:
            dtype = np.dtype(header[1].decode()) if header else None
            shape = tuple(int(length) for length in header[2].split(b",") if length.strip()) if header else ()
        except (TypeError, ValueError):
            dtype = None
        if dtype is None or dtype.hasobject or len(shape) != ndim:
            raise IndexFormatError(f"{path} does not begin like a {ndim}-dimensional array of ours: rebuild it")
        expected = HEADER_BYTES + dtype.itemsize * int(np.prod(shape, dtype=object))
        if size_bytes != expected:
            raise IndexFormatError(f"{path} has {size_bytes} bytes, expected {expected}: rebuild it")
        mapped = np.memmap(path, dtype, mode="r", offset=HEADER_BYTES, shape=shape)
    return np.asarray(mapped)  # the plain view: slicing a memmap object is slow
