"""Signals that ask a run to stop. Only the command handles them: the library leaves a process's handlers alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wn_dqn.runs.stop_request import StopRequest

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to `stop`. The second one ends the process at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name, 128 + number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    previous = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
