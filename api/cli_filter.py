"""The --filter argument."""

import json
from typing import Any, NoReturn

from index.errors import RequestError


def filter_argument(text: str | None) -> dict[str, Any] | None:
    """Return a filter given as JSON, None for none; its grammar is checked by the collection (retrieval.filters).

    Raises RequestError on text that is not a JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"--filter is not JSON: {error.msg} at character {error.pos} of {text[:80]!r}; "
            'expected e.g. \'{"type": "eq", "key": "lang", "value": "en"}\''
        ) from error
    except RecursionError as error:
        raise RequestError("--filter is nested too deeply: at most 8 levels are allowed") from error
    if not isinstance(value, dict):
        raise RequestError(f"--filter is a JSON {type(value).__name__}, expected an object")
    return value


def _refuse(name: str) -> NoReturn:
    raise RequestError(f"--filter holds {name}, which JSON cannot hold: use a finite number")
