"""``wn-dqn sweep``: many runs from one file."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wn_dqn.cli.options import DEVICE, NAMED_ENV, plugin_option, seconds

if TYPE_CHECKING:
    from wn_dqn.config.schema import Settings
    from wn_dqn.sweeps.cells import Cell, Standing
    from wn_dqn.sweeps.stopping import Stopping
    from wn_dqn.sweeps.study import Study

_WATCH_S = 2.0

_STUDY = click.argument("study_name", metavar="FILE|NAME")
_INTO = click.option(
    "--into", type=click.Path(path_type=Path), help="Folder of the runs.  [default: the file's, or runs/NAME]"
)
_PLUGIN = plugin_option(expose_value=True)


def _train_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "--jobs", type=click.IntRange(1, 1024), default=1, show_default=True, help="Runs at a time, here."
        ),
        click.option("--stop-after", metavar="DURATION", help="Save and stop after so long, like 8h."),
        NAMED_ENV,
        _PLUGIN,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def sweep() -> None:
    """Train many runs that one file describes.

    A cell of a sweep is an ordinary run directory: plot, report and evaluate read the sweep's folder.
    """


@sweep.command()
@_STUDY
@_INTO
@click.option(
    "--cost/--no-cost", default=None, help="Measure every kind of cell, or none.  [default: those of a second]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the cells, their commands and needs as JSON.")
@DEVICE
@NAMED_ENV
@_PLUGIN
def plan(
    study_name: str,
    into: Path | None,
    cost: bool | None,
    as_json: bool,
    device: str,
    named_env: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Say which runs FILE stands for, and what they take here. Starts nothing."""
    study, path, folder = _study(study_name, into)
    planned = _planned(study, path, folder, named_env, plugins)
    cells = [cell for cell, _ in planned]

    from wn_dqn.sweeps.cells import shell_command
    from wn_dqn.sweeps.plan import PATIENCE_S, needs_of, plan_lines
    from wn_dqn.system.hardware import find_device

    patience_s = PATIENCE_S if cost is None else math.inf if cost else 0.0
    needs = needs_of([settings for _, settings in planned], find_device(device), patience_s)
    if as_json:
        rows = [
            {"name": cell.name, "command": shell_command(cell), **vars(need)}
            for cell, need in zip(cells, needs, strict=True)
        ]
        click.echo(json.dumps({"folder": str(folder), "cells": rows}, indent=1))
        return
    for line in plan_lines(cells, needs, folder):
        click.echo(line)


@sweep.command()
@_STUDY
@_INTO
@_train_options
def run(
    study_name: str,
    into: Path | None,
    jobs: int,
    stop_after: str | None,
    named_env: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Train the runs of FILE, or go on with them. Those that have failed wait for `wn-dqn sweep retry`."""
    from wn_dqn.config.files import dump_yaml
    from wn_dqn.sweeps.cells import known_needs, write_manifest
    from wn_dqn.sweeps.driver import unfinished
    from wn_dqn.sweeps.study import base_settings

    study, path, folder = _study(study_name, into)
    stop = _stopping(stop_after or study.stop_after)
    planned = _planned(study, path, folder, named_env, plugins)
    cells = known_needs(folder, [cell for cell, _ in planned])
    if not all(cell.memory_bytes for cell in cells):
        memory_bytes = _memory_bytes(path, folder, named_env, plugins)
        cells = [replace(cell, memory_bytes=memory_bytes[cell.name]) for cell in cells]
    write_manifest(folder, cells, dump_yaml(base_settings(study, path)))
    _train(folder, cells, unfinished(cells), jobs, stop)


@sweep.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_train_options
def retry(folder: Path, jobs: int, stop_after: str | None, named_env: str | None, plugins: tuple[str, ...]) -> None:
    """Train the failed runs of the sweep in FOLDER again."""
    from wn_dqn.sweeps.cells import read_manifest, standing
    from wn_dqn.sweeps.driver import require_allowed

    cells = read_manifest(folder)
    require_allowed(cells, [named_env] if named_env else [], plugins)
    stop = _stopping(stop_after)
    failed = [cell for cell in cells if standing(cell).state == "failed"]
    _train(folder, cells, failed, jobs, stop)


@sweep.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Look again every two seconds, until nothing is left to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, watch: bool, as_json: bool) -> None:
    """Say how the runs of the sweep in FOLDER are."""
    from wn_dqn.sweeps.cells import read_manifest, standing, to_json
    from wn_dqn.sweeps.watching import show, watch_until_done

    cells = read_manifest(folder)

    def look() -> list[Standing]:
        return [standing(cell) for cell in cells]

    if as_json:
        click.echo(to_json(look()))
    elif watch:
        watch_until_done(look, _WATCH_S)
    else:
        show(look())


def _study(study_name: str, into: Path | None) -> tuple[Study, Path, Path]:
    """What a sweep file says, the file, and the folder of the runs."""
    from wn_dqn.sweeps.study import find_study, read_study

    path = find_study(study_name)
    study = read_study(path)
    return study, path, into or Path(study.directory or Path("runs") / path.stem)


def _planned(
    study: Study, path: Path, folder: Path, named_env: str | None, plugins: Sequence[str]
) -> list[tuple[Cell, Settings]]:
    """The cells with their settings. UsageError if they name code that nobody has allowed."""
    from wn_dqn.sweeps.driver import require_allowed
    from wn_dqn.sweeps.study import make_cells

    planned = make_cells(study, path, folder)
    require_allowed([cell for cell, _ in planned], [named_env] if named_env else [], plugins)
    return planned


def _memory_bytes(path: Path, folder: Path, named_env: str | None, plugins: Sequence[str]) -> dict[str, int]:
    """What each cell needs, found out by another process: it loads torch, and this one stays small for days."""
    options = [word for plugin in plugins for word in ("--plugin", plugin)] + (
        ["--env", named_env] if named_env else []
    )
    command = [sys.executable, "-m", "wn_dqn", "sweep", "plan", str(path), "--into", str(folder), "--no-cost", "--json"]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return {cell["name"]: cell["memory_bytes"] for cell in json.loads(done.stdout)["cells"]}


def _stopping(stop_after: str | None) -> Stopping:
    from wn_dqn.sweeps.stopping import Stopping

    return Stopping(None if stop_after is None else seconds(stop_after))


def _train(folder: Path, cells: Sequence[Cell], todo: Sequence[Cell], jobs: int, stop: Stopping) -> None:
    """Train the cells `todo` of a sweep, and exit with the status of the whole."""
    from wn_dqn.sweeps.driver import conclude, drive
    from wn_dqn.sweeps.local import Local
    from wn_dqn.system.progress import ProgressReporter

    message = ProgressReporter().message
    with stop.on_signals():
        if todo:
            drive(todo, Local(jobs, [cell.memory_bytes for cell in todo]), stop, message)
        sys.exit(conclude(folder, cells, stop, message))
