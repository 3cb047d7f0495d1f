"""Ends a run, and sets its status and the exit status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from wn_dqn.errors import FINISHED, RunError
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.host import Stop


class Ending(Protocol):
    """The part of a run that this module needs."""

    reporter: ProgressReporter
    unsaved: OSError | None
    """why the newest checkpoint could not be saved; None if it was"""

    @property
    def steps(self) -> int:
        """Steps done."""
        ...

    def write_status(self, status: str, **details: Any) -> None:
        """Write the run's status for other programs."""
        ...


def train_to_an_end(run: Ending, train: Callable[[], None]) -> int:
    """Call `train` until the run is finished, stopped or failed. Returns the exit status.

    Raises RunError if the run cannot continue.
    """
    try:
        train()
        _require_saved(run)
    except Stop as stop:
        reason, exit_status = stop.args
        run.write_status("paused", reason=reason)
        run.reporter.message(f"stopped at step {run.steps:,} ({reason}); the same command goes on from here")
        _require_saved(run)
        return int(exit_status)
    except RunError as error:
        run.write_status("failed", error=str(error))
        raise
    run.write_status("finished")
    return FINISHED


def _require_saved(run: Ending) -> None:
    if run.unsaved is not None:
        raise RunError(f"the last checkpoint could not be saved: {run.unsaved}") from None
