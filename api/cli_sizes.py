"""Sizes on disk."""

from rich.filesize import decimal


def size(count: int) -> str:
    """Return a number of bytes for people: `1.2 MB`."""
    return decimal(count)
