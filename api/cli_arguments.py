"""Arguments of every command. To add a command: one function here, one in a cli_* module, one line in cli_commands."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from index.errors import RequestError

_SOURCE = (
    "a BEIR folder, a folder of files, a .jsonl/.csv/.tsv/.parquet/.trec file (also .gz, .zst), one document file, "
    "FORMAT:PATH, python-docs, or - for JSON Lines on standard input"
)


class _Parser(argparse.ArgumentParser):
    """Raises RequestError instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message}; see `{self.prog} --help`")


class _Command(_Parser):
    """Takes options between positional arguments, too: `search DIR -k 3 QUESTION`."""

    _mixing = False

    def takes_commands(self) -> None:
        """Leave the order of arguments to the commands below this one: argparse cannot mix theirs."""
        self._mixing = True

    def parse_known_args(  # type: ignore[override]  # typeshed tells apart who gives a namespace; argparse does not
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self._mixing:  # what is called next calls this again
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


class _Version(argparse.Action):
    """Prints the version; looked up only when asked, because reading package metadata takes time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"grapnel {version('grapnel')}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; `command` names what was asked for. Raises RequestError."""
    parser = _Parser(
        prog="grapnel",
        description="Build and search collections of documents, by meaning and by words.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands", parser_class=_Command
    )
    _build(commands)
    _search(commands)
    _phrases(commands)
    _run(commands)
    _evaluate(commands)
    _bench(commands)
    _tune(commands)
    _recommend(commands)
    _limit(commands)
    _documents(commands)
    _upkeep(commands)
    _serve(commands)
    _mcp(commands)
    _key(commands)
    return parser


def _command(
    commands: Any, name: str, summary: str, *, folder: bool = True, remote: bool = False
) -> argparse.ArgumentParser:
    """Add a command. commands: what add_subparsers returned (argparse gives it no public type).

    folder: it works on one collection. remote: which may be on a server.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    if remote:
        parser.add_argument("dir", metavar="DIR", help="the collection's folder; with --url, its name on that server")
        parser.add_argument("--url", help="a grapnel server in place of a folder, e.g. http://127.0.0.1:8080")
        parser.add_argument("--key", help="an API key of that server, seen by whoever lists processes; or $GRAPNEL_KEY")
    elif folder:
        parser.add_argument("dir", metavar="DIR", help="the collection's folder")
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    parser.add_argument("--verbose", action="store_true", help="log what happens to stderr")
    return parser


def _build(commands: Any) -> None:
    parser = _command(commands, "build", "build a collection from a source of documents", folder=False)
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the new collection")
    parser.add_argument("--config", metavar="FILE", help="collection.toml: fields, encoder, chunking")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a setting, e.g. chunking.max_tokens=128",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a build that was interrupted")


def _search(commands: Any) -> None:
    parser = _command(commands, "search", "answer questions from a collection", remote=True)
    parser.add_argument("questions", metavar="QUESTION", nargs="*", help="one or more questions, each in quotes")
    _ranking_options(parser, k=10)
    parser.add_argument("--offset", metavar="N", type=int, default=0, help="skip the first N results")
    parser.add_argument("--min-score", metavar="X", type=float, help="drop results that score below X")
    parser.add_argument(
        "--diversity", metavar="X", type=float, default=0.0, help="0 = relevance only ... 1 = variety only"
    )
    parser.add_argument("--like", metavar="ID", help="find documents similar to this one, in place of a question")
    parser.add_argument("--group", choices=["document", "passage"], default="document", help="what a result is")
    parser.add_argument("--explain", action="store_true", help="show ranks and scores of every stage, and timings")


def _phrases(commands: Any) -> None:
    white_space = (
        "White space and case are the tokenizer's business: WordPiece ignores white space between words, byte-level "
        "tokenizers put a space into the token behind it."
    )
    parser = _command(commands, "grep", "find every place of an exact phrase; needs a substring field", remote=True)
    parser.epilog = f"The phrase is found as tokens: never from inside one of them. {white_space}"
    parser.add_argument("phrase", metavar="PHRASE", help="in quotes")
    _phrase_options(parser, "places shown; all are counted")
    parser = _command(
        commands, "ngrams", "count an n-gram of tokens and what follows it; needs a substring field", remote=True
    )
    parser.epilog = f"Where it does not occur, its longest suffix that does is continued, and said. {white_space}"
    parser.add_argument("ngram", metavar="NGRAM", help="one or more words, in quotes")
    _phrase_options(parser, "continuations shown, the most frequent first")


def _phrase_options(parser: argparse.ArgumentParser, limit: str) -> None:
    parser.add_argument("--field", metavar="NAME", help="a substring field of the collection (its first)")
    parser.add_argument("--limit", metavar="N", type=int, default=10, help=f"{limit} (%(default)s)")
    _filter_option(parser)


def _run(commands: Any) -> None:
    parser = _command(commands, "run", "answer a file of queries and write a TREC run")
    parser.add_argument("--queries", metavar="FILE", required=True, help="queries.jsonl (_id, text) or TSV (id, text)")
    parser.add_argument("--output", metavar="FILE", required=True, help="run file to write")
    _ranking_options(parser, k=100)
    parser.add_argument("--batch", metavar="N", type=int, default=64, help="queries answered together (%(default)s)")


def _evaluate(commands: Any) -> None:
    summary = "measure a TREC run against judgements, alone or beside another run"
    parser = _command(commands, "evaluate", summary, folder=False)
    parser.add_argument("run", metavar="RUN", help="TREC run, such as `grapnel run` writes; its scores give the order")
    parser.add_argument("--qrels", metavar="FILE", required=True, help="BEIR .tsv or TREC qrels")
    parser.add_argument(
        "--measures",
        metavar="NAMES",
        default="nDCG@10 R@100 RR@10 AP Rprec",
        help="in quotes: names of ir-measures, or RP@k (default: %(default)s)",
    )
    parser.add_argument("--baseline", metavar="RUN", help="another run, to say what the difference is worth")
    parser.add_argument("--per-query", metavar="FILE", help="write the values of each query, one JSON object a line")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")


def _bench(commands: Any) -> None:
    summary = "say on a labelled dataset what is lost where: a page, and its numbers as JSON"
    parser = _command(commands, "bench", summary, folder=False)
    parser.add_argument("dataset", metavar="DATASET", help="a BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the report; a killed run goes on there")
    parser.add_argument(
        "--pipeline",
        metavar="FILE",
        action="append",
        default=[],
        help="a pipeline.toml to measure beside the default one, with the collection.toml that lies beside it",
    )
    parser.add_argument("--encoder", metavar="KIND", help="encoder.kind as in collection.toml (sentence-transformers)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="another key of [encoder], e.g. dim=256"
    )
    parser.add_argument("--tier", choices=["small", "full"], default="small", help="how much to measure (%(default)s)")
    parser.add_argument("--split", metavar="NAME", help="which qrels (the first of test, dev, validation, train)")
    parser.add_argument(
        "--measures",
        metavar="NAMES",
        default="nDCG@10 R@100 RR@10",
        help="in quotes; losses are counted in the first (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of samples, resamples and indexes (default: 0)")


def _tune(commands: Any) -> None:
    parser = _command(commands, "tune", "fit the fusion weight and depth to judged queries, and write pipeline.toml")
    parser.add_argument("--queries", metavar="FILE", required=True, help="queries.jsonl, or lines of id, tab, text")
    parser.add_argument("--qrels", metavar="FILE", required=True, help="BEIR .tsv or TREC qrels")
    parser.add_argument("--mode", default="hybrid", help="fused mode to tune (default: hybrid)")
    parser.add_argument("--seed", type=int, default=0, help="of the cross-validation folds (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="measure only, write nothing")


def _recommend(commands: Any) -> None:
    summary = "say which metric, index and effort suit a collection, measured on its own vectors; changes nothing"
    parser = _command(commands, "recommend", summary)
    parser.add_argument("--field", metavar="NAME", help="one dense field (all of them)")
    parser.add_argument("--queries", metavar="FILE", help="queries.jsonl, or lines of id, tab, text: to measure with")
    parser.add_argument("--qrels", metavar="FILE", help="BEIR .tsv or TREC qrels: utility counts in place of recall")
    parser.add_argument(
        "--recall",
        metavar="X",
        type=float,
        default=0.95,
        help="share of what exact search finds, or with --qrels is worth (%(default)s)",
    )
    parser.add_argument("--memory-gb", metavar="X", type=float, help="what the opened index and its vectors may take")
    parser.add_argument("--latency-ms", metavar="X", type=float, help="what a search may take, in the median")
    parser.add_argument("-k", type=int, default=10, help="results that count (%(default)s)")
    parser.add_argument("--measure", default="nDCG@10", help="with --qrels: what counts (%(default)s)")
    parser.add_argument("--sample", metavar="N", type=int, default=20_000, help="passages measured on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and indexes (%(default)s)")


def _limit(commands: Any) -> None:
    group = commands.add_parser(
        "limit", help="LIMIT: regenerate it at any size, run retrievers on it, try free vectors", allow_abbrev=False
    )
    group.takes_commands()
    actions = group.add_subparsers(
        dest="action", required=True, metavar="ACTION", title="actions", parser_class=_Command
    )
    parser = _command(actions, "generate", "write a LIMIT dataset as a BEIR folder", folder=False)
    parser.add_argument("--out", metavar="DIR", required=True, help="a new or empty folder")
    parser.add_argument("--queries", metavar="N", type=int, default=1_000, help="how many queries (%(default)s)")
    parser.add_argument("--documents", metavar="N", type=int, help="documents in all (as few as the pattern takes)")
    parser.add_argument(
        "--pattern",
        choices=["dense", "random", "cycle", "disjoint"],
        default="dense",
        help="which sets of documents are relevant together (%(default)s); the others are controls",
    )
    parser.add_argument("-k", type=int, default=2, help="relevant documents of a query (%(default)s)")
    parser.add_argument("--attributes", metavar="N", type=int, default=45, help="likes of a document (%(default)s)")
    parser.add_argument("--synonyms", action="store_true", help="queries use another word than documents do")
    parser.add_argument("--seed", type=int, default=0, help="of names, words and order (%(default)s)")

    parser = _command(actions, "run", "measure recall of retrievers on a LIMIT dataset", folder=False)
    parser.add_argument("dataset", metavar="DATASET", help="BEIR folder with qrels/test.tsv")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--retrievers", metavar="A,B", help="of bm25, hash-4096, minilm, hybrid (all of them)")
    which.add_argument("--config", metavar="FILE", help="every mode of a collection.toml, in place of those")
    which.add_argument("--collection", metavar="DIR", help="every mode of a collection that holds the dataset")
    parser.add_argument("--work", metavar="DIR", help="where collections are built and found again (a temporary one)")

    parser = _command(
        actions, "free-embeddings", "find how many documents vectors fitted to the judgements can serve", folder=False
    )
    parser.add_argument("--dims", metavar="D,D", default="4,6,8", help="dimensions to try (%(default)s)")
    parser.add_argument("-k", type=int, default=2, help="relevant documents of a query (%(default)s)")
    parser.add_argument("--starts", metavar="N", type=int, default=2, help="random starts of each fit (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first start (%(default)s)")


def _ranking_options(parser: argparse.ArgumentParser, *, k: int) -> None:
    parser.add_argument("-k", type=int, default=k, help="number of results (%(default)s)")
    parser.add_argument("--mode", help="hybrid, or a field of the collection such as dense, lexical")
    _filter_option(parser)
    parser.add_argument("--pipeline", metavar="FILE", help="a pipeline.toml in place of the collection's own")


def _filter_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--filter", metavar="JSON", help='e.g. \'{"type": "eq", "key": "lang", "value": "en"}\'')


def _documents(commands: Any) -> None:
    parser = _command(commands, "add", "add documents, replacing those with the same id", remote=True)
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    parser = _command(commands, "delete", "delete documents by id or by filter", remote=True)
    parser.add_argument("ids", metavar="ID", nargs="*", help="ids of documents")
    parser.add_argument("--filter", metavar="JSON", help="delete every document that matches")
    parser = _command(commands, "get", "print a document", remote=True)
    parser.add_argument("id", metavar="ID", help="id of the document")


def _upkeep(commands: Any) -> None:
    _command(commands, "compact", "fold fresh writes into the indexes, and rebuild what is damaged", remote=True)
    _command(commands, "info", "say what a collection holds", remote=True)
    _command(commands, "verify", "read every byte and say what is damaged; exit status 1 if anything is")
    parser = _command(commands, "export", "write a collection to one portable file")
    parser.add_argument("file", metavar="FILE", help="file to write")
    parser = _command(commands, "import", "make a collection from an exported file", folder=False)
    parser.add_argument("file", metavar="FILE", help="file that `grapnel export` wrote")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the new collection")


def _serve(commands: Any) -> None:
    parser = _command(commands, "serve", "serve every collection under a folder over HTTP", folder=False)
    parser.add_argument("--data", metavar="ROOT", required=True, help="the folder whose subfolders are collections")
    parser.add_argument("--config", metavar="FILE", help="a server.toml (see configs/server.toml)")
    parser.add_argument(
        "--set", metavar="T.KEY=VALUE", action="append", default=[], help="override one of its settings"
    )
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 = a free one (8080)")


def _mcp(commands: Any) -> None:
    parser = _command(commands, "mcp", "answer a language model's searches (MCP) on standard input", folder=False)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--data", metavar="ROOT", help="the folder whose subfolders are collections; no server runs on it"
    )
    where.add_argument("--url", help="the server to ask; its key, if any, in the variable GRAPNEL_KEY")
    parser.add_argument("--config", metavar="FILE", help="with --data: a server.toml, for its models and limits")


def _key(commands: Any) -> None:
    parser = _command(commands, "key", "make an API key for the server", folder=False)
    parser.add_argument("name", metavar="NAME", help="what the server's log calls it")
    parser.add_argument("--scopes", metavar="A,B", default="read", help="of read, write, admin, metrics (%(default)s)")
    parser.add_argument("--collections", metavar="A,B", default="*", help="names, or prefixes such as 'wiki-*' (all)")
    parser.add_argument(
        "--filter", metavar="JSON", help="only documents that match are seen and written; not with admin"
    )
