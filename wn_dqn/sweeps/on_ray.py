"""The executor of Ray, with one task per cell. If a worker or a node fails, Ray starts the task again, which resumes.

It uses tasks and not Ray Tune. Tune has its own state, which must not change between two starts. Here the state is in
the run directories.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wn_dqn.errors import UsageError, first_line
from wn_dqn.sweeps.cells import Cell, mark_failed
from wn_dqn.sweeps.child import Child, Ending, Judge, is_done, is_elsewhere
from wn_dqn.sweeps.parts import Resources
from wn_dqn.sweeps.stopping import Stopping
from wn_dqn.system.hardware import GIB

_CONNECT_S = 5.0
_ANSWER_S = 12.0
_PAUSE_S = 1.0


class OnRay:
    """Trains cells on a Ray cluster. Its nodes share the folder of the sweep, and have wn_dqn installed."""

    def __init__(self, address: str, resources: Resources) -> None:
        """Connect to the cluster. Raises UsageError if Ray is not installed or the cluster does not answer."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # unless the user turns them on
        if address.startswith(("127.", "localhost")):  # Ray would search for it at this machine's external address
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if importlib.util.find_spec("ray") is None:
            raise UsageError("Ray is not installed: pip install 'wn-dqn[ray]'")
        if address != "local":
            _require_answer(address)
        self._ray: Any = importlib.import_module("ray")
        self._resources = resources
        self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")

    def __call__(
        self, cells: Sequence[Cell], until_steps: int | None, stop: Stopping, on_ended: Callable[[Cell, Ending], None]
    ) -> None:
        """As :class:`wn_dqn.sweeps.driver.Executor`."""
        ray, cwd = self._ray, os.getcwd()
        waiting = {self._task(cell).remote(cell, until_steps, self._resources.cpus, cwd): cell for cell in cells}
        cancelled = False
        while waiting:
            if stop() and (stop.at_once or not cancelled):
                cancelled = True
                for reference in waiting:
                    ray.cancel(reference, force=stop.at_once)
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=0.5)
            for reference in ready:
                cell = waiting.pop(reference)
                ending = self._ending(reference, cell)
                if ending != "again":
                    on_ended(cell, ending)

    def _task(self, cell: Cell) -> Any:
        memory_gib = self._resources.memory_gib
        return self._ray.remote(train_cell).options(
            name=cell.name,
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            memory=round(memory_gib * GIB) if memory_gib else cell.memory_bytes,
            max_retries=-1,  # retries after failures of workers and nodes; a failed run does not raise
        )

    def _ending(self, reference: Any, cell: Cell) -> Ending:
        try:
            ending: Ending = self._ray.get(reference)
        except (self._ray.exceptions.TaskCancelledError, self._ray.exceptions.WorkerCrashedError):
            return "again"
        except self._ray.exceptions.RayError as error:
            mark_failed(cell, str(error).strip().splitlines()[-1])
            return "failed"
        return ending


def train_cell(cell: Cell, until_steps: int | None, cores: int, cwd: str) -> Ending:
    """Train a cell to its end in a Ray worker. Returns "again" if the task was cancelled, after the child has saved."""
    if not Path(cwd).is_dir():
        raise UsageError(f"{socket.gethostname()} has no folder {cwd}: the nodes must share the folder of the sweep")
    os.chdir(cwd)
    judge = Judge()
    ending: Ending = "again"
    child: Child | None = None
    try:
        while ending == "again":
            while is_elsewhere(cell):  # the child of a failed worker may still be saving
                time.sleep(_PAUSE_S)
            if is_done(cell, until_steps):
                return "done"
            child = Child(cell, cores, until_steps)
            ending = judge.ending(cell, child.wait(lambda: False), until_steps)
    except KeyboardInterrupt:  # Ray cancels a task in this way
        if child is not None:
            child.wait(lambda: True)
        return "again"
    return ending


def _require_answer(address: str) -> None:
    """Raise UsageError if no cluster answers soon. Ray itself waits for minutes, so a separate process tries it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        except OSError as error:
            raise UsageError(f"no Ray cluster answers at {address}: {first_line(error)}; see `ray status`") from None
    program = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, address], capture_output=True, timeout=_ANSWER_S, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"no Ray cluster answers at {address} within {_ANSWER_S:.0f} s; see `ray status`") from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it gives no reason"])[-1]
        raise UsageError(f"no Ray cluster answers at {address}: {why}")
