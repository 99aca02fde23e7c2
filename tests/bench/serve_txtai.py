"""txtai's own server over the demo collection's texts, in an environment of txtai's; see bench_serve_rivals.py.

PYTHON tests/bench/serve_txtai.py FOLDER PORT     FOLDER/texts.json: id -> text; the index is kept there
"""

# ruff: noqa: PLC0415  the environment is set first

import json
import os
import sys
from pathlib import Path

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    index = folder / "index"
    path = os.environ.get("TXTAI_MODEL", MODEL)
    if not index.exists():
        from txtai import Embeddings

        embeddings = Embeddings(path=path, content=True)
        embeddings.index(list(json.loads((folder / "texts.json").read_text()).items()))
        embeddings.save(str(index))
    config = {"path": str(index), "writable": False, "embeddings": {"path": path, "content": True}}
    (folder / "config.yml").write_text(json.dumps(config))
    os.environ["CONFIG"] = str(folder / "config.yml")
    import uvicorn

    uvicorn.run("txtai.api:app", port=port, log_level="warning")


if __name__ == "__main__":
    main()
