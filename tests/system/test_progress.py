"""Lines of progress, where there is no terminal."""

from __future__ import annotations

import pytest

from wn_dqn.system import progress


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
