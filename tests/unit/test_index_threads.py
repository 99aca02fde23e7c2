"""One thread setting for the process."""

import pytest

from index.errors import ConfigError
from index.threads import VARIABLE, threads


@pytest.mark.parametrize(("value", "expected"), [(None, None), ("", None), ("1", 1), ("64", 64), ("007", 7)])
def test_the_variable_is_a_number_or_unset(
    value: str | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert threads() == expected


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " ", "1 ", "²"])
def test_anything_else_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match=f"{VARIABLE} is .*whole number"):
        threads()
