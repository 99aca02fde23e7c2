"""TOML into frozen dataclasses, strictly: what is not understood is refused with file, table, key and remedy."""

import dataclasses
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from index.errors import ConfigError

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises ConfigError naming file and line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def override(table: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return `table` with `table.key=value` settings applied; a value that is not TOML is taken as a string.

    Raises ConfigError on a setting without '=' or one that descends into a value.
    """
    result = _deep_copy(table)
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {setting!r}: expected table.key=value")
        target = result
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {setting!r}: {key!r} is a value, not a table")
        try:
            target[keys[-1]] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            target[keys[-1]] = text.strip()
    return result


def _deep_copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def parse(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from a TOML table, nested dataclasses included.

    where: file and table, for messages. Raises ConfigError on an unknown or missing key or a value of the wrong type.
    """
    check_table(table, where)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    unknown = sorted(table.keys() - fields.keys())
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(fields))}")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: key {missing[0]!r} is required")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def check_table(table: object, where: str) -> None:
    """Raise ConfigError unless `table` is a table."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r}, expected a table")


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        (hint,) = (option for option in arguments if option is not type(None))
        return _value(hint, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {value!r}; allowed: {', '.join(map(repr, arguments))}")
        return value
    if isinstance(value, Mapping):
        return _table_value(hint, origin, arguments, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise _mismatch(hint, value, where)
    return value


def _table_value(hint: Any, origin: Any, arguments: tuple[Any, ...], value: Mapping[str, Any], where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast("type[Any]", hint), value, where)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    raise _mismatch(hint, value, where)


def _mismatch(hint: Any, value: Any, where: str) -> ConfigError:
    expected = getattr(hint, "__name__", str(hint))
    return ConfigError(f"{where} is {value!r} ({type(value).__name__}), expected {expected}")


def to_table(value: Any) -> Any:
    """Return a dataclass as plain TOML values, without keys that are None."""
    if dataclasses.is_dataclass(value):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: to_table(item) for name, item in items if item is not None}
    if isinstance(value, Mapping):
        return {key: to_table(item) for key, item in value.items() if item is not None}
    if isinstance(value, tuple):
        return [to_table(item) for item in value]
    return value


def to_toml(value: Any) -> str:
    """Return the TOML text of a dataclass."""
    import tomli_w  # noqa: PLC0415  only writers need it

    return tomli_w.dumps(to_table(value))


def digest_of(value: Any) -> str:
    """Return the name of JSON values: 32 hex digits, equal for equal values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
