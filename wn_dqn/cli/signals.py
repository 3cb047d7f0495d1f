"""Signals that ask a run to stop. Only the command handles them: the library leaves a process's handlers alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wn_dqn.runs.stop_request import StopRequest


@contextmanager
def stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to `stop`. A second SIGINT or SIGTERM ends the process at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name, 128 + number)
        for each in (signal.SIGINT, signal.SIGTERM):  # not SIGHUP: a terminal that closes may send it twice
            signal.signal(each, signal.SIG_DFL)

    previous = {number: signal.signal(number, on_signal) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    """Those that ask a run to stop. Windows has no SIGHUP, and `nohup` makes a process ignore it."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hangup]
