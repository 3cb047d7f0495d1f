"""The executor of SLURM: a job array with one task per cell, and with the exit statuses of `train`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from wn_dqn.errors import UsageError
from wn_dqn.sweeps.cells import Cell, read_manifest
from wn_dqn.sweeps.child import Child, Judge, is_elsewhere
from wn_dqn.sweeps.parts import Resources
from wn_dqn.sweeps.stopping import Stopping
from wn_dqn.system.durable import write_durably
from wn_dqn.system.hardware import GIB, num_cores

SCRIPT = "sweep.sbatch"
_MEMORY_MARGIN = 1.1
# The warning signal is USR1, not TERM, and goes to the batch shell: without "B:", SLURM would signal the steps of
# `srun`, and there are none. TERM comes from `scancel` and from preemption. A cancelled job must not be requeued, and
# SLURM itself requeues a preempted one.
_TASK = """\
again='' asked='' child=''
ask() {{
  asked=1
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}}
trap 'again=1; ask' USR1
trap ask TERM
{command} "$SLURM_ARRAY_TASK_ID" &
child=$!
[ -z "$asked" ] || ask
wait "$child"
status=$?
while [ -n "$asked" ] && [ "$status" -gt 128 ]; do  # a signal ended `wait`, not the child
  asked=''
  wait "$child"
  status=$?
done
if [ "$status" = 3 ] && [ -n "$again" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def script(
    folder: Path, indices: Sequence[int], memory_bytes: int, resources: Resources, jobs: int, options: Sequence[str]
) -> str:
    """The batch script of an array job for the cells at `indices` of the manifest, at most `jobs` of them at a time.

    `options` are lines for ``#SBATCH``, except that `--env` and `--plugin` are passed to the command of a task.
    """
    words = [word for word in options if word.startswith(("--env=", "--plugin="))]
    memory = resources.memory_gib * GIB if resources.memory_gib else memory_bytes * _MEMORY_MARGIN
    gpus = [f"--gpus={max(round(resources.gpus), 1)}"] if resources.gpus else []
    lines = [
        f"--job-name={job_name(folder)}",
        f"--array={_ranges(indices)}%{jobs}",
        *("--ntasks=1", f"--cpus-per-task={resources.cpus}", f"--mem={-(-round(memory) // 2**20)}M", *gpus),
        *("--signal=B:USR1@120", "--requeue", "--open-mode=append"),
        f"--output={shlex.quote(str(folder.absolute() / 'slurm-%a.log'))}",
        *(option for option in options if option not in words),
    ]
    command = shlex.join([sys.executable, "-m", "wn_dqn", "sweep", "cell", *words, str(folder)])
    head = "\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in lines)])
    return f"{head}\ncd {shlex.quote(os.getcwd())} || exit 2\n{_TASK.format(command=command)}"


def job_name(folder: Path) -> str:
    """The job name of the sweep in `folder`."""
    return "wn-dqn-" + "".join(char if char.isalnum() or char in "-_." else "_" for char in folder.absolute().name)


def _ranges(indices: Sequence[int]) -> str:
    """``0-3,7``"""
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def submit(folder: Path, text: str) -> str:
    """Write the script and submit it. Returns the output of `sbatch`.

    Raises UsageError if `sbatch` refuses it, or if the sweep is in the queue already.
    """
    if shutil.which("sbatch") is None:
        raise UsageError("there is no sbatch here: submit on a machine of the cluster, or see --dry-run")
    queued = _output(["squeue", "--me", "--noheader", "--format=%A", f"--name={job_name(folder)}"])
    if queued:
        raise UsageError(f"{folder} is in the queue already, job {queued.split()[0]}; scancel it first")
    write_durably(folder / SCRIPT, text.encode())
    return _output(["sbatch", str(folder / SCRIPT)])


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{command[0]} does not answer: {error}") from None
    if done.returncode:
        raise UsageError(f"{command[0]} failed: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout.strip()


def train_one(cell: Cell, stop: Stopping) -> int:
    """Train a cell to its end in a child. A killed child is started again. Returns the exit status of `train`."""
    judge = Judge()
    while not is_elsewhere(cell) and not stop():
        status = Child(cell, num_cores()).wait(stop)
        ending = judge.ending(cell, status)
        if ending != "again":
            return status if status in (0, 2) else 1
    return 3


def cell_at(folder: Path, index: int) -> Cell:
    """The cell at this index of the manifest. Raises UsageError if there is none."""
    cells = read_manifest(folder).cells
    if index >= len(cells):
        raise UsageError(f"{folder} has {len(cells)} cells; there is no number {index}")
    return cells[index]
