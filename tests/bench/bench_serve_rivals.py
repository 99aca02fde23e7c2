"""The service beside other servers on this machine, the same texts and vectors, 64 clients, the arms taking turns.

    python tests/bench/bench_serve_rivals.py [--seconds=5] [--rounds=5] [--txtai=PYTHON] [--chroma=PYTHON]

--txtai: the interpreter of an environment with txtai[api]; its server encodes queries with the same model.
--chroma: of one with chromadb; queries are given as vectors, so search and HTTP alone are compared.
Needs the demo collection (`make demo`). Queries: 2,000 titles of Python questions (conala), k = 10, dense. Recall is of
the exact ranking of the same vectors in torch float32, over 200 queries.
"""

import json
import statistics
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import ROOT, machine, save
from serve_server import (
    CLIENTS,
    COLLECTION,
    FOLDER,
    PATH,
    Server,
    check_data,
    free_port,
    load,
    median,
    options,
    ours,
    queries,
    ratios,
    root_of,
)
from speed_rounds import say, table

from retrieval.collection import Collection
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.encoders.model_files import find_model
from retrieval.types import Query

K = 10
JUDGED = 200
DATABASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"


class Truth:
    """The demo collection's texts, their vectors in float32, and those of the queries; made once, in FOLDER."""

    def __init__(self) -> None:
        with Collection.open(root_of("ours", "auto") / COLLECTION) as collection:
            documents = list(collection.documents())
        self.texts = {each.id: f"{each.title} {each.text}" if each.title else each.text for each in documents}
        self.ids = list(self.texts)
        (FOLDER / "texts.json").write_text(json.dumps(self.texts))
        paths = FOLDER / "vectors.npy", FOLDER / "queries.npy"
        if not all(path.exists() for path in paths):
            say("encoding texts and queries in torch float32")
            encoder = open_encoder(EncoderConfig(backend="torch"))
            np.save(paths[0], encoder.encode_texts(list(self.texts.values())).vectors)
            np.save(paths[1], encoder.encode_queries([Query("q", text) for text in queries()]))
        self.vectors, self.queries = (np.load(path) for path in paths)
        scores = self.queries[:JUDGED] @ self.vectors.T
        self.best = [{self.ids[row] for row in np.argsort(-each, kind="stable")[:K]} for each in scores]

    def recall(self, ask: Callable[[int], list[str]]) -> float:
        """Recall@10 of a function from a query's number to ids."""
        return statistics.mean(len(set(ask(number)) & best) / K for number, best in enumerate(self.best))


def answer(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", content, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:  # noqa: S310  our own address
        return json.load(reply)


def lines(name: str, bodies: list[Any]) -> str:
    path = FOLDER / name
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in bodies))
    return str(path)


def duel(
    names: tuple[str, str],
    servers: tuple[Server, Server],
    tasks: tuple[dict[str, Any], dict[str, Any]],
    asks: tuple[Callable[[int], list[str]], Callable[[int], list[str]]],
    given: dict[str, Any],
) -> dict[str, Any]:
    """Load two servers in turns, tasks: what the load is told of each; asks: query number -> ids, for recall."""
    truth, seconds, rounds = given["truth"], given["seconds"], given["rounds"]
    per_s: dict[str, list[float]] = {name: [] for name in names}
    for server, task in zip(servers, tasks, strict=True):
        load(server, 1.0, clients=CLIENTS, **task)
    for turn in range(rounds):
        say(f"{names[1]}, round {turn + 1}")
        for place in (0, 1) if turn % 2 else (1, 0):
            result = load(servers[place], seconds, clients=CLIENTS, **tasks[place])
            assert set(result["statuses"]) == {"200"}, result
            per_s[names[place]].append(result["per_s"])
    recall = {name: truth.recall(ask) for name, ask in zip(names, asks, strict=True)}
    ratio = ratios(per_s[names[0]], per_s[names[1]])
    rows = [(name, median(values), f"{recall[name]:.3f}") for name, values in per_s.items()]
    print("\n" + table(("dense, 64 clients", "searches/s, median [range]", "recall@10"), rows))
    print(f"\n{names[0]} / {names[1]}: {median(ratio)}\n")
    return {"per_s": per_s, "recall@10": recall, "ratio": ratio}


def our_ids(server: Server, body: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer(server, PATH, body)["hits"]]


def txtai(python: str, mine: Server, given: dict[str, Any]) -> dict[str, Any]:
    folder = FOLDER / "txtai"
    folder.mkdir(exist_ok=True)
    (folder / "texts.json").write_text((FOLDER / "texts.json").read_text())
    port = free_port()
    command = [python, str(ROOT / "tests/bench/serve_txtai.py"), str(folder), str(port)]
    model = str(find_model(EncoderConfig()).folder)
    server = Server("txtai", command, port, f"/search?query=warm&limit={K}", PYTHONPATH="", TXTAI_MODEL=model)
    paths = [urllib.parse.urlencode({"query": query, "limit": K}) for query in queries()]
    asked = [{"query": query, "k": K, "mode": "dense"} for query in queries()]
    try:
        return duel(
            ("ours", "txtai"),
            (mine, server),
            (
                {"bodies": lines("dense.jsonl", asked)},
                {"path": "/search", "bodies": lines("txtai.txt", paths), "method": "GET"},
            ),
            (
                lambda number: our_ids(mine, asked[number]),
                lambda number: [hit["id"] for hit in answer(server, f"/search?{paths[number]}")],
            ),
            given,
        )
    finally:
        server.stop()


def chroma(python: str, mine: Server, given: dict[str, Any]) -> dict[str, Any]:
    truth: Truth = given["truth"]
    folder = FOLDER / "chroma"
    port = free_port()
    command = [str(Path(python).with_name("chroma")), "run", "--path", str(folder), "--port", str(port)]
    server = Server("chroma", command, port, "/api/v2/heartbeat", ANONYMIZED_TELEMETRY="False")
    try:
        fill = [python, str(ROOT / "tests/bench/serve_chroma.py"), str(FOLDER), str(port)]
        identity = subprocess.run(fill, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[-1]
        path = f"{DATABASE}/{identity}/query"
        vectors = [[round(float(value), 7) for value in row] for row in truth.queries]
        theirs = [{"query_embeddings": [row], "n_results": K, "include": ["documents", "distances"]} for row in vectors]
        asked = [{"vectors": {"dense": row}, "k": K, "mode": "dense", "snippet_chars": 0} for row in vectors]
        return duel(
            ("ours, vectors given", "chroma"),
            (mine, server),
            (
                {"bodies": lines("given.jsonl", asked)},
                {"path": path, "bodies": lines("chroma.jsonl", theirs)},
            ),
            (
                lambda number: our_ids(mine, asked[number]),
                lambda number: answer(server, path, theirs[number])["ids"][0],
            ),
            given,
        )
    finally:
        server.stop()


def main() -> None:
    told = options("seconds", "rounds", "txtai", "chroma")
    check_data()
    given: dict[str, Any] = {"seconds": float(told.get("seconds", 5)), "rounds": int(told.get("rounds", 5))}
    given["truth"] = Truth()
    mine = ours("ours", "auto")
    try:
        for name, rival in (("txtai", txtai), ("chroma", chroma)):
            if name in told:
                save("serve", name, rival(told[name], mine, given))
    finally:
        mine.stop()
    print(machine())


if __name__ == "__main__":
    main()
