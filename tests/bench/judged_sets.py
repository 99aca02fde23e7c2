"""The real datasets of the quality benchmark: which split judges, and a seeded sample of its queries."""

import csv
import json
import random
from dataclasses import dataclass

from report import DATA

from retrieval.types import Query

SPLITS = {
    "scifact": "train",
    "cranfield": "test",
    "squad-dev": "dev",
    "medquad": "dev",
    "tldr-pages": "dev",
    "esco-jobtitle": "dev",
    "climate-fever": "dev",
    "limit-small": "test",
}
SAMPLE = 1_500
SEED = 0


@dataclass(frozen=True, slots=True)
class Judged:
    name: str
    split: str
    queries: list[Query]
    qrels: dict[str, dict[str, int]]


def judged(name: str) -> Judged:
    """Queries of the dataset's split that have a relevant document, at most 1,500 of them, and their judgements."""
    split = SPLITS[name]
    qrels: dict[str, dict[str, int]] = {}
    with (DATA / name / "qrels" / f"{split}.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    texts = {}
    with (DATA / name / "queries.jsonl").open(encoding="utf-8") as file:
        for line in file:
            value = json.loads(line)
            texts[value["_id"]] = value["text"]
    usable = sorted(query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values()))
    chosen = sorted(random.Random(SEED).sample(usable, min(SAMPLE, len(usable))))
    return Judged(name, split, [Query(query, texts[query]) for query in chosen], {q: qrels[q] for q in chosen})
