"""One attempt at a cell: runs `wn-dqn train` as a child process, stops it in time, and interprets its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal

from wn_dqn.errors import FAILED, FINISHED, MISTAKE, STOPPED
from wn_dqn.runs.status import SAVED_STEPS, holder, read_status
from wn_dqn.sweeps.cells import Cell, is_over, last_line, mark_failed, scores, unmark
from wn_dqn.system.hardware import CORES_VARIABLE

Ending = Literal["done", "again", "failed"]
PROGRAM = (sys.executable, "-m", "wn_dqn.sweeps.tied")
PERIOD_S = 0.05
"""seconds between checks of a child"""
_LOOK_AT_SCORES_S = 1.0
_MAX_DEATHS = 3
_NOTICE = getattr(signal, "SIGHUP", signal.SIGTERM)
# Settings in the user's environment do not apply to cells: only the study's file defines its runs.
_FOREIGN = {
    f"WN_DQN_{name}"
    for name in (
        *("CONFIG", "GAME", "ENV", "PARAM", "AGENT", "SEED", "INIT"),
        *("STEPS", "NUM_ENVS", "PRECISION", "SAVE_REPLAY", "RUN_DIR"),
    )
}


class Child:
    """The process that trains a cell. It has its own process group, so that only the driver receives Ctrl-C."""

    def __init__(self, cell: Cell, cores: int, until_steps: int | None = None) -> None:
        """If `until_steps` is given, the child is asked to stop after its evaluation at this step."""
        self.cell, self._until_steps = cell, until_steps
        self.asked = False
        self._next_look_s = 0.0
        cell.folder.mkdir(parents=True, exist_ok=True)
        unmark(cell)
        command = [*PROGRAM, str(os.getpid()), *cell.command]
        with open(cell.log, "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(cores),
            )

    def ask_to_stop(self) -> None:
        """Make it save and end, by SIGHUP. This is harmless even if a scheduler has already sent it SIGTERM."""
        if not self.asked:
            self.asked = True
            self._process.send_signal(_NOTICE)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it is running."""
        now_s = time.monotonic()
        if self._until_steps is not None and now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_AT_SCORES_S
            if reached(self.cell, self._until_steps):
                self.ask_to_stop()
        status = self._process.poll()
        # If SIGHUP arrives before its handler is installed, the child ends by the signal. No work is lost.
        return STOPPED if self.asked and status == -_NOTICE else status

    def wait(self, should_stop: Callable[[], bool]) -> int:
        """Wait for its end, and return its exit status. It is asked to stop when `should_stop` returns True."""
        while (status := self.poll()) is None:
            if should_stop():
                self.ask_to_stop()
            time.sleep(PERIOD_S)
        return status


def reached(cell: Cell, until_steps: int | None) -> bool:
    """Whether the cell has been evaluated at this step or later. False if `until_steps` is None."""
    return until_steps is not None and any(steps >= until_steps for steps, _ in scores(cell))


def is_done(cell: Cell, until_steps: int | None) -> bool:
    """Whether the cell has nothing left to train, for instance because another driver has trained it."""
    return reached(cell, until_steps) or is_over(cell)


class Judge:
    """Interprets the ends of children. A cell has failed if it is killed repeatedly without a new checkpoint."""

    def __init__(self) -> None:
        self._deaths: dict[str, tuple[int, int]] = {}

    def ending(self, cell: Cell, status: int, until_steps: int | None = None) -> Ending:
        """Whether the cell is done, must be started again, or has failed, which is recorded in its folder."""
        if status == FINISHED or (status == STOPPED and reached(cell, until_steps)):
            return "done"
        if status in (FAILED, MISTAKE):
            mark_failed(cell, last_line(cell) or f"exit status {status}")
            return "failed"
        if status == STOPPED or self._count_deaths(cell) < _MAX_DEATHS:
            return "again"
        by = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        mark_failed(cell, f"killed {_MAX_DEATHS} times without having saved anything new ({by}); too little memory?")
        return "failed"

    def _count_deaths(self, cell: Cell) -> int:
        saved = int(read_status(cell.folder).get(SAVED_STEPS) or 0)
        before, deaths = self._deaths.get(cell.name, (saved, 0))
        deaths = deaths + 1 if saved == before else 1
        self._deaths[cell.name] = saved, deaths
        return deaths


def is_elsewhere(cell: Cell) -> bool:
    """Whether another process trains the cell now."""
    return bool(holder(cell.folder))


def _environment(cores: int) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    return {**kept, CORES_VARIABLE: str(cores), "PYTHONUNBUFFERED": "1"}
