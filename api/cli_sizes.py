"""Sizes on disk."""

from pathlib import Path

from rich.filesize import decimal


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size(count: int) -> str:
    """Return a number of bytes for people: `1.2 MB`."""
    return decimal(count)
