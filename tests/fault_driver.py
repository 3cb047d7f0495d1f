"""Trains in child processes that kill themselves at a chosen moment, then lets the same command finish the run.

    python tests/fault_driver.py CONFIG FOLDER NETWORK MOMENT...

NETWORK is small or nature. A moment is named for what happens and for whom: "before fsync (checkpoint)", "in a write
(segment)", "in an evaluation". An undisturbed run, whose outcome is in FOLDER/undisturbed, counts how often each
happens. Then, for every MOMENT, a child is killed by SIGKILL at the middle one of its kind, and the run goes on in
another child; its outcome is in FOLDER/MOMENT. RESUME_MOMENTS happen when a killed run goes on: there, that child is
killed, too. Prints the moments of the undisturbed run, as JSON.

Children are forked from a process that has imported everything and looked for its kernels, so each is cheap.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # the first row of metrics would import it, in every child anew
from small_runs import NATURE, SMALL_NETWORK, network_of

from wn_dqn.config.files import make_settings, read_config
from wn_dqn.nn.kernels import find_kernels
from wn_dqn.runs import experiment, launch
from wn_dqn.system import durable
from wn_dqn.system.progress import ProgressReporter

torch.set_num_threads(1)

_CALLS = (
    (os, "fsync"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "ftruncate"),
    (pathlib.Path, "unlink"),
    (pathlib.Path, "replace"),
    (pathlib.Path, "rename"),
)
# Who may be doing it: the innermost of these functions that is being called.
_DOERS = {
    "write_arrays": "segment",
    "prune": "replay prune",
    "prune_checkpoints": "checkpoint prune",
    "_write": "table",
    "save_checkpoint": "checkpoint",
    "write_status": "small file",
    "write_settings": "small file",
    "add_provenance": "small file",
    "write_card": "small file",
    "write_start": "small file",
    "remove_leftovers": "leftovers",
    "load_state_dict": "tables cut back",
}
RESUME_MOMENTS = (
    "before unlink (leftovers)",
    "after unlink (leftovers)",
    "before rmdir (leftovers)",
    "before ftruncate (tables cut back)",
    "after ftruncate (tables cut back)",
)


class Moments:
    """Counts the moments; kills the process at the `fatal` one: a name, and how many of that name come before it."""

    def __init__(self, fatal: tuple[str, int] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._fatal = fatal
        self._lock = threading.Lock()
        for owner, name in _CALLS:
            setattr(owner, name, self._watched(name, getattr(owner, name)))
        original_open, original_evaluate = durable.open_file, experiment.evaluate

        def open_watched(path: Path, mode: Any) -> Any:
            file = original_open(path, mode)
            return file if mode == "rb" else _File(file, self)

        def evaluate(*args: Any) -> Any:
            *others, on_step, visited = args

            def watched_step(done: int) -> None:
                self.pass_("in an evaluation")
                on_step(done)

            return original_evaluate(*others, watched_step, visited)

        durable.open_file = open_watched  # type: ignore[assignment]
        experiment.evaluate = evaluate  # type: ignore[attr-defined]

    def is_fatal(self, moment: str) -> bool:
        """Whether this is where the process ends; counts the moment."""
        with self._lock:
            self.counts[moment] += 1
            return self._fatal == (moment, self.counts[moment] - 1)

    def pass_(self, moment: str) -> None:
        """Count the moment, and die at it if it is the fatal one."""
        if self.is_fatal(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            doer = _doer()
            if doer:
                self.pass_(f"before {name} ({doer})")
            result = function(*args, **kwargs)
            if doer:
                self.pass_(f"after {name} ({doer})")
            return result

        return call


class _File:
    """A file whose writes may end half-way."""

    def __init__(self, file: Any, moments: Moments) -> None:
        self._file, self._moments = file, moments

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        if len(data) > 1 and self._moments.is_fatal(f"in a write ({_doer()})"):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return int(self._file.write(data))


def _doer() -> str:
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name not in _DOERS:
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else _DOERS[frame.f_code.co_name]


def run_in_child(config: str, folder: Path, fatal: tuple[str, int] | None) -> int:
    """Train in a forked child; returns its wait status. It leaves the moments that it counted beside `folder`."""
    child = os.fork()
    if child == 0:
        moments = Moments(fatal)
        settings = make_settings(read_config(config))
        status = launch.train_run(settings, folder, torch.device("cpu"), ProgressReporter())
        (folder.parent / f"{folder.name}.json").write_text(json.dumps(moments.counts))
        os._exit(status)
    return os.waitpid(child, 0)[1]


def kill(config: str, folder: Path, moment: str, before: int) -> None:
    """Train in a child that dies at the moment that has `before` of its kind before it."""
    status = run_in_child(config, folder, (moment, before))
    assert os.WIFSIGNALED(status), f"the run ended before {moment!r} number {before}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def main() -> None:
    """See the module's docstring."""
    config, root, network, *moments = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
    find_kernels()  # each child would compare them with torch's numbers anew
    with network_of({"small": SMALL_NETWORK, "nature": NATURE}[network]):
        assert run_in_child(config, root / "undisturbed", None) == 0
        counts = json.loads((root / "undisturbed.json").read_text())
        for moment in moments:
            folder = root / moment
            if moment in RESUME_MOMENTS:  # a checkpoint is half-written, and rows came after the one before it
                kill(config, folder, "before fsync (checkpoint)", counts["before fsync (checkpoint)"] // 2)
                kill(config, folder, moment, 0)
            else:
                kill(config, folder, moment, counts[moment] // 2)
            assert run_in_child(config, folder, None) == 0, f"the run killed {moment} did not go on"
    print(json.dumps(sorted(counts)))  # noqa: T201


if __name__ == "__main__":
    main()
