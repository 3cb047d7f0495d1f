"""When a run is to stop: at a signal, or when its time is used up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wn_dqn.training.callbacks import Stop


class StopRequest:
    """Signals and a time budget, turned into a Stop that the loop raises when a step is complete."""

    def __init__(self, stop_after_s: float | None) -> None:
        self._deadline_s = None if stop_after_s is None else time.monotonic() + stop_after_s
        self._requested: tuple[str, int] | None = None

    def request(self, reason: str, exit_status: int) -> None:
        """Ask the loop to save and stop once its step is complete."""
        self._requested = (reason, exit_status)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM. The second one ends the process at once."""
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name, 128 + number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    def check(self) -> None:
        """Raise Stop(reason, exit status) if it is time to."""
        if self._requested is not None:
            raise Stop(*self._requested)
        if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            raise Stop("time budget used up", 0)
