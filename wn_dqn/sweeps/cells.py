"""The cells of a sweep on disk: the manifest, the command of each, and how each is."""

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
from wn_dqn.runs.status import TRAIN_LOG, holder, read_status
from wn_dqn.system import reading
from wn_dqn.system.durable import write_durably
from wn_dqn.system.reading import MIB, Record, Steps, Text

if TYPE_CHECKING:
    from wn_dqn.config.schema import Settings

MANIFEST, BASE, FAILURE, STOPPED_EARLY = "sweep.json", "base.yaml", ".failed.json", ".stopped-early.json"
_TAIL_BYTES = 4096
State = Literal["finished", "running", "waiting", "failed", "stopped early"]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str
    command: tuple[str, ...]
    """what follows `wn-dqn`"""
    folder: Path
    total_steps: int
    memory_bytes: int = 0
    """what it needs; 0 if nobody has asked"""

    @property
    def log(self) -> Path:
        """What its command prints."""
        return self.folder / TRAIN_LOG


@dataclass(frozen=True)
class Standing:
    """How a cell is."""

    name: str
    state: State
    steps: int
    total_steps: int
    host: str = ""
    """of a running one: its process"""
    steps_per_s: float | None = None
    reason: str = ""
    """one line: why it failed or stopped"""

    @property
    def remaining_s(self) -> float | None:
        """Seconds that a running one still takes; None if nobody knows."""
        return (self.total_steps - self.steps) / self.steps_per_s if self.steps_per_s else None


class _Entry(Record):
    name: Text
    command: list[Text]
    total_steps: Steps
    memory_bytes: Steps = 0


class _Manifest(Record):
    cells: list[_Entry]


class _Mark(Record):
    reason: Text


def command_of(settings: Settings, changes: Mapping[str, Any], folder: Path, name: str) -> tuple[str, ...]:
    """The arguments of `wn-dqn` that train the cell: they beat every environment variable that `train` reads."""
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


def write_manifest(folder: Path, cells: Sequence[Cell], base: str) -> None:
    """Write the list of cells and their commands, and the settings that they share; UsageError if it cannot be."""
    entries = [{**asdict(cell), "folder": cell.name} for cell in cells]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / BASE, base.encode())
        write_durably(folder / MANIFEST, json.dumps({"cells": entries}, indent=1).encode())
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from None


def read_manifest(folder: Path) -> list[Cell]:
    """The cells of the sweep in `folder`; UsageError if it is none."""
    try:
        entries = reading.read_json(folder / MANIFEST, 64 * MIB, _Manifest).cells
    except OSError as error:
        raise UsageError(f"{folder} is no sweep: its {MANIFEST} cannot be read ({error.strerror})") from None
    return [
        Cell(entry.name, tuple(entry.command), folder / entry.name, entry.total_steps, entry.memory_bytes)
        for entry in entries
    ]


def known_needs(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """The cells, with what they need if the manifest in `folder` says so of the same commands."""
    try:
        known = {cell.command: cell.memory_bytes for cell in read_manifest(folder)}
    except UsageError:
        return list(cells)
    return [replace(cell, memory_bytes=known.get(cell.command, 0)) for cell in cells]


def standing(cell: Cell) -> Standing:
    """How the cell is, as its directory tells."""
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


def _mark(cell: Cell) -> tuple[State, str]:
    marks: tuple[tuple[str, State], ...] = ((STOPPED_EARLY, "stopped early"), (FAILURE, "failed"))
    for name, state in marks:
        try:
            return state, reading.read_json(cell.folder / name, MIB, _Mark).reason
        except OSError:
            continue
    return "waiting", ""


def mark(cell: Cell, name: str, reason: str) -> None:
    """Note in the cell's folder that it failed, or stopped early."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    content = {"reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_durably(cell.folder / name, json.dumps(content).encode())


def unmark(cell: Cell) -> None:
    """Forget that the cell failed."""
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
    """Steps and a column of each row of evaluations.csv that is whole; none if there is no such table."""
    try:
        rows = list(csv.DictReader(reading.read_text(cell.folder / "evaluations.csv", 64 * MIB).splitlines()))
        return [(int(float(row["steps"])), float(row[metric])) for row in rows]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _steps_per_s(run: Path) -> float | None:
    """The speed of the newest row of metrics.csv; None if there is none."""
    try:
        with open(run / "metrics.csv", encoding="utf-8") as file:
            header = file.readline()
        rows = list(csv.DictReader([header, *_tail(run / "metrics.csv").decode().splitlines()[-1:]]))
        return float(rows[0]["speed/steps_per_s"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def shell_command(cell: Cell) -> str:
    """The cell's command as a shell takes it."""
    return shlex.join(["wn-dqn", *cell.command])


def to_json(standings: Iterable[Standing]) -> str:
    """Standings for programs."""
    return json.dumps([{**asdict(each), "remaining_s": each.remaining_s} for each in standings], indent=1)
