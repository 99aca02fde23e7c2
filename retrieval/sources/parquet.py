"""Parquet files (pyarrow): columns are the keys of `records`.

    _id, id          string or integer
    title, text      string
    metadata         a struct, a map, or a string that holds a JSON object
    vectors          a struct of lists of numbers; or one column a field: `vectors.NAME`, a list of numbers
    vector           a list of numbers: the field "dense"
    any other        metadata, typed: integers, floats, booleans, strings, lists, structs and maps as they are

JSON has fewer types: dates and times become ISO 8601 strings (with a time zone, in UTC; nanoseconds cut to
microseconds), durations become seconds, decimals become numbers if a double holds all their digits. Binary columns are
refused. A null is a field that is not there.
"""

import datetime
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from index.durable import storage_errors
from index.errors import CorpusError
from retrieval.sources.jsonl import parse_object
from retrieval.sources.records import CONTENT_KEYS, ID_KEYS, document_from
from retrieval.sources.source import Placed, Source

_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 1024
_VECTORS = "vectors."


def parquet_source(path: Path) -> Source:
    """Source of a .parquet file; its estimate is exact.

    Memory: pages of one row group and a batch of rows of about 16 MiB.
    Raises CorpusError on a damaged file, without an id column, or with a binary column.
    """
    with storage_errors("read", path):
        file = _open(path)
        _check_schema(file.schema_arrow, path.name)
        rows = file.metadata.num_rows
        file.close()
    return Source(f"Parquet file {path}", rows, lambda _: _documents(path))


def _open(path: Path) -> Any:
    import pyarrow as pa  # noqa: PLC0415  heavy
    import pyarrow.parquet as pq  # noqa: PLC0415  heavy

    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(f"{path.name} is not a readable Parquet file", error) from error


def _damaged(what: str, error: Exception) -> Exception:
    """Return the error to raise: the operating system's own as it is (Arrow's OSErrors carry no number)."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return CorpusError(f"{what} ({error}): copy it again")


def _check_schema(schema: Any, name: str) -> None:
    names = list(schema.names)
    if not {*ID_KEYS} & {*names}:
        raise CorpusError(f"{name}: no column '_id' or 'id'; found: {', '.join(map(repr, names[:10]))}")
    if not {*CONTENT_KEYS} & {*names} and not any(column.startswith(_VECTORS) for column in names):
        raise CorpusError(
            f"{name}: no column 'text', 'title' or 'vectors.NAME'; found: {', '.join(map(repr, names[:10]))}"
        )
    for column in schema:
        if names.count(column.name) > 1:
            raise CorpusError(f"{name}: column {column.name!r} is there twice: give each its own name")
        if _holds_binary(column.type):
            raise CorpusError(
                f"{name}: column {column.name!r} is of type {column.type}, which metadata cannot hold: "
                "drop it, or cast it to string"
            )


def _holds_binary(kind: Any) -> bool:
    import pyarrow.types as pt  # noqa: PLC0415  heavy

    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind) or pt.is_binary_view(kind):
        return True
    if pt.is_dictionary(kind):
        return _holds_binary(kind.value_type)
    return any(_holds_binary(kind.field(index).type) for index in range(kind.num_fields))


def _documents(path: Path) -> Iterator[Placed]:
    import pyarrow as pa  # noqa: PLC0415  heavy

    row = 0
    with storage_errors("read", path), _open(path) as file:
        try:
            for batch in file.iter_batches(_batch_rows(file.metadata), use_threads=False):
                for record in _records(batch, path.name):
                    row += 1
                    place = f"{path.name} row {row}"
                    yield Placed(place, document_from(_fields(record, place), place))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(f"{path.name} is damaged after row {row}", error) from error


def _batch_rows(metadata: Any) -> int:
    """Return how many rows make about 16 MiB, by the largest mean over the row groups."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1.0)
    return int(min(max(_BATCH_BYTES / max(row_bytes, 1.0), 1), _BATCH_ROWS))


def _records(batch: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch as Python values."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        try:
            columns.append(_values(field, column))
        except (KeyError, ValueError, OverflowError) as error:
            raise CorpusError(
                f"{name}: column {field.name!r} of type {field.type} has a value without a JSON form ({error}): "
                "cast it to string"
            ) from error
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _values(field: Any, column: Any) -> list[Any]:
    """Return a column as Python values; lists of numbers that are vectors as numpy arrays."""
    import pyarrow as pa  # noqa: PLC0415  heavy

    if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
        column = column.cast(pa.timestamp("us", field.type.tz), safe=False)
    if (field.name.startswith(_VECTORS) or field.name == "vector") and _is_number_list(field.type):
        return [cell.values.to_numpy(zero_copy_only=False) if cell.is_valid else None for cell in column]
    values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return values


def _is_number_list(kind: Any) -> bool:
    import pyarrow.types as pt  # noqa: PLC0415  heavy

    is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return bool(is_list and (pt.is_floating(kind.value_type) or pt.is_integer(kind.value_type)))


def _fields(row: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the row in the keys and types of `records`."""
    record: dict[str, Any] = {}
    vectors: dict[str, Any] = {}
    for name, value in row.items():
        if name.startswith(_VECTORS):
            vectors[name.removeprefix(_VECTORS)] = value
        elif name == "vectors" and isinstance(value, dict):
            vectors |= value
        elif name == "vector":
            record[name] = value
        elif name == "metadata":
            record[name] = _metadata(value, place)
        elif value is not None:
            record[name] = _json(value, f"{place}: column {name!r}")
    return {"vectors": vectors, **record}


def _metadata(value: Any, place: str) -> Any:
    if isinstance(value, str):
        return parse_object(value, f"{place}: column 'metadata'") if value.strip() else None
    if isinstance(value, dict):  # a struct has all its fields in every row
        return {key: _json(item, f"{place}: column 'metadata'") for key, item in value.items() if item is not None}
    return value


def _json(value: Any, what: str) -> Any:
    """Return a value of Arrow's types as a JSON value."""
    if isinstance(value, list):
        return [_json(item, what) for item in value]
    if isinstance(value, dict):
        return {str(key): _json(item, what) for key, item in value.items()}
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo is None else value.astimezone(datetime.UTC)).isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _number(value, what)
    return value.total_seconds() if isinstance(value, datetime.timedelta) else value


def _number(value: Decimal, what: str) -> float:
    number = float(value)
    if Decimal(repr(number)) != value:
        raise CorpusError(f"{what} is {value}, more digits than a double holds: cast the column to string")
    return number
