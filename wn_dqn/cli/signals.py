"""Signals that stop a run. Only the command handles them: the library does not change a process's signal handlers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wn_dqn.runs.stop_request import StopRequest


@contextmanager
def stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to `stop`. A second SIGINT or SIGTERM ends the process at once.

    SIGHUP never ends the process at once, and does not count as the first signal. A terminal that closes may send it
    twice. A parent process that forwards a signal sends SIGHUP, because its scheduler may have sent SIGTERM to both.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name)
        if number in (signal.SIGINT, signal.SIGTERM):
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, _end_at_once)

    previous = {number: signal.signal(number, on_signal) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    """End the process by this signal, with one line."""
    with contextlib.suppress(OSError):  # not through Python's stream: the signal may have interrupted a write
        os.write(2, b"\nwn-dqn: stopped at once; the same command goes on from the last checkpoint\n")
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _signals() -> list[signal.Signals]:
    """The signals that stop a run. Windows has no SIGHUP, and `nohup` makes a process ignore it."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return [signal.SIGINT, signal.SIGTERM]
    return [signal.SIGINT, signal.SIGTERM, hangup]
