"""One attempt at a cell: `wn-dqn train` as a child process, asked to stop in time, and what its end means."""

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
"""between looks at a child"""
_LOOK_AT_SCORES_S = 1.0
_MAX_DEATHS = 3
_NOTICE = getattr(signal, "SIGHUP", signal.SIGTERM)
# Settings of the user's shell are no part of a cell: only a study's file says what its runs are.
_FOREIGN = {
    f"WN_DQN_{name}"
    for name in (
        *("CONFIG", "GAME", "ENV", "PARAM", "AGENT", "SEED", "INIT"),
        *("STEPS", "NUM_ENVS", "PRECISION", "SAVE_REPLAY", "RUN_DIR"),
    )
}


class Child:
    """A cell in training. It is no member of our process group: the keyboard's signals reach it through us alone."""

    def __init__(self, cell: Cell, cores: int, until_steps: int | None = None) -> None:
        """`until_steps`: it is asked to stop once it has been evaluated at this step."""
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
        """Have it save and end. By SIGHUP, which is harmless if a scheduler has sent it SIGTERM, too."""
        if not self.asked:
            self.asked = True
            self._process.send_signal(_NOTICE)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it goes on."""
        now_s = time.monotonic()
        if self._until_steps is not None and now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_AT_SCORES_S
            if reached(self.cell, self._until_steps):
                self.ask_to_stop()
        status = self._process.poll()
        # Asked in its first moment, before it listens, it ends as any program does. It has lost nothing either.
        return STOPPED if self.asked and status == -_NOTICE else status

    def wait(self, should_stop: Callable[[], bool]) -> int:
        """Its exit status, once it has ended. It is asked to stop when `should_stop` says so."""
        while (status := self.poll()) is None:
            if should_stop():
                self.ask_to_stop()
            time.sleep(PERIOD_S)
        return status


def reached(cell: Cell, until_steps: int | None) -> bool:
    """Whether the cell has been evaluated at this step or later. If it is None: False."""
    return until_steps is not None and any(steps >= until_steps for steps, _ in scores(cell))


def is_done(cell: Cell, until_steps: int | None) -> bool:
    """Whether nothing is left to train: perhaps another driver has done it since this one began."""
    return reached(cell, until_steps) or is_over(cell)


class Judge:
    """What the ends of children mean. A cell that dies again and again without having saved anything new has failed."""

    def __init__(self) -> None:
        self._deaths: dict[str, tuple[int, int]] = {}

    def ending(self, cell: Cell, status: int, until_steps: int | None = None) -> Ending:
        """Whether the cell is done, is to be started again, or has failed, which is noted in its folder."""
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
