"""Where the command line's words go: answers to stdout, for people or as one JSON document; the rest to stderr."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from api.cli_progress import Stages

_PIPE_WIDTH = 1_000
"""Columns where a program or a file reads: a table keeps each row on one line."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Pipe(Console):
    """A console that reports a reader who has gone away as an exception, instead of leaving the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    console = _Pipe(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def visible(text: str) -> str:
    """Return text with each control character but tab and newline replaced: documents must not steer the terminal.

    Lengths stay, so offsets into the text stay valid.
    """
    return _CONTROL.sub("\ufffd", text)


def one_line(text: str) -> str:
    """Return text without line breaks, of the same length, fit to be shown."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def facts(rows: Mapping[str, str]) -> Table:
    """Return a table of names and values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, visible(value))
    return table


class Output:
    """The two streams of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = _console(stderr=False)
        self._err = _console(stderr=True)

    def answer(self, value: Mapping[str, Any], *people: RenderableType) -> None:
        """Print the command's answer: `value` as JSON (UTF-8 whatever the locale), or what is meant for people."""
        if self.as_json:
            indent = 2 if self._out.is_terminal else None
            text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
            sys.stdout.buffer.write(f"{text}\n".encode())
            sys.stdout.buffer.flush()
            return
        for item in people:
            self._out.print(item, soft_wrap=isinstance(item, Text) and not self._out.is_terminal)

    def note(self, text: str) -> None:
        """Say something beside the answer, on stderr."""
        self._err.print(Text(one_line(text), style="yellow"), soft_wrap=True)

    def error(self, kind: str, message: str) -> None:
        """Report an error on stderr: one line, or a JSON object."""
        if self.as_json:
            report = json.dumps({"error": {"type": kind, "message": message}})
            self._err.print(Text(report), soft_wrap=True)
        else:
            self._err.print(Text.assemble(("error: ", "bold red"), one_line(message)), soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Stages]:
        """Yield a Progress for long work: bars where stderr is a terminal, otherwise a line every few seconds."""
        stages = Stages(self._err)
        try:
            yield stages
        except BaseException:
            stages.close(done=False)
            raise
        stages.close()

    def log_handler(self) -> logging.Handler:
        """Return a handler that writes log lines to stderr, above any progress bar."""
        return _LogLines(self._err)


class _LogLines(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname.lower()}: {one_line(record.getMessage())}"
        if record.exc_info:
            line += "\n" + logging.Formatter().formatException(record.exc_info)
        self._console.print(Text(line, style="dim" if record.levelno < logging.WARNING else "yellow"), soft_wrap=True)
