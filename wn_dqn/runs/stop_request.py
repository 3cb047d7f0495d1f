"""When a run is to stop: when somebody asks, or when its time is used up."""

from __future__ import annotations

import time

from wn_dqn.errors import FINISHED, STOPPED
from wn_dqn.training.host import Stop


class StopRequest:
    """A request from elsewhere and a time budget, turned into a Stop that the loop raises when a step is complete."""

    def __init__(self, stop_after_s: float | None = None) -> None:
        """`stop_after_s`: the time budget in seconds, from now; None for no limit."""
        self._deadline_s = None if stop_after_s is None else time.monotonic() + stop_after_s
        self._requested: tuple[str, int] | None = None
        self.exit_status = FINISHED
        """of the Stop that was raised"""

    def request(self, reason: str, exit_status: int = STOPPED) -> None:
        """Ask the loop to save and stop once its step is complete; from a signal handler or another thread."""
        self._requested = (reason, exit_status)

    def check(self) -> None:
        """Raise Stop(reason, exit status) if it is time to."""
        if self._requested is None and self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            self.request("time budget used up")
        if self._requested is not None:
            self.exit_status = self._requested[1]
            raise Stop(*self._requested)
