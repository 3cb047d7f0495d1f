"""Stops a run: on request, or when its time budget is used up."""

from __future__ import annotations

import time

from wn_dqn.errors import FINISHED, STOPPED
from wn_dqn.training.host import Stop


class StopRequest:
    """A stop request or a time budget. The loop raises it as Stop when its step is complete."""

    def __init__(self, stop_after_s: float | None = None) -> None:
        """`stop_after_s`: the time budget in seconds, from now; None for no limit."""
        self._deadline_s = None if stop_after_s is None else time.monotonic() + stop_after_s
        self._requested: tuple[str, int] | None = None
        self.exit_status = FINISHED
        """exit status of the Stop that was raised"""

    def request(self, reason: str, exit_status: int = STOPPED) -> None:
        """Ask the loop to save and stop when its step is complete. Safe in signal handlers and other threads."""
        self._requested = (reason, exit_status)

    def check(self) -> None:
        """Raise Stop(reason, exit status) if a stop was requested or the time budget is used up."""
        if self._requested is None and self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            self.request("time budget used up")
        if self._requested is not None:
            self.exit_status = self._requested[1]
            raise Stop(*self._requested)
