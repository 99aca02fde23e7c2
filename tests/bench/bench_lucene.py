"""BM25 through a Lucene collection beside pyserini on its own: its index of the same documents, its LuceneSearcher.

python tests/bench/bench_lucene.py        needs `make lucene-peer`
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from judged_sets import judged
from report import DATA, WORK, save

from evaluation.measures import mean, per_query, run_of
from retrieval.collection import Collection, build
from retrieval.collection_config import parse_collection
from retrieval.lexical import jvm
from retrieval.sources import open_source
from retrieval.types import SearchRequest

DEPTH = 100
SEARCH = """
import json, sys
from retrieval.lexical import jvm
jvm.start()
from pyserini.search.lucene import LuceneSearcher
searcher = LuceneSearcher(sys.argv[1])
searcher.set_bm25(0.9, 0.4)
for line in sys.stdin:
    print(json.dumps([hit.docid for hit in searcher.search(json.loads(line), int(sys.argv[2]))]), flush=True)
"""


def pyserini_rankings(collection: Collection, queries: list[str], folder: Path) -> list[list[str]]:
    """Index and search the collection's documents with pyserini's own programs, in processes of their own."""
    (folder / "texts").mkdir()
    with (folder / "texts" / "documents.jsonl").open("w") as file:
        for document in collection.documents():
            contents = f"{document.title}\n{document.text}" if document.title else document.text
            file.write(json.dumps({"id": document.id, "contents": contents}) + "\n")
    index = str(folder / "index")
    command = [str(jvm.java()), "-Xmx1g", "-cp", str(jvm.anserini_jar()), "io.anserini.index.IndexCollection"]
    command += ["-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
    subprocess.run([*command, "-input", str(folder / "texts"), "-index", index], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, index, str(DEPTH)],
        input="".join(json.dumps(query) + "\n" for query in queries),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENAI_API_KEY": "unused"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    for name in ("scifact", "cranfield"):
        data = judged(name)
        folder = WORK / f"{name}-lucene"
        shutil.rmtree(folder, ignore_errors=True)
        config = parse_collection({"fields": {"lucene": {"kind": "lexical", "engine": "lucene"}}}, "bench")
        build(folder, open_source(str(DATA / name)).documents(), config)
        with Collection.open(folder) as collection, tempfile.TemporaryDirectory() as scratch:
            ours = collection.search_many([SearchRequest(query, k=DEPTH) for query in data.queries])
            theirs = pyserini_rankings(collection, [query.text for query in data.queries], Path(scratch))
        pairs = [([hit.doc_id for hit in ranking.hits], ids) for ranking, ids in zip(ours, theirs, strict=True)]
        result = {
            "queries": len(data.queries),
            "depth": DEPTH,
            "equal_rankings": sum(mine == other for mine, other in pairs),
            "equal_top_10": sum(mine[:10] == other[:10] for mine, other in pairs),
            "ndcg10": mean(per_query("nDCG@10", run_of(ours), data.qrels)),
        }
        save("foundation", f"lucene-{name}", result)
        print(
            f"{name:10} {result['equal_rankings']} of {len(pairs)} rankings of {DEPTH} equal to pyserini's,"
            f" {result['equal_top_10']} top tens; nDCG@10 {result['ndcg10']:.4f}"
        )
        for mine, other in [pair for pair in pairs if pair[0] != pair[1]][:3]:
            place = next(i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b)
            print(f"  first difference at rank {place + 1}: {mine[place : place + 3]} / {other[place : place + 3]}")


if __name__ == "__main__":
    main()
