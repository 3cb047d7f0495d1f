"""When a run is to stop: at a signal, or when its time is used up."""

from __future__ import annotations

import signal
import threading
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
        """Handle SIGINT, SIGTERM and SIGHUP. The second SIGINT or SIGTERM ends the process at once."""
        previous = {number: signal.signal(number, self._on_signal) for number in _signals()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name, 128 + number)
        for each in (signal.SIGINT, signal.SIGTERM):  # not SIGHUP: a terminal that closes may send it twice
            signal.signal(each, signal.SIG_DFL)

    def check(self) -> None:
        """Raise Stop(reason, exit status) if it is time to."""
        if self._requested is not None:
            raise Stop(*self._requested)
        if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            raise Stop("time budget used up", 0)


def _signals() -> list[signal.Signals]:
    """Those that ask a run to stop. Windows has no SIGHUP, and `nohup` makes a process ignore it."""
    if threading.current_thread() is not threading.main_thread():
        return []  # Python lets no other thread handle signals
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hangup]
