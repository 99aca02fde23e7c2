"""SQLite's errors in grapnel's terms."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.errors import IndexFormatError, StorageError


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StorageError or, for a damaged file, IndexFormatError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        remedy = {
            "SQLITE_FULL": "the disk is full: free space and repeat; acknowledged writes are intact",
            "SQLITE_READONLY": "the folder is read-only: write to a copy elsewhere",
            "SQLITE_CANTOPEN": "check that the folder exists and its permissions",
            "SQLITE_IOERR": "check the disk and its free space; acknowledged writes are intact",
            "SQLITE_BUSY": "another process holds the database: try again",
        }
        name = getattr(error, "sqlite_errorname", None)
        if name is None or name == "SQLITE_ERROR":  # a text that is no UTF-8 any more; a table that is gone
            raise IndexFormatError(f"{path} is damaged ({error}): restore it from an export") from error
        hint = next((text for key, text in remedy.items() if name.startswith(key)), "check the disk")
        raise StorageError(f"{path}: {error}; {hint}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where a message quotes damaged bytes
        raise IndexFormatError(f"{path} is damaged ({error}): restore it from an export") from error
