"""Progress on the console: a bar where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_PERIOD_S = 15.0
"""Seconds between lines of a task where there is no terminal."""


class _Messages(io.TextIOBase):
    """A stream that drops what it cannot write: a reader who is gone, or a full disk, must not end the work."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"


class ProgressReporter:
    """Tells a person how far a long task is. Everything goes to standard error; what cannot be written is dropped."""

    def __init__(self, console: Console | None = None) -> None:
        messages = cast("TextIO", _Messages(sys.stderr))
        self._console = console or Console(file=messages, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None

    def message(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, markup=False)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[ProgressTask]:
        """A task of `total` units, 0 if nobody can know, of which `done` are behind."""
        if not self._console.is_terminal:
            yield _Lines(self, name, total, done)
            return
        outermost = self._bars is None
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[details]}"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
                refresh_per_second=4,
            )
            self._bars.start()
        bars = self._bars
        bar = bars.add_task(name, total=total or None, completed=done, details="")
        try:
            yield _Bar(bars, bar)
        finally:
            bars.remove_task(bar)
            if outermost:
                bars.stop()
                self._bars = None


class ProgressTask:
    """A task under way."""

    def update(self, done: int, details: str = "") -> None:
        """`done` units are behind; `details` is what else is worth a glance."""
        raise NotImplementedError


class _Bar(ProgressTask):
    def __init__(self, bars: Progress, bar: object) -> None:
        self._bars, self._bar = bars, bar

    def update(self, done: int, details: str = "") -> None:
        self._bars.update(self._bar, completed=done, details=details)  # type: ignore[arg-type]


class _Lines(ProgressTask):
    def __init__(self, reporter: ProgressReporter, name: str, total: int, done: int) -> None:
        self._reporter, self._name, self._total, self._done_before = reporter, name, total, done
        self._began_s = self._last_s = time.monotonic()

    def update(self, done: int, details: str = "") -> None:
        now_s = time.monotonic()
        if now_s - self._last_s < LINE_PERIOD_S:
            return
        self._last_s = now_s
        self._reporter.message(f"{self._name}: {self._how_far(done, now_s)}" + (details and f", {details}"))

    def _how_far(self, done: int, now_s: float) -> str:
        if not self._total:
            return f"{done:,}"
        left_s = (now_s - self._began_s) / max(done - self._done_before, 1) * max(self._total - done, 0)
        share = min(done / self._total, 1.0)
        return f"{min(done, self._total):,} of {self._total:,} ({share:.0%}), {_duration(left_s)} left"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
