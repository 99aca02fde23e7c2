"""`grapnel key`: make an API key for the server."""

from argparse import Namespace
from collections.abc import Mapping

from rich.text import Text

from api.cli_filter import filter_argument
from api.cli_output import Output
from api.keys import make_key
from api.server_config import parse_key
from index.errors import RequestError
from retrieval.config import to_table, to_toml
from retrieval.types import Json


def key(args: Namespace, output: Output) -> int:
    """Print a new secret and the table that lets a server know it; neither is stored.

    The table goes to stdout and the secret to stderr, so that `grapnel key NAME >> server.toml` does the right thing;
    with --json, both are in the answer.
    """
    secret, sha256 = make_key()
    table = {
        "name": args.name,
        "sha256": sha256,
        "scopes": _listed(args.scopes),
        "collections": _listed(args.collections),
    }
    own = filter_argument(args.filter)
    if own is not None:
        if _holds_null(own):
            raise RequestError("--filter holds null, which TOML cannot hold: use a value that the documents have")
        table["filter"] = own
    # A tab inside a string is TOML as it stands, but a terminal makes spaces of it.
    toml = to_toml({"keys": [to_table(parse_key(table, "key"))]}).replace("\t", "\\t")
    output.answer({"name": args.name, "secret": secret, "sha256": sha256, "toml": toml}, Text(f"\n{toml.rstrip()}"))
    if not output.as_json:
        output.note(f"secret, shown only now: {secret}")
        output.note("put the [[keys]] table into the server's configuration and start the server again")
    return 0


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _holds_null(value: Json) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_null(item) for item in value.values())
    if isinstance(value, list):
        return any(_holds_null(item) for item in value)
    return value is None
