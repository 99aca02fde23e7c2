"""How long work tells whoever waits: a callback, so that libraries stay silent and command lines draw bars."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with (stage, done so far, total or None when unknown); done never shrinks within a stage."""

_EVERY = 500


def silent(_stage: str, _done: int, _total: int | None) -> None:
    """Report nothing."""


def counted(items: Iterable[T], stage: str, total: int | None, progress: Progress) -> Iterator[T]:
    """Pass items on, reporting every 500 and the end."""
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if done % _EVERY == 0:
            progress(stage, done, total)
    progress(stage, done, total)
