"""What bench_serve.py runs in processes of its own, one task each: servers to load, and searches in process.

    python tests/bench/serve_child.py canned ROOT PORT       our application, every search answered by the same ranking
    python tests/bench/serve_child.py forward ROOT PORT      one request, one forward pass: a thread pool, no batches
    python tests/bench/serve_child.py inprocess ROOT QUERIES answers commands on standard input: "batch SECONDS SIZE",
                                                             "single COUNT"; a line of JSON each

forward is what a FastAPI application does whose handler calls `SentenceTransformer.encode` in torch float32 and then
searches the same collection with that vector.
"""

# ruff: noqa: PLC0415  each task imports what it measures

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLLECTION = "python-docs"


def canned(root: str, port: int) -> None:
    import uvicorn

    from api.http.app import create_app
    from api.http.protocol import bounded_protocol
    from api.keys import LOCAL, Principal
    from api.server_config import ServerConfig
    from api.service import SearchSpec, Service

    answers: list[Any] = []

    class Canned(Service):
        async def search(self, principal: Principal, name: str, specs: Sequence[SearchSpec], **options: Any) -> Any:
            self.allowed(principal, "read", name)
            if not answers:
                answers.extend(await super().search(LOCAL, name, specs, **options))
            return answers[:1]

    service = Canned(Path(root), ServerConfig())
    config = uvicorn.Config(
        create_app(service), port=port, http=bounded_protocol(service.limits), ws="none", log_config=None
    )
    uvicorn.Server(config).run()


def forward(root: str, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    from retrieval.collection import Collection
    from retrieval.encoders import EncoderConfig
    from retrieval.encoders.model_files import find_model
    from retrieval.types import Query, SearchRequest

    collection = Collection.open(Path(root) / COLLECTION)
    model = SentenceTransformer(str(find_model(EncoderConfig()).folder), device="cpu")
    app = FastAPI()

    class Body(BaseModel):
        query: str
        k: int = 10
        mode: str = "hybrid"

    @app.post("/search")
    def search(body: Body) -> dict[str, Any]:
        vector = model.encode([body.query])[0].astype(np.float32)
        request = SearchRequest(Query("q", body.query, vectors={"dense": vector}), k=body.k)
        (ranking,) = collection.search_many([request], mode=body.mode)
        return {"hits": [{"id": hit.doc_id, "score": hit.score, "text": hit.passage.text} for hit in ranking.hits]}

    uvicorn.Server(uvicorn.Config(app, port=port, log_config=None)).run()


def inprocess(root: str, queries: str) -> None:
    from retrieval.collection import Collection
    from retrieval.types import Query, SearchRequest

    collection = Collection.open(Path(root) / COLLECTION)
    bodies = [json.loads(line) for line in Path(queries).read_text().splitlines()]
    requests = [SearchRequest(Query("q", body["query"]), k=body["k"]) for body in bodies]
    mode = bodies[0]["mode"]
    collection.search_many(requests[:8], mode=mode)
    print("{}", flush=True)
    for line in sys.stdin:
        what, *values = line.split()
        if what == "batch":
            seconds, size = float(values[0]), int(values[1])
            done, begin = 0, time.perf_counter()
            while time.perf_counter() < begin + seconds:
                start = done % (len(requests) - size)
                collection.search_many(requests[start : start + size], mode=mode)
                done += size
            print(json.dumps({"per_s": done / (time.perf_counter() - begin)}), flush=True)
        else:
            spent = []
            for request in requests[: int(values[0])]:
                begin = time.perf_counter()
                collection.search_many([request], mode=mode)
                spent.append(1000 * (time.perf_counter() - begin))
            print(json.dumps({"p50": float(np.median(spent)), "p99": float(np.percentile(spent, 99))}), flush=True)


if __name__ == "__main__":
    task, root, last = sys.argv[1:]
    if task == "inprocess":
        inprocess(root, last)
    else:
        {"canned": canned, "forward": forward}[task](root, int(last))
