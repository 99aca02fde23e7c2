"""Which function answers which command. Each takes the parsed arguments and returns the exit status."""

from argparse import Namespace
from collections.abc import Callable, Mapping

from api.cli_bench import bench
from api.cli_build import build_collection
from api.cli_documents import add, delete, get
from api.cli_evaluate import evaluate_run
from api.cli_key import key
from api.cli_limit import limit
from api.cli_mcp import mcp
from api.cli_output import Output
from api.cli_phrases import grep_phrase, ngrams_after
from api.cli_recommend import recommend
from api.cli_run import run
from api.cli_search import search
from api.cli_serve import serve
from api.cli_tune import tune_collection
from api.cli_upkeep import compact, export_file, import_file, info, verify_files

COMMANDS: Mapping[str, Callable[[Namespace, Output], int]] = {
    "build": build_collection,
    "search": search,
    "grep": grep_phrase,
    "ngrams": ngrams_after,
    "run": run,
    "evaluate": evaluate_run,
    "bench": bench,
    "tune": tune_collection,
    "recommend": recommend,
    "limit": limit,
    "add": add,
    "delete": delete,
    "get": get,
    "compact": compact,
    "info": info,
    "verify": verify_files,
    "export": export_file,
    "import": import_file,
    "serve": serve,
    "mcp": mcp,
    "key": key,
}
