"""A study: the file that describes a sweep, and its cells.

A cell is one run. Its settings come from the base config, `set`, its point in the grid, and the matching overrides.
Later ones have precedence.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from wn_dqn.config.files import make_settings, merge, nested, read_config, read_yaml_mapping, setting_help
from wn_dqn.config.games import game_of
from wn_dqn.config.named import config_folder
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError, closest
from wn_dqn.runs.status import default_name
from wn_dqn.sweeps.cells import Cell, command_of
from wn_dqn.sweeps.parts import Halving, Part, Resources

MAX_CELLS = 10_000
_IN_EVERY_NAME = ("game", "param", "agent", "seed")


class Override(Part):
    """Additional settings for the cells that match `where`."""

    where: dict[str, Any] = Field(min_length=1)
    set: dict[str, Any] = Field(min_length=1)


def _axis(value: object) -> object:
    """The numbers from 0 to 9 for ``0-9``; a list unchanged."""
    if isinstance(value, str) and (ends := value.split("-")) and len(ends) == 2 and all(e.isdecimal() for e in ends):
        first, last = map(int, ends)
        if last - first < MAX_CELLS:
            return list(range(first, last + 1))
    return value


Axis = Annotated[list[Any], BeforeValidator(_axis), Field(min_length=1)]


class Study(Part):
    """The content of a sweep file."""

    base: str = Field(description="a config, by its name or its file; the sweep's folder is searched, too")
    directory: str | None = Field(None, description="folder of the runs; null: runs/NAME")
    set: dict[str, Any] = Field({}, description="settings of all cells, by dotted keys")
    grid: dict[str, Axis] = Field({}, description="dotted keys with their values; every combination is a cell")
    include: list[dict[str, Any]] = Field([], description="more cells")
    exclude: list[dict[str, Any]] = Field([], description="conditions; matching cells of the grid are left out")
    overrides: list[Override] = Field([], description="settings of the cells that match")
    stop_after: str | None = Field(None, description="default for --stop-after of `sweep run`, like 8h")
    stop: Halving | None = Field(None, description="successive halving")
    resources: Resources = Field(Resources(), description="resources of a cell on a cluster")


def find_study(name: str) -> Path:
    """The file of a sweep, given by its path or by the name of a built-in one. Raises UsageError if there is none."""
    folder = config_folder() / "sweeps"
    named = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in named:
        return folder / f"{name}.yaml"
    if not os.path.isfile(name):
        raise UsageError(f"no sweep {name!r}: neither a file nor a name; {closest(name, named)}")
    return Path(name)


def read_study(path: Path) -> Study:
    """Read a sweep file. Raises UsageError, with the first mistake, if it is invalid."""
    data = read_yaml_mapping(path, "sweep")
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"sweep {path}: {_explain(error)}") from None
    known = {key for key, _, _ in setting_help()}
    for key in _mentioned(study):
        if key not in known and not key.startswith("environment.args."):
            raise UsageError(f"sweep {path}: unknown setting {key!r}; {closest(key, known)}")
    return study


def _explain(error: ValidationError) -> str:
    mistake = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, mistake["loc"]))
    if mistake["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {closest(key, Study.model_fields)}"
    return f"{key}: {mistake['msg'].removeprefix('Value error, ')}"


def _mentioned(study: Study) -> Iterator[str]:
    yield from (*study.set, *study.grid)
    for places in (study.include, study.exclude, [o.where for o in study.overrides], [o.set for o in study.overrides]):
        for place in places:
            yield from place


def base_settings(study: Study, path: Path) -> dict[str, Any]:
    """The settings that all cells have in common, as a mapping."""
    beside = path.parent / study.base
    base = read_config(str(beside) if beside.is_file() and not os.path.isfile(study.base) else study.base)
    return merge([base, *(nested(key, value) for key, value in study.set.items())])


def make_cells(study: Study, path: Path, folder: Path) -> list[tuple[Cell, Settings]]:
    """The cells of the study in `path`, each with its settings. Their runs are in `folder`.

    Raises UsageError, naming the cell, if one is not valid or occurs twice.
    """
    base = base_settings(study, path)
    cells: dict[str, tuple[Cell, Settings]] = {}
    for place in _places(study):
        changes = dict(place)
        for override in study.overrides:
            if _matches(place, override.where):
                changes |= override.set
        described = ", ".join(f"{key}={value}" for key, value in place.items())
        try:
            settings = make_settings(merge([base, *(nested(key, value) for key, value in changes.items())]))
            name = _name(settings, place)
            cell = Cell(name, command_of(settings, changes, folder, name), folder / name, settings.learning.total_steps)
        except UsageError as error:
            raise UsageError(f"sweep {path}: cell {described or 'of the base'}: {error}") from None
        if name in cells:
            raise UsageError(f"sweep {path}: cell {described} is there twice: both are {name}")
        cells[name] = cell, settings
    for override in study.overrides:
        if not any(_matches(place, override.where) for place in _places(study)):
            raise UsageError(f"sweep {path}: the override where {override.where} matches no cell")
    if not cells:
        raise UsageError(f"sweep {path}: no cell is left")
    return list(cells.values())


def _places(study: Study) -> Iterator[dict[str, Any]]:
    """The point in the grid of each cell: its values of the varying settings."""
    size = math.prod(map(len, study.grid.values()))
    if size > MAX_CELLS:
        raise UsageError(f"the grid has {size:,} cells; at most {MAX_CELLS:,} are a sweep")
    alone = not study.grid and study.include  # then the base itself is not a cell
    for combination in () if alone else itertools.product(*study.grid.values()):
        place = dict(zip(study.grid, combination, strict=True))
        if not any(_matches(place, excluded) for excluded in study.exclude):
            yield place
    yield from study.include


def _matches(place: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether `place` has each value of `where`, or one of its values if it is a list."""
    return all(
        key in place and place[key] in (wanted if isinstance(wanted, list) else [wanted])
        for key, wanted in where.items()
    )


def _name(settings: Settings, place: Mapping[str, Any]) -> str:
    """The name of a cell's run: the default name of `train`, and the other settings of its point in the grid."""
    others = [f"{key.rpartition('.')[2]}_{value}" for key, value in place.items() if key not in _IN_EVERY_NAME]
    game = game_of(settings).short_name
    return default_name(game, settings.param, settings.agent, settings.seed, "-".join(others))
