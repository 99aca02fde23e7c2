import json
import logging
from contextlib import suppress
from io import StringIO

import pytest
from rich.console import Console

from api import cli_output, cli_progress
from api.cli import exit_status
from api.cli_filter import filter_argument
from api.cli_output import Output, one_line, visible
from api.cli_progress import FINISH, Stages
from index.errors import ConfigError, CorpusError, GrapnelError, LockedError, NotFoundError, RequestError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LockedError("x"), 3),
        (ConfigError("x"), 2),
        (RequestError("x"), 2),
        (CorpusError("x"), 1),
        (NotFoundError("x"), 1),
    ],
)
def test_exit_statuses(error: GrapnelError, status: int) -> None:
    assert exit_status(error) == status


def test_control_characters_are_replaced_one_by_one() -> None:
    assert visible("a\x1b[31m\tb\nc\x85\x00") == "a\ufffd[31m\tb\nc\ufffd\ufffd"
    assert one_line("a\tb\nc\r") == "a b c\ufffd"


def test_an_error_is_one_line_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    message = "[bold]a[/bold] " + "long " * 300 + "\nsecond"
    Output(as_json=False).error("CorpusError", message)
    assert capsys.readouterr() == ("", f"error: {message.replace(chr(10), ' ')}\n")
    Output(as_json=True).error("CorpusError", message)
    assert json.loads(capsys.readouterr().err) == {"error": {"type": "CorpusError", "message": message}}


def test_log_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("test")  # its own: the root's handlers belong to pytest
    logger.addHandler(Output(as_json=True).log_handler())
    logger.warning("damaged: %s", "a\nb")
    logger.error("failed", exc_info=ValueError("why"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("warning: damaged: a b\nerror: failed\n")
    assert said.err.endswith("ValueError: why\n")


def test_stages_add_up_and_short_ones_leave_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    stages = Stages(Console(stderr=True))
    for done in range(3):
        stages("read", done, None)
    stages("encode", 5, 10)
    stages.close()
    assert list(stages.seconds) == ["read", "encode", FINISH]
    assert min(stages.seconds.values()) >= 0
    assert stages.done == 5
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_when_it_is_time(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_progress, "LINE_EVERY_S", 0.0)
    stages = Stages(Console(stderr=True))
    stages("read", 1_000, 2_000)
    stages("read", 2_500, 2_000)
    stages("index", 7, None)
    stages.close()
    assert capsys.readouterr().err.splitlines() == [
        "read: 1,000 of 2,000 in 0 s",
        "read: 2,500 in 0 s",
        "index: 7 in 0 s",
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_a_bar_is_complete_only_where_its_stage_was_done(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(cli_output, "_console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    with suppress(ZeroDivisionError), Output(as_json=False).progress() as stages:
        stages("read", 5, 10)
        if fails:
            raise ZeroDivisionError
    assert "5/10" in screen.getvalue() or not fails
    assert ("5/5" in screen.getvalue()) is not fails, "totals are estimates: the end is where the work ended"


def test_work_without_a_report_has_no_stages() -> None:
    stages = Stages(Console(stderr=True))
    stages.close()
    assert stages.seconds == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("null", "a JSON NoneType, expected an object"),
        ('{"a": Infinity}', "holds Infinity"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_filters_that_are_no_object_are_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        filter_argument(text)


def test_a_filter_is_passed_on_as_it_is() -> None:
    assert filter_argument('{"type": "eq"}') == {"type": "eq"}
    assert filter_argument(None) is None
