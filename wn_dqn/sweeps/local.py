"""The executor of one machine: N children at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from wn_dqn.errors import UsageError
from wn_dqn.sweeps.cells import Cell
from wn_dqn.sweeps.child import PERIOD_S, Child, Ending, Judge, is_done, is_elsewhere
from wn_dqn.sweeps.stopping import Stopping
from wn_dqn.system.hardware import GIB, available_memory_bytes, num_cores

PAUSE_S = 5.0
"""seconds between checks of a cell that another process trains"""


class Local:
    """Trains cells in child processes. `cores` are divided between the jobs."""

    def __init__(self, jobs: int, memory_bytes: Sequence[int], pause_s: float = PAUSE_S) -> None:
        """`memory_bytes` has the memory of each cell. Raises UsageError if the `jobs` largest cells do not fit."""
        self.jobs, self._pause_s = jobs, pause_s
        self._cores = max(num_cores() // jobs, 1)
        available, needed = available_memory_bytes(), sorted(memory_bytes, reverse=True)
        if available is not None and sum(needed[:jobs]) > available:
            fit = sum(sum(needed[: n + 1]) <= available for n in range(len(needed)))
            remedy = f"--jobs {fit} fits" if fit else "not even one fits: lower replay.capacity"
            raise UsageError(
                f"too little memory: {min(jobs, len(needed))} runs at a time need {sum(needed[:jobs]) / GIB:.1f} GiB, "
                f"{available / GIB:.1f} GiB are available; {remedy}"
            )

    def __call__(
        self, cells: Sequence[Cell], until_steps: int | None, stop: Stopping, on_ended: Callable[[Cell, Ending], None]
    ) -> None:
        """Train the cells, each to its end or to `until_steps`. Return early if `stop` is set.

        A child that ends before its run is finished is started again. If another process trains a cell, wait for it.
        """
        judge, children = Judge(), list[Child]()
        queue = deque((0.0, cell) for cell in cells)
        while children or (queue and not stop()):
            for child in children:
                if stop.at_once:
                    child.kill()
                elif stop():
                    child.ask_to_stop()
            if not stop():
                for cell in self._begin(queue, children, until_steps):
                    on_ended(cell, "done")
            for child in [child for child in children if child.poll() is not None]:
                children.remove(child)
                ending = judge.ending(child.cell, child.poll() or 0, until_steps)
                if ending == "again":
                    queue.appendleft((0.0, child.cell))
                else:
                    on_ended(child.cell, ending)
            time.sleep(PERIOD_S)

    def _begin(self, queue: deque[tuple[float, Cell]], children: list[Child], until_steps: int | None) -> list[Cell]:
        """Start as many cells as there is room for. Returns the cells that another process trains."""
        done = []
        for _ in range(len(queue)):
            if len(children) == self.jobs:
                break
            not_before_s, cell = queue.popleft()
            if time.monotonic() < not_before_s:
                queue.append((not_before_s, cell))
            elif is_elsewhere(cell):
                queue.append((time.monotonic() + self._pause_s, cell))
            elif is_done(cell, until_steps):
                done.append(cell)
            else:
                children.append(Child(cell, self._cores, until_steps))
        return done
