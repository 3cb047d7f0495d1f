"""Progress: lines where there is no terminal, bars and a chart that fit where there is one."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from wn_dqn.system import progress
from wn_dqn.system.progress import ProgressReporter

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-9]|4[0-9]|9[0-7])[0-9;]*m")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error is a terminal."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


def work(stream: io.StringIO) -> str:
    """A task within a task, with all that they show; returns what `stream` got as standard error."""
    with contextlib.redirect_stderr(stream):
        reporter = ProgressReporter()
        with reporter.task("training", 4000) as training:
            training.show_curve([1.0, 3.0, 2.0, 5.0])
            training.update(1000, "1,204 steps/s, epsilon 0.55, score 2.00, best 5.00 at step 4,000")
            with reporter.task("evaluating", 0) as evaluating:
                evaluating.update(17)
                reporter.message("step 1,000\nmean 2.00")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("total", "line"),
    [(400, "playing: 100 of 400 (25%), 0:01:00 left, 7 games"), (0, "playing: 100, 7 games")],
)
def test_a_line(total: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """After 20 seconds; without a share where nobody knows how long games will be."""
    clock = iter([1000.0, 1010.0, 1020.0])
    monkeypatch.setattr(progress, "LINE_PERIOD_S", 15.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.ProgressReporter().task("playing", total) as task:
        task.update(50)  # too soon for a line
        task.update(100, "7 games")
    assert capsys.readouterr().err == f"{line}\n"


def test_the_time_left_goes_by_the_last_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warm-up without learning is a hundred times as fast as what follows."""
    clock = iter([0.0, 10.0, 50.0, 110.0])
    monkeypatch.setattr(progress, "LINE_PERIOD_S", 100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.ProgressReporter().task("training", 10_000) as task:
        task.update(5_000)
        task.update(5_040)
        task.update(5_100)
    assert capsys.readouterr().err == "training: 5,100 of 10,000 (51%), 1:21:40 left\n"


def test_what_a_terminal_shows(terminal: Terminal) -> None:
    """What moved is gone in the end; the chart and the message stay."""
    written = work(terminal)
    shown = CONTROL.sub("", written)
    for words in ("training", "25%", "evaluating", "17", "epsilon 0.55", "best 5.00", "5.00 ┤", "mean 2.00"):
        assert words in shown
    assert COLOUR.search(written)
    assert shown.splitlines()[-1].startswith("1.00 ┤")


@pytest.mark.parametrize("width", [20, 40, 120])
@pytest.mark.parametrize("height", [8, 30])
def test_no_line_is_longer_than_the_terminal(
    width: int, height: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything cut off that matters: words go on in the next line."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    shown = CONTROL.sub("", work(terminal))
    assert max(map(len, shown.replace("\r", "\n").split("\n"))) <= width
    assert ("┤" in shown) == (height == 30)
    assert "4,000" in shown


def test_no_colour_is_asked_for(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = work(terminal)
    assert not COLOUR.search(written)
    assert "training" in written


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(progress, "LINE_PERIOD_S", 0.0)
    assert work(terminal).splitlines() == [
        "training: 1,000 of 4,000 (25%), 1,204 steps/s, epsilon 0.55, score 2.00, best 5.00 at step 4,000",
        "evaluating: 17",
        "step 1,000",
        "mean 2.00",
    ]


def test_a_pipe_gets_plain_lines_even_if_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert work(io.StringIO()) == "step 1,000\nmean 2.00\n"


def test_a_terminal_without_unicode_gets_ascii(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress._Messages, "encoding", property(lambda _self: "ascii"))
    shown = CONTROL.sub("", work(terminal))
    assert "5.00 |" in shown
    assert shown.isascii()
