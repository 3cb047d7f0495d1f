"""A run directory: the unit that every command reads.

config.yaml        resolved settings           metrics.csv       a row per log period
provenance.json    versions, command, commit   evaluations.csv   a row per evaluation
status.json        running, paused, finished   events.out...     TensorBoard
checkpoints/       newest ones and the best    replay/           segments of the replay buffer
start.json         outputs of the network at its initialization
train.log          printed lines of a sweep's run
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, TypeAdapter

from wn_dqn import __version__
from wn_dqn.config.files import CONFIG_BYTES, dump_yaml, parse_yaml, stored_settings
from wn_dqn.config.schema import Settings
from wn_dqn.errors import BusyError, RunError, UsageError
from wn_dqn.runs.checkpoint import (
    CheckpointError,
    CheckpointInfo,
    best_checkpoint,
    checkpoint_info,
    checkpoint_paths,
    list_checkpoints,
    set_aside,
)
from wn_dqn.runs.status import LOCK, SAVED_STEPS, TRAIN_LOG, read_status, write_status
from wn_dqn.system import reading
from wn_dqn.system.durable import write_durably
from wn_dqn.system.hardware import num_cores
from wn_dqn.system.locking import InUseError, hold, hold_folder
from wn_dqn.system.reading import MIB, Record, Steps, Text

CONFIG = "config.yaml"
_PROVENANCE = "provenance.json"
REEVALUATIONS = "reevaluations.jsonl"
_PROVENANCE_BYTES = 16 * MIB
_ENVIRONMENT_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "SLURM_JOB_ID")
_PACKAGES = ("torch", "numpy", "ale-py", "gymnasium", "safetensors")


class _Machine(Record):
    """The machine in an entry of ``provenance.json``."""

    system: Text | None = None
    device: Text | None = None
    cores: Steps | None = None


class _Process(Record):
    """An entry of ``provenance.json``. Its command can contain bytes that are not valid text."""

    time: Text | None = None
    commit: Text | None = None
    versions: Mapping[Text, Text] = Field({})
    machine: _Machine = _Machine()
    command: Sequence[Any] = Field([])


_ENTRIES = TypeAdapter(list[_Process])


class RunDirectory:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locked: os.stat_result | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def replay(self) -> Path:
        return self.path / "replay"

    @property
    def exists(self) -> bool:
        """Whether this directory contains a run."""
        return (self.path / CONFIG).is_file()

    def create(self) -> None:
        """Create the folder. Raises UsageError if it cannot be written, or if it contains files of no run."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = [item.name for item in self.path.iterdir() if not self._is_left_by_a_failed_beginning(item)]
            if foreign and not self.exists:
                raise UsageError(
                    f"{self.path} is not a run directory, and not empty ({foreign[0]} is in it); choose "
                    "another --run-dir"
                )
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(b"room for a byte?")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write to {self.path}: {error.strerror}; choose another --run-dir") from None

    def _is_left_by_a_failed_beginning(self, item: Path) -> bool:
        """Whether `item` is hidden, a log, or an empty folder of a run: left when the disk was full at the start."""
        empty = item in (self.replay, self.checkpoints) and item.is_dir() and not item.is_symlink()
        return item.name.startswith(".") or item.name == TRAIN_LOG or (empty and not any(item.iterdir()))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory for this process. Raises BusyError, naming the other process, if it is locked already.

        The operating system releases the lock when the process ends for any reason.
        """
        with contextlib.ExitStack() as locks:
            try:
                self._locked = self.path.stat()
                locks.enter_context(hold(self.path / LOCK))
                locks.enter_context(hold_folder(self.path))  # its lock file may have been removed
            except InUseError as error:
                remedy = "wait for it, or choose another --run-dir"
                raise BusyError(f"{self.path} is in use by {error}; {remedy}") from None
            except OSError as error:
                lock = self.path / LOCK
                raise UsageError(f"cannot lock {lock}: {error.strerror}; choose another --run-dir") from None
            yield

    @property
    def in_place(self) -> bool:
        """Whether the locked folder is still at its path."""
        try:
            return self._locked is None or os.path.samestat(self._locked, self.path.stat())
        except OSError:
            return False

    def require_in_place(self) -> None:
        """Raise RunError if the locked folder is no longer at its path."""
        if not self.in_place:
            raise RunError(
                f"{self.path} was moved or removed while it was being trained; move it back, and the same command "
                "goes on"
            )

    def require_own_folders(self) -> None:
        """Raise RunError if a folder of the run is a link.

        Files are created and removed in it, and the link's target may belong to another run.
        """
        for folder in (self.checkpoints, self.replay):
            if folder.is_symlink():
                raise RunError(f"{folder} is a link; put the folder itself there, or make the whole run a link")

    def require_known_beginning(self) -> None:
        """Call this if no checkpoint is found. Raises RunError if one was saved, or if that is unknown."""
        status = self.read_status()
        if status.get(SAVED_STEPS, 0) is None:
            return  # the run was killed before its first checkpoint
        tables = [path for path in self.path.glob("*.csv") if path.is_file() and path.stat().st_size]
        if SAVED_STEPS not in status and not status.get("steps") and not tables:
            return
        reason = ""
        try:
            os.listdir(self.checkpoints)
        except OSError as error:
            reason = f" ({error.strerror})"
        raise RunError(
            f"no checkpoint is seen in {self.checkpoints}{reason}, but the run has trained to step "
            f"{status.get('steps', 0):,}: bring its checkpoints back, or begin in another --run-dir"
        )

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the resolved settings, nested as in :class:`wn_dqn.config.schema.Settings`."""
        write_durably(self.path / CONFIG, dump_yaml(settings).encode())

    def read_settings(self) -> Settings:
        """Read the resolved settings. Raises UsageError if this is not a run directory or the file is damaged."""
        path = self.path / CONFIG
        try:
            text = reading.read_text(path, CONFIG_BYTES)
        except OSError as error:
            why = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
            raise UsageError(f"{self.path} is not a run directory: it has no readable {CONFIG}{why}") from None
        data = parse_yaml(text, str(path))
        if not isinstance(data, dict):
            raise UsageError(f"{path} is damaged: it holds no settings")
        try:
            return stored_settings(data)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    def write_status(self, status: str, **details: Any) -> None:
        """Write the run's status for other programs. On a full disk, the old status is overwritten in place.

        Raises OSError if that fails, too.
        """
        write_status(self.path, status, **details)

    def read_status(self) -> dict[str, Any]:
        """Read what `write_status` wrote; empty if there is no readable status."""
        return read_status(self.path)

    def read_provenance(self) -> list[dict[str, Any]]:
        """The entries of ``provenance.json``, one for each process; empty if the file is missing or unreadable."""
        try:
            entries = reading.read_json(self.path / _PROVENANCE, _PROVENANCE_BYTES, _ENTRIES)
        except OSError:
            return []
        return [entry.model_dump(exclude_unset=True) for entry in entries]

    def add_provenance(self, device: torch.device, accepted_changes: Sequence[str] = ()) -> None:
        """Append an entry about this process: versions, command, machine. A resumed run has several entries."""
        entries, path = self.read_provenance(), self.path / _PROVENANCE
        if not entries and os.path.lexists(path):
            set_aside(path)  # it is damaged, but may still be of use to the user
        entry = {**provenance(device), **({"accepted_changes": list(accepted_changes)} if accepted_changes else {})}
        write_durably(self.path / _PROVENANCE, json.dumps([*entries, entry], indent=2).encode())

    def best_checkpoint(self) -> CheckpointInfo | None:
        """The checkpoint with the highest score among the evaluations that count; None if there is none."""
        checkpoints = list_checkpoints(self.checkpoints)
        if self.exists:
            settings = self.read_settings()
            checkpoints = [checkpoint for checkpoint in checkpoints if settings.counts_test_at(checkpoint.steps)]
        return best_checkpoint(checkpoints)

    def find_checkpoint(self, which: str) -> CheckpointInfo:
        """The checkpoint that `which` names: best, last, or a number of steps. Raises CheckpointError if none does."""
        checkpoints = list_checkpoints(self.checkpoints)
        if not checkpoints:
            for path in reversed(checkpoint_paths(self.checkpoints)):
                checkpoint_info(path)  # raises with the reason why the newest one is unreadable
            raise CheckpointError(f"{self.path} has no checkpoint yet")
        if which == "last":
            return checkpoints[-1]
        if which == "best":
            return self.best_checkpoint() or checkpoints[-1]
        for checkpoint in reversed(checkpoints):
            if which and which.lstrip("0") == str(checkpoint.steps).lstrip("0"):
                return checkpoint
        steps = sorted({checkpoint.steps for checkpoint in checkpoints})
        valid = ", ".join(["best", "last", *map(str, steps)])
        raise CheckpointError(f"{self.path} has no checkpoint {which!r}; valid: {valid}")


def provenance(device: torch.device) -> Mapping[str, Any]:
    """Versions, command, commit and machine of this process."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "versions": {"wn_dqn": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        "commit": _git_commit(),
        "machine": {
            "system": platform.platform(),
            "cores": num_cores(),
            **arithmetic(device),
        },
        "environment": {name: os.environ[name] for name in _ENVIRONMENT_VARIABLES if name in os.environ},
    }


def arithmetic(device: torch.device) -> dict[str, Any]:
    """The versions, threads and instructions that determine the order of additions, and so the last bits of sums."""
    return {
        "torch": version("torch"),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def _git_commit() -> str | None:
    """The commit of the checkout that contains this package, with a mark if it was changed; None if there is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
