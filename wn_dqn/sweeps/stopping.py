"""Signals to a sweep's driver: the first one stops it, a second SIGINT or SIGTERM kills its children."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping:
    """Whether the sweep must stop, by a signal or by its time budget."""

    def __init__(self, stop_after_s: float | None = None) -> None:
        self._deadline_s = None if stop_after_s is None else time.monotonic() + stop_after_s
        self.reason = ""
        self.at_once = False
        """whether children must be killed"""

    def __call__(self) -> bool:
        """Whether children must be asked to stop, and no other one may start."""
        if not self.reason and self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            self.reason = "time budget used up"
        return bool(self.reason)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self.at_once = self.at_once or (self.reason in ("SIGINT", "SIGTERM") and name != "SIGHUP")
        self.reason = name

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP in this context. SIGHUP stays ignored if `nohup` has ignored it."""
        numbers = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
        heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, self._on_signal) for number in heard}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
