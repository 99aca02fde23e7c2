"""What pydantic finds wrong with what a client sent, in words."""

from collections.abc import Mapping
from typing import Any


def place_of(flaw: Mapping[str, Any]) -> str:
    """Return where a flaw is: the names and numbers that lead to it, such as `documents.3.id`."""
    return ".".join(str(part) for part in flaw["loc"])


def message_of(flaw: Mapping[str, Any]) -> str:
    """Return what a flaw is."""
    context = flaw.get("ctx") or {}
    return f"not JSON: {context.get('error', '')}" if flaw["type"] == "json_invalid" else str(flaw["msg"])


def flaw_text(flaw: Mapping[str, Any]) -> str:
    """Return where and what a flaw is."""
    return f"{place_of(flaw)}: {message_of(flaw)}"
