"""Progress on the console: bars and a chart in a terminal, plain lines without one."""

from __future__ import annotations

import contextlib
import io
import sys
import textwrap
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wn_dqn.system.line_chart import line_chart

LINE_PERIOD_S = 15.0
"""seconds between lines of a task without a terminal"""
_PACE_S = 60.0
"""window in seconds for a task's speed, from which the remaining time is estimated"""
_CHART_WIDTH, _CHART_HEIGHT = 64, 6
_ROOM_FOR_CHART = 16
"""lines of a terminal that shows a chart"""
_ROOM_FOR_TIME = 30
"""columns of a terminal that shows how much time is left"""


class _Messages(io.TextIOBase):
    """A stream that ignores write errors: a closed pipe or a full disk must not end the work."""

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
    """Shows the progress of long tasks on standard error. Text that cannot be written is dropped."""

    def __init__(self, console: Console | None = None) -> None:
        messages = cast("TextIO", _Messages(sys.stderr))
        # A notebook gets plain lines, too: rich would show each update as a separate output.
        self._console = console or Console(file=messages, highlight=False, soft_wrap=True, force_jupyter=False)
        # `FORCE_COLOR` is ignored here: it asks for colours in a pipe, not for moving bars.
        self._moves = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._bars = _Bars()
        self._live: Live | None = None

    def message(self, text: str) -> None:
        """Print a separate line."""
        self._console.print(text, markup=False)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[ProgressTask]:
        """Show a task of `total` units, of which `done` are done. 0 means an unknown total."""
        if not self._moves:
            yield _Lines(self, name, total, done)
            return
        bar = _Bar(name, total, done)
        self._bars.shown.append(bar)
        outermost = self._live is None
        if self._live is None:
            self._live = Live(self._bars, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        try:
            yield bar
        finally:
            self._bars.shown.remove(bar)
            if outermost:
                self._live.stop()
                self._live = None
                for line in bar.chart(self._console.options):
                    self._console.print(line, markup=False)


class ProgressTask:
    """A task in progress."""

    def update(self, done: int, details: str = "") -> None:
        """Set the number of units that are done. `details` is additional text."""
        raise NotImplementedError

    def show_curve(self, values: Sequence[float]) -> None:
        """Show a chart of `values` if there is a terminal."""


class _Pace:
    """Estimates the remaining time of a task."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self.began_s = time.monotonic()
        self._behind = deque([(self.began_s, done)])

    def update(self, done: int) -> float:
        """Set the number of units that are done. Returns the current time."""
        now_s, self.done = time.monotonic(), done
        if now_s - self._behind[-1][0] >= 1.0:
            self._behind.append((now_s, done))
            while now_s - self._behind[1][0] > _PACE_S:
                self._behind.popleft()
        return now_s

    @property
    def share(self) -> float:
        return min(self.done / self.total, 1.0)

    @property
    def left(self) -> str:
        """The remaining time, like 0:01:00; empty if unknown."""
        (began_s, before), (last_s, last) = self._behind[0], self._behind[-1]
        if last <= before:
            return ""
        return duration_text((last_s - began_s) / (last - before) * max(self.total - self.done, 0))


class _Bar(ProgressTask):
    def __init__(self, name: str, total: int, done: int) -> None:
        self.name, self.details = name, ""
        self._pace = _Pace(total, done)
        self._curve: Sequence[float] = ()

    def update(self, done: int, details: str = "") -> None:
        self.details = details
        self._pace.update(done)

    def show_curve(self, values: Sequence[float]) -> None:
        self._curve = list(values)

    def chart(self, options: ConsoleOptions) -> list[str]:
        """The chart as lines; empty if there is no room or no curve."""
        if options.size.height < _ROOM_FOR_CHART:
            return []
        width = min(options.max_width, _CHART_WIDTH)
        return line_chart(self._curve, width, _CHART_HEIGHT, ascii_only=options.ascii_only)

    def line(self, options: ConsoleOptions) -> Table:
        """Name, bar, share and time: one line of a terminal."""
        pace = self._pace
        known = pace.total > 0
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        bar = ProgressBar(pace.total or None, pace.done, pulse=not known)
        cells: list[Text | ProgressBar] = [Text(self.name), bar]
        texts = [f"{pace.share:4.0%}" if known else f"{pace.done:,}"]
        if known and pace.left and options.max_width >= _ROOM_FOR_TIME:
            texts.append(f"{pace.left} left")
        for text in texts:
            line.add_column(no_wrap=True, justify="right")
            cells.append(Text(text))
        line.add_row(*cells)
        return line


class _Bars:
    """All tasks in progress, drawn as far as the terminal has room."""

    def __init__(self) -> None:
        self.shown: list[_Bar] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for bar in list(self.shown):  # a copy, because another thread draws
            for line in bar.chart(options):
                yield Text(line)
            yield bar.line(options)
            for line in textwrap.wrap(bar.details, options.max_width):
                yield Text(line, style="dim")


class _Lines(ProgressTask):
    def __init__(self, reporter: ProgressReporter, name: str, total: int, done: int) -> None:
        self._reporter, self._name = reporter, name
        self._pace = _Pace(total, done)
        self._last_s = self._pace.began_s

    def update(self, done: int, details: str = "") -> None:
        now_s = self._pace.update(done)
        if now_s - self._last_s < LINE_PERIOD_S:
            return
        self._last_s = now_s
        self._reporter.message(f"{self._name}: {self._how_far()}" + (details and f", {details}"))

    def _how_far(self) -> str:
        pace = self._pace
        if not pace.total:
            return f"{pace.done:,}"
        left = pace.left and f", {pace.left} left"
        return f"{min(pace.done, pace.total):,} of {pace.total:,} ({pace.share:.0%}){left}"


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds, like 0:01:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
