"""Runs read back from their directories, and grouped by what makes them comparable."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wn_dqn.config.games import Game, find_game
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError
from wn_dqn.runs.metrics_writer import EVALUATIONS_CSV, METRICS_CSV, flatten
from wn_dqn.runs.records import Reevaluation, read_reevaluations
from wn_dqn.runs.run_directory import RunDirectory

# Settings that do not make two runs incomparable: seeds are what a group consists of, the others change no result.
_NOT_PART_OF_A_GROUP = ("seed", "learning.total_steps", "output.")

Table = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """A run directory, as it was found."""

    path: Path
    settings: Settings
    game: Game
    status: dict[str, Any]
    evaluations: Table
    """columns of evaluations.csv; empty if there was no evaluation yet"""
    metrics: Table
    """columns of metrics.csv, NaN where a cell is empty"""
    reevaluations: tuple[Reevaluation, ...]
    provenance: tuple[dict[str, Any], ...]
    """one entry for each process that worked on the run"""
    problems: tuple[str, ...]
    """a message about each line of ``reevaluations.jsonl`` that is damaged and was skipped"""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def steps(self) -> int:
        """Agent steps done, by its last row or its status."""
        tables = [int(table["steps"][-1]) for table in (self.evaluations, self.metrics) if table]
        return max([int(self.status.get("steps", 0)), *tables])

    @property
    def finished(self) -> bool:
        """Whether all its steps are done."""
        return self.status.get("status") == "finished"

    @property
    def scores(self) -> NDArray[np.float64]:
        """Mean return of each of E evaluations, in their order: [E]."""
        return self.evaluations.get("mean_return", np.empty(0))

    @property
    def best_steps(self) -> int:
        """Agent steps at the end of the best epoch, the first of equal ones."""
        return int(self.evaluations["steps"][np.argmax(self.scores)])

    @property
    def state_text(self) -> str:
        """Finished, or its status, steps and reason. A run that says running may have died: its last word is dated."""
        total = self.settings.learning.total_steps
        if self.finished:
            return "finished"
        status = self.status.get("status", "not started")
        last_word = f", last heard of {self.status['time']}" if status == "running" and "time" in self.status else ""
        reason = self.status.get("error") or self.status.get("reason")
        return f"{status} at step {self.steps:,} of {total:,}{last_word}" + (f" ({reason})" if reason else "")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    game: Game
    param: str
    variant: str
    """the settings that set it apart from other groups of the same game and parameterization; mostly empty"""
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """The parameterization as tables and plots call it, with the variant."""
        return PARAMETERIZATIONS[self.param].label + (f", {self.variant}" if self.variant else "")


def read_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The runs in `paths` (run directories, or folders of them), and a message about all that cannot be read."""
    runs: list[Run] = []
    problems: list[str] = []
    found = dict.fromkeys(folder.resolve() for path in paths for folder in _run_folders(path))
    for path in found:
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        try:
            runs.append(read_run(shown))
            problems += runs[-1].problems
        except UsageError as error:
            problems.append(str(error))
    return runs, problems


def _run_folders(path: Path) -> list[Path]:
    if not path.is_dir() or RunDirectory(path).exists:
        return [path]
    return [child for child in sorted(path.iterdir()) if RunDirectory(child).exists] or [path]


def read_run(path: Path) -> Run:
    """The run in `path`; UsageError if it is none, or a file of it is damaged."""
    if not path.is_dir():
        raise UsageError(f"{path} is not a run directory: " + ("it is a file" if path.exists() else "there is none"))
    directory = RunDirectory(path)
    settings = directory.read_settings()
    reevaluations, problems = read_reevaluations(path)
    return Run(
        path=path,
        settings=settings,
        game=_game(settings.game),
        status=directory.read_status(),
        evaluations=_read_table(path / EVALUATIONS_CSV),
        metrics=_read_table(path / METRICS_CSV),
        reevaluations=tuple(reevaluations),
        provenance=_read_provenance(path / "provenance.json"),
        problems=tuple(problems),
    )


def _game(name: str) -> Game:
    """The game of that name, even one that cannot be played here."""
    try:
        return find_game(name)
    except UsageError:
        return Game(name, name)


def _read_lines(path: Path) -> list[str]:
    """The complete lines of a file (a run may be writing the last one); none if there is no file."""
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from None


def _read_table(path: Path) -> Table:
    """The columns of a CSV file of numbers, [rows] each; UsageError, naming the line, if it is damaged."""
    rows = list(csv.reader(_read_lines(path)))
    if len(rows) < 2:
        return {}
    header, values = rows[0], []
    for number, row in enumerate(rows[1:], start=2):
        try:
            values.append([float(cell) if cell else math.nan for cell in row])
        except ValueError:
            values.append([])
        if len(values[-1]) != len(header) or header[0] != "steps" or math.isnan(values[-1][0]):
            raise UsageError(f"{path} is damaged in line {number}")
    columns = np.array(values).T
    if (np.diff(columns[0]) <= 0).any():
        raise UsageError(f"{path} is damaged: its steps do not increase")
    return dict(zip(header, columns, strict=True))


def _read_provenance(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """The runs by game, parameterization and other differing settings, and a line for each run that is left out.

    A second run of the same seed is left out: it is not another sample.
    """
    groups, problems = [], []
    for game, param in sorted({(run.game.name, run.settings.param) for run in runs}, key=_order):
        arm = [run for run in runs if (run.game.name, run.settings.param) == (game, param)]
        differing = differing_settings(arm)
        by_variant: dict[str, dict[int, Run]] = {}
        for run in arm:
            first = by_variant.setdefault(_variant(run, differing), {}).setdefault(run.settings.seed, run)
            if first is not run:
                problems.append(f"{run.path} repeats seed {run.settings.seed} of {first.path}: left out")
        for variant, by_seed in sorted(by_variant.items()):
            seeds = sorted(by_seed)
            groups.append(Group(by_seed[seeds[0]].game, param, variant, tuple(by_seed[seed] for seed in seeds)))
    return groups, problems


def _variant(run: Run, differing: Iterable[str]) -> str:
    """Those of the `differing` settings that change results, with the run's values."""
    settings = flatten(run.settings.model_dump())
    return ", ".join(f"{key} {settings[key]}" for key in differing if not key.startswith(_NOT_PART_OF_A_GROUP))


def _order(game_and_param: tuple[str, str]) -> tuple[str, int]:
    """By game, then by the registry's order of parameterizations."""
    game, param = game_and_param
    return game, list(PARAMETERIZATIONS).index(param)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted keys whose values are not the same in all runs, each with the value in each run."""
    flat = [flatten(run.settings.model_dump()) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: [settings.get(key) for settings in flat] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}
