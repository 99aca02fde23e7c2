"""Fill a running Chroma server, in an environment with chromadb; see bench_serve_rivals.py.

PYTHON tests/bench/serve_chroma.py FOLDER PORT

FOLDER/texts.json: id -> text, FOLDER/vectors.npy: float32 in the same order.

The last line of output is the collection's id.
"""

import json
import sys
from pathlib import Path

import chromadb
import numpy as np

BATCH = 1_000


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    texts = json.loads((folder / "texts.json").read_text())
    vectors = np.load(folder / "vectors.npy")
    client = chromadb.HttpClient(host="127.0.0.1", port=port, settings=chromadb.Settings(anonymized_telemetry=False))
    collection = client.get_or_create_collection("documents", metadata={"hnsw:space": "cosine"})
    ids = list(texts)
    for start in range(collection.count(), len(ids), BATCH):
        names = ids[start : start + BATCH]
        collection.add(ids=names, embeddings=vectors[start : start + BATCH], documents=[texts[name] for name in names])
    print(collection.id)


if __name__ == "__main__":
    main()
