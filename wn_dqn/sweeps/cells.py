"""The cells of a sweep on disk: the manifest, and the command and the status of each cell."""

from __future__ import annotations

import csv
import json
import os
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wn_dqn.config.files import parse_yaml
from wn_dqn.errors import UsageError
from wn_dqn.runs.status import STOPPED_EARLY, TRAIN_LOG, holder, read_status
from wn_dqn.sweeps.parts import Halving, Resources
from wn_dqn.system import reading
from wn_dqn.system.durable import write_durably
from wn_dqn.system.reading import MIB, Record, Steps, Text

if TYPE_CHECKING:
    from wn_dqn.config.schema import Settings

MANIFEST, BASE, FAILURE = "sweep.json", "base.yaml", ".failed.json"
_TAIL_BYTES = 4096
State = Literal["finished", "running", "waiting", "failed", "stopped early"]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str
    command: tuple[str, ...]
    """the arguments of `wn-dqn`"""
    folder: Path
    total_steps: int
    memory_bytes: int = 0
    """the memory that it needs; 0 if unknown"""

    @property
    def log(self) -> Path:
        """The file with its command's output."""
        return self.folder / TRAIN_LOG


@dataclass(frozen=True)
class Standing:
    """The status of a cell."""

    name: str
    state: State
    steps: int
    total_steps: int
    host: str = ""
    """the process of a running cell"""
    steps_per_s: float | None = None
    reason: str = ""
    """one line: why it failed or stopped"""

    @property
    def remaining_s(self) -> float | None:
        """Seconds that a running cell still needs; None if unknown."""
        return (self.total_steps - self.steps) / self.steps_per_s if self.steps_per_s else None


class _Entry(Record):
    name: Text
    command: list[Text]
    total_steps: Steps
    memory_bytes: Steps = 0


class _Manifest(Record):
    cells: list[_Entry]
    resources: Resources = Resources()
    stop: Halving | None = None


class _Mark(Record):
    reason: Text
    at_steps: Steps | None = None


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep's manifest."""

    folder: Path
    cells: tuple[Cell, ...]
    resources: Resources
    halving: Halving | None


def command_of(settings: Settings, changes: Mapping[str, Any], folder: Path, name: str) -> tuple[str, ...]:
    """The arguments of `wn-dqn` that train the cell. They have precedence over all environment variables of `train`."""
    game = ("--env" if ":" in settings.game else "--game", settings.game)
    words = ["train", "--config", str(folder / BASE), *game, "--param", settings.param, "--agent", settings.agent]
    words += ["--seed", str(settings.seed)]
    for key, value in changes.items():
        if key not in ("game", "param", "agent", "seed"):
            words += ["--set", f"{key}={_yaml_value(value)}"]
    for plugin in settings.plugins:
        words += ["--plugin", plugin]
    return (*words, "--run-dir", str(folder / name))


def _yaml_value(value: object) -> str:
    """`value` as YAML on one line: plain text if YAML reads it back, else JSON."""
    plain = str(value)
    if isinstance(value, str) and parse_yaml(plain, "a value") == value:
        return plain
    return json.dumps(value)


