"""Trains in child processes that kill themselves at a chosen moment, then lets the same command finish the run.

    python tests/fault_driver.py CONFIG FOLDER POINT...

POINT is the number of a call that makes something durable (fsync, rename, unlink); the child dies by SIGKILL just
before it. Children are forked from a process that has imported everything and computed nothing, so each is cheap.
Prints the number of such calls in an undisturbed run, whose outcome is in FOLDER/undisturbed.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wn_dqn.config import make_settings, read_config
from wn_dqn.launch import train_run
from wn_dqn.progress import ProgressReporter

torch.set_num_threads(1)


class Moments:
    """Counts the calls that make something durable; kills the process just before the one numbered `fatal`."""

    def __init__(self, fatal: int | None) -> None:
        self.count = 0
        self._fatal = fatal
        for owner, name in (
            (os, "fsync"),
            (os, "unlink"),
            (os, "rmdir"),
            (pathlib.Path, "replace"),
            (pathlib.Path, "rename"),
        ):
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.count == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
            return function(*args, **kwargs)

        return call


def run_in_child(config: str, folder: Path, fatal: int | None) -> int:
    """Train in a forked child; returns its wait status."""
    child = os.fork()
    if child == 0:
        moments = Moments(fatal)
        settings = make_settings(read_config(config))
        status = train_run(settings, folder, torch.device("cpu"), ProgressReporter())
        if fatal is None:
            (folder.parent / f"{folder.name}.count").write_text(str(moments.count))
        os._exit(status)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """See the module's docstring."""
    config, root = sys.argv[1], Path(sys.argv[2])
    assert run_in_child(config, root / "undisturbed", None) == 0
    for point in map(int, sys.argv[3:]):
        folder = root / f"killed-at-{point}"
        status = run_in_child(config, folder, point)
        assert os.WIFSIGNALED(status), f"the run ended before call {point}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert run_in_child(config, folder, None) == 0, f"the run killed at {point} did not go on"


if __name__ == "__main__":
    main()
