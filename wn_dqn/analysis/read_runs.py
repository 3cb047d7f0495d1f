"""Reads runs from their directories, and groups those that differ only in their seed."""

from __future__ import annotations

import array
import csv
import importlib.util
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wn_dqn.config.games import Game, find_game
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError
from wn_dqn.runs.metrics_writer import EVALUATIONS_CSV, METRICS_CSV, TABLE_BYTES, flatten
from wn_dqn.runs.records import Reevaluation, read_reevaluations
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.runs.status import STOPPED_EARLY
from wn_dqn.system import reading
from wn_dqn.system.reading import LARGEST, MAX_STEPS

# Settings that may differ within a group: the seed, and those that do not change results.
_NOT_PART_OF_A_GROUP = ("seed", "plugins", "learning.total_steps", "replay.compression", "output.")

_MAX_COLUMNS = 10_000


class Table(dict[str, NDArray[np.float64]]):
    """The columns of a table, float64 [rows] each, by name."""

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``. Raises UsageError if pandas is not installed."""
        if importlib.util.find_spec("pandas") is None:
            raise UsageError("a table as a data frame needs pandas: pip install pandas")
        return importlib.import_module("pandas").DataFrame(self)


@dataclass(frozen=True)
class Run:
    """The content of a run directory when it was read."""

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
    """messages about damaged lines of ``reevaluations.jsonl``, and about evaluations that do not count"""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def steps(self) -> int:
        """Agent steps done, from the last row or the status."""
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
        """Finished, or the status, steps and reason. The time is shown while it is running: it may have crashed."""
        total = self.settings.learning.total_steps
        if self.finished:
            return "finished"
        status = self.status.get("status", "not started")
        last_word = f", last heard of {self.status['time']}" if status == "running" and "time" in self.status else ""
        reason = self.status.get("error") or self.status.get("reason")
        return f"{status} at step {self.steps:,} of {total:,}{last_word}" + (f" ({reason})" if reason else "")


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    game: Game
    param: str
    variant: str
    """settings that differ from other groups of the same game and parameterization; usually empty"""
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """The name in tables and plots: the parameterization with the variant."""
        return PARAMETERIZATIONS[self.param].label + (f", {self.variant}" if self.variant else "")


def read_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The runs in `paths` (run directories, or folders of them), and a message about each unreadable one.

    In a folder, runs that a sweep stopped early are left out. They were stopped because they were worse, so they would
    bias the statistics.
    """
    runs: list[Run] = []
    problems: list[str] = []
    given = [path.resolve() for path in paths]
    found = dict.fromkeys(folder.resolve() for path in given for folder in _run_folders(path))
    for path in found:
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        if path not in given and (path / STOPPED_EARLY).is_file():
            problems.append(f"{shown} lost a comparison of its sweep and stopped early: left out")
            continue
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
    """Read the run in `path`. Raises UsageError if it is not a run, or if one of its files is damaged."""
    if not path.is_dir():
        raise UsageError(f"{path} is not a run directory: " + ("it is a file" if path.exists() else "there is none"))
    directory = RunDirectory(path)
    settings = directory.read_settings()
    reevaluations, problems = read_reevaluations(path)
    evaluations, left_out = _tests_that_count(read_evaluations(path), settings)
    if left_out:
        steps = ", ".join(f"{each:,}" for each in left_out)
        problems.append(
            f"{path}: tests in the middle of an epoch, where the run ended once, are left out: step {steps}"
        )
    return Run(
        path=path,
        settings=settings,
        game=_game(settings.game),
        status=directory.read_status(),
        evaluations=evaluations,
        metrics=read_metrics(path),
        reevaluations=tuple(reevaluations),
        provenance=tuple(directory.read_provenance()),
        problems=tuple(problems),
    )


def read_evaluations(path: Path) -> Table:
    """The columns of the run's evaluations.csv. Raises UsageError, naming the line, if it is damaged."""
    return read_table(path / EVALUATIONS_CSV, ("steps", "mean_return", "games"))


