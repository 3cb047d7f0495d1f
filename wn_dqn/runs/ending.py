"""How a training ends, and what its status and its exit status then say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from wn_dqn.errors import FINISHED, RunError
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.host import Stop


class Ending(Protocol):
    """A run, as far as its end needs to know it."""

    reporter: ProgressReporter
    unsaved: OSError | None
    """why the newest checkpoint could not be saved; None if it was"""

    @property
    def steps(self) -> int:
        """Steps done."""
        ...

    def write_status(self, status: str, **details: Any) -> None:
        """Tell other programs how the run is."""
        ...


def train_to_an_end(run: Ending, train: Callable[[], None]) -> int:
    """`train` until it is done, stopped or failed; returns the exit status. RunError if the run cannot go on."""
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