def write_manifest(sweep: Sweep, base: str) -> None:
    """Write the list of cells, their commands, and their common settings. Raises UsageError if that fails."""
    content = {
        "cells": [{**asdict(cell), "folder": cell.name} for cell in sweep.cells],
        "resources": sweep.resources.model_dump(),
        "stop": sweep.halving and sweep.halving.model_dump(),
    }
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        write_durably(sweep.folder / BASE, base.encode())
        write_durably(sweep.folder / MANIFEST, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise UsageError(f"cannot write to {sweep.folder}: {error.strerror}") from None


def read_manifest(folder: Path) -> Sweep:
    """The sweep in `folder`. Raises UsageError if it is not a sweep."""
    try:
        found = reading.read_json(folder / MANIFEST, 64 * MIB, _Manifest)
    except OSError as error:
        raise UsageError(f"{folder} is not a sweep: its {MANIFEST} cannot be read ({error.strerror})") from None
    cells = (
        Cell(entry.name, tuple(entry.command), folder / entry.name, entry.total_steps, entry.memory_bytes)
        for entry in found.cells
    )
    return Sweep(folder, tuple(cells), found.resources, found.stop)


def known_needs(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """The cells, with their memory needs if the manifest in `folder` has them for the same commands."""
    try:
        known = {cell.command: cell.memory_bytes for cell in read_manifest(folder).cells}
    except UsageError:
        return list(cells)
    return [replace(cell, memory_bytes=known.get(cell.command, 0)) for cell in cells]


def standing(cell: Cell) -> Standing:
    """The status of the cell, from its directory."""
    status = read_status(cell.folder)
    steps, host = int(status.get("steps", 0)), holder(cell.folder)
    if host:
        return Standing(cell.name, "running", steps, cell.total_steps, host, _steps_per_s(cell.folder))
    if status.get("status") == "finished" and steps >= cell.total_steps:
        return Standing(cell.name, "finished", steps, cell.total_steps)
    state, reason = _mark(cell)
    if state == "waiting" and status.get("status") == "failed":
        state, reason = "failed", str(status.get("error", ""))
    return Standing(cell.name, state, steps, cell.total_steps, reason=reason)


def is_over(cell: Cell) -> bool:
    """Whether the cell is finished, or has stopped early."""
    return standing(cell).state in ("finished", "stopped early")


def _mark(cell: Cell) -> tuple[State, str]:
    marks: tuple[tuple[str, State], ...] = ((STOPPED_EARLY, "stopped early"), (FAILURE, "failed"))
    for name, state in marks:
        if (found := _read_mark(cell, name)) is not None:
            return state, found.reason
    return "waiting", ""


def _read_mark(cell: Cell, name: str) -> _Mark | None:
    try:
        return reading.read_json(cell.folder / name, MIB, _Mark)
    except OSError:
        return None


def mark_failed(cell: Cell, reason: str) -> None:
    """Record in the cell's folder that it failed."""
    _write_mark(cell, FAILURE, {"reason": reason})


def mark_stopped_early(cell: Cell, reason: str, at_steps: int) -> None:
    """Record in the cell's folder that it lost the comparison at `at_steps`."""
    _write_mark(cell, STOPPED_EARLY, {"reason": reason, "at_steps": at_steps})


def stopped_early_at(cell: Cell) -> int | None:
    """The steps of the comparison that the cell lost; None if it has not lost one."""
    found = _read_mark(cell, STOPPED_EARLY)
    return None if found is None else found.at_steps


def _write_mark(cell: Cell, name: str, content: Mapping[str, Any]) -> None:
    cell.folder.mkdir(parents=True, exist_ok=True)
    content = {**content, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_durably(cell.folder / name, json.dumps(content).encode())


def unmark(cell: Cell) -> None:
    """Remove the record that the cell failed."""
    (cell.folder / FAILURE).unlink(missing_ok=True)


def last_line(cell: Cell) -> str:
    """The last line that the cell's command printed; empty if there is none."""
    lines = _tail(cell.log).decode(errors="replace").split("\n")
    return next((line.strip().removeprefix("wn-dqn: ") for line in reversed(lines) if line.strip()), "")


def _tail(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL_BYTES, 0))
            return file.read()
    except OSError:
        return b""


def scores(cell: Cell, metric: str = "mean_return") -> list[tuple[int, float]]:
    """Steps and one column of each complete row of evaluations.csv; empty if there is no such table."""
    try:
        rows = list(csv.DictReader(reading.read_text(cell.folder / "evaluations.csv", 64 * MIB).splitlines()))
        return [(int(float(row["steps"])), float(row[metric])) for row in rows]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _steps_per_s(run: Path) -> float | None:
    """The speed in the newest row of metrics.csv; None if there is none."""
    try:
        with open(run / "metrics.csv", encoding="utf-8") as file:
            header = file.readline()
        rows = list(csv.DictReader([header, *_tail(run / "metrics.csv").decode().splitlines()[-1:]]))
        return float(rows[0]["speed/steps_per_s"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def shell_command(cell: Cell) -> str:
    """The cell's command, quoted for a shell."""
    return shlex.join(["wn-dqn", *cell.command])


def to_json(standings: Iterable[Standing]) -> str:
    """The standings as JSON."""
    return json.dumps([{**asdict(each), "remaining_s": each.remaining_s} for each in standings], indent=1)