def read_metrics(path: Path) -> Table:
    """The columns of metrics.csv; empty cells are NaN. Raises UsageError, naming the line, if it is damaged."""
    return read_table(path / METRICS_CSV)


def _tests_that_count(table: Table, settings: Settings) -> tuple[Table, list[int]]:
    """The rows of evaluations that count, and the steps of the others; see :meth:`Settings.counts_test_at`."""
    counts = np.array([settings.counts_test_at(int(steps)) for steps in table.get("steps", [])], bool)
    kept = {name: column[counts] for name, column in table.items()} if counts.any() else {}
    return Table(kept), [int(steps) for steps in table["steps"][~counts]] if table else []


def _game(name: str) -> Game:
    """The game with this name, even if it cannot be played here."""
    try:
        return find_game(name)
    except UsageError:
        return Game(name, name)


def read_table(path: Path, required: Sequence[str] = ("steps",)) -> Table:
    """The columns of a CSV file of numbers, [rows] each; empty if there is no file, or no row yet.

    A cell that is empty, infinite or too large to be squared becomes NaN. Raises UsageError, naming the line, if the
    table is damaged: all cells must be numbers, and those of the `required` columns must be finite.
    """
    try:
        data = reading.read_bytes(path, TABLE_BYTES)
        # A run may be writing the last line, so an incomplete one is ignored.
        lines = io.TextIOWrapper(io.BytesIO(data[: data.rfind(b"\n") + 1]), encoding="utf-8", newline="")
        return _parsed(csv.reader(lines), required)
    except FileNotFoundError:
        return Table()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}: it is not text") from None
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{path} is damaged{error if isinstance(error, _DamageError) else f': {error}'}") from None


class _DamageError(ValueError):
    """A table is damaged. The message continues the text "is damaged"."""


def _parsed(rows: Iterator[list[str]], required: Sequence[str]) -> Table:
    header = next(rows, [])
    if len(header) > _MAX_COLUMNS:
        raise _DamageError(f": it has more than {_MAX_COLUMNS:,} columns")
    cells = array.array("d")
    for number, row in enumerate(rows, start=2):
        try:
            values = [float(cell) if cell else math.nan for cell in row]
        except ValueError:
            values = []
        if not header or header[0] != "steps" or len(values) != len(header) or not values[0] >= 0.0:
            raise _DamageError(f" in line {number}")
        cells.extend(values)
    if not cells:
        return Table()
    columns = np.array(cells).reshape(-1, len(header)).T
    columns[np.abs(columns) > LARGEST] = math.nan
    table = Table(zip(header, columns, strict=True))
    if len(table) < len(header):
        raise _DamageError(": two of its columns have the same name")
    for name in required:
        if name not in table:
            raise _DamageError(f": it has no column {name}")
        if not np.isfinite(table[name]).all():
            raise _DamageError(f" in line {2 + int(np.isnan(table[name]).argmax())}: {name} is no finite number")
    steps = table["steps"]
    if (np.diff(steps) <= 0).any():
        raise _DamageError(": its steps do not increase")
    if (steps != np.floor(steps)).any() or steps[-1] > MAX_STEPS:
        raise _DamageError(": its steps are no counts")
    return table


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[str]]:
    """The runs by game, parameterization and other differing settings, and a message for each run that is left out.

    A second run with the same seed is left out, because it is not an independent sample.
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
    """The run's values of those `differing` settings that change results."""
    settings = flatten(run.settings.model_dump())
    return ", ".join(f"{key} {settings[key]}" for key in differing if not key.startswith(_NOT_PART_OF_A_GROUP))


def _order(game_and_param: tuple[str, str]) -> tuple[str, int]:
    """A sort key: the game, then the parameterization in the registry's order."""
    game, param = game_and_param
    return game, list(PARAMETERIZATIONS).index(param)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The dotted keys of settings that differ between runs, each with its value in each run."""
    flat = [flatten(run.settings.model_dump()) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: [settings.get(key) for settings in flat] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}
