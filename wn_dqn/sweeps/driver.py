"""The driver: selects the cells to train, passes them to an executor, and reports the outcome."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from wn_dqn.config.trust import require_trust_in_game
from wn_dqn.errors import FAILED, FINISHED, STOPPED, UsageError
from wn_dqn.sweeps.cells import Cell, Standing, Sweep, is_over, standing
from wn_dqn.sweeps.child import Ending, reached
from wn_dqn.sweeps.halving import stop_losers
from wn_dqn.sweeps.stopping import Stopping
from wn_dqn.system.text import number_of, printable


class Executor(Protocol):
    """Trains cells somewhere."""

    def __call__(
        self, cells: Sequence[Cell], until_steps: int | None, stop: Stopping, on_ended: Callable[[Cell, Ending], None]
    ) -> None:
        """Train the cells to their ends, or until they were evaluated at `until_steps`.

        `on_ended` is called at the end of each cell. Returns when all have ended, or soon after `stop` is set.
        """
        ...


def require_allowed(cells: Sequence[Cell], named: Sequence[str], plugins: Sequence[str]) -> None:
    """Raise UsageError if a cell's command is not `train`, or refers to external code that is not allowed."""
    for cell in cells:
        words = list(zip(cell.command, cell.command[1:], strict=False))
        if cell.command[:1] != ("train",):
            raise UsageError(f"the command of {cell.name} is not `wn-dqn train`")
        for game in {value for option, value in words if option in ("--env", "--game")}:
            require_trust_in_game(game, named)
        for plugin in {value for option, value in words if option == "--plugin"} - {*plugins}:
            raise UsageError(f"this would run the plugin {plugin}; if you trust it, add --plugin {plugin}")


def drive(
    sweep: Sweep, todo: Sequence[Cell], executor: Executor, stop: Stopping, message: Callable[[str], None]
) -> None:
    """Train the cells `todo`, and report how each ended. With halving, train them from comparison to comparison."""
    failed: set[str] = set()

    def on_ended(cell: Cell, ending: Ending) -> None:
        now = standing(cell)
        if ending == "failed":
            failed.add(cell.name)
        message(f"{cell.name}: {now.state} at step {now.steps:,}" + (f": {now.reason}" if now.reason else ""))

    for until_steps in [*(sorted(sweep.halving.at_steps) if sweep.halving else ()), None]:
        going_on = [cell for cell in todo if cell.name not in failed and not is_over(cell)]
        executor([cell for cell in going_on if not reached(cell, until_steps)], until_steps, stop, on_ended)
        if stop():
            return
        if sweep.halving and until_steps is not None:
            for line in stop_losers(sweep.cells, sweep.halving, until_steps):
                message(line)


def unfinished(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that must still be trained: not finished, not stopped early, not failed."""
    return [cell for cell in cells if standing(cell).state in ("waiting", "running")]


def conclude(sweep: Sweep, stop: Stopping, message: Callable[[str], None]) -> int:
    """Report finished and failed cells, and the next command. Returns the exit status."""
    folder, standings = sweep.folder, [standing(cell) for cell in sweep.cells]
    message(count_text(standings))
    for each in standings:
        if each.state == "failed":
            message(f"failed: {folder / each.name}: {printable(each.reason)}; its log: {folder / each.name}/train.log")
    states = Counter(each.state for each in standings)
    if stop.reason:
        message(f"stopped ({stop.reason}); the same command goes on")
    if states["failed"]:
        message(f"again: wn-dqn sweep retry {os.fspath(folder)}")
    if states["finished"]:
        message(f"next: wn-dqn report {os.fspath(folder)}")
    if states["failed"]:
        return (
            FAILED if states["failed"] + states["finished"] + states["stopped early"] == len(sweep.cells) else STOPPED
        )
    return STOPPED if states["waiting"] or states["running"] else FINISHED


def count_text(standings: Sequence[Standing]) -> str:
    """One line with the number of cells in each state."""
    states = Counter(each.state for each in standings)
    counts = [f"{states[state]:,} {state}" for state in ("finished", "running", "waiting", "stopped early", "failed")]
    return f"{number_of(len(standings), 'cell')}: " + ", ".join(text for text in counts if not text.startswith("0 "))
