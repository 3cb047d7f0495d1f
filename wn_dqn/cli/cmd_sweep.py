"""``wn-dqn sweep``: trains many runs from one file."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wn_dqn.cli.options import DEVICE, NAMED_ENV, plugin_option, seconds
from wn_dqn.errors import UsageError

if TYPE_CHECKING:
    from wn_dqn.config.schema import Settings
    from wn_dqn.sweeps.cells import Cell, Standing, Sweep
    from wn_dqn.sweeps.driver import Executor
    from wn_dqn.sweeps.stopping import Stopping
    from wn_dqn.sweeps.study import Study

_WATCH_S = 2.0

_STUDY = click.argument("study_name", metavar="FILE|NAME")
_INTO = click.option(
    "--into", type=click.Path(path_type=Path), help="Folder of the runs.  [default: the file's, or runs/NAME]"
)
_PLUGIN = plugin_option(expose_value=True)


@dataclass(frozen=True)
class _Orders:
    """The user's options for training a sweep."""

    fleet: str
    jobs: int | None
    address: str
    partition: str | None
    sbatch: tuple[str, ...]
    dry_run: bool
    stop_after: str | None
    named_env: str | None
    plugins: tuple[str, ...]

    @property
    def named(self) -> list[str]:
        return [self.named_env] if self.named_env else []

    @property
    def code(self) -> list[str]:
        """The options that allow code from outside, for another process."""
        return [*(f"--env={name}" for name in self.named), *(f"--plugin={name}" for name in self.plugins)]


def _train_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that train. The command receives them as one argument, `orders`."""
    options = (
        click.option(
            "--on",
            "fleet",
            type=click.Choice(["local", "ray", "slurm"]),
            default="local",
            show_default=True,
            help="Where the runs train: in local processes, on a Ray cluster, or as a SLURM job array.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(1, 10_000),
            help="Runs at a time.  [default: 1 locally; Ray and SLURM decide for themselves]",
        ),
        click.option(
            "--address", default="auto", show_default=True, help="Ray's address: auto, local (a new one), HOST:PORT."
        ),
        click.option("--partition", help="Of SLURM."),
        click.option("--sbatch", multiple=True, help="An option for sbatch, like --sbatch=--time=8:00:00."),
        click.option("--dry-run", is_flag=True, help="With SLURM: print the script, and submit nothing."),
        click.option("--stop-after", metavar="DURATION", help="Save and stop after this time, like 8h."),
        NAMED_ENV,
        _PLUGIN,
    )

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        names = [field.name for field in fields(_Orders)]
        command(orders=_Orders(**{name: given.pop(name) for name in names}), **given)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.group()
def sweep() -> None:
    """Train many runs that one file describes.

    Each cell of a sweep is an ordinary run directory. `plot`, `report` and `evaluate` read the sweep's folder.
    """


@sweep.command()
@_STUDY
@_INTO
@click.option(
    "--cost/--no-cost",
    default=None,
    help="Measure the speed of every kind of cell, or of none.  [default: kinds that take a second; none if there are "
    "more than 200 cells]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the cells, their commands and requirements as JSON.")
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
    """List the runs that FILE describes, and the time and memory that they need here. Starts nothing."""
    study, path, folder = _study(study_name, into)
    planned = _planned(study, path, folder, named_env, plugins)
    cells = [cell for cell, _ in planned]

    from wn_dqn.sweeps.cells import shell_command
    from wn_dqn.sweeps.plan import needs_of, plan_lines
    from wn_dqn.system.hardware import find_device

    patience_s = None if cost is None else math.inf if cost else 0.0
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
def run(study_name: str, into: Path | None, orders: _Orders) -> None:
    """Train the runs of FILE, or resume them. Failed runs are left for `wn-dqn sweep retry`."""
    from wn_dqn.config.files import dump_yaml
    from wn_dqn.sweeps.cells import Sweep, known_needs, write_manifest
    from wn_dqn.sweeps.driver import unfinished
    from wn_dqn.sweeps.study import base_settings

    study, path, folder = _study(study_name, into)
    stop = _stopping(orders.stop_after or study.stop_after)
    planned = _planned(study, path, folder, orders.named_env, orders.plugins)
    cells = known_needs(folder, [cell for cell, _ in planned])
    if not all(cell.memory_bytes for cell in cells):
        memory_bytes = _memory_bytes(path, folder, orders.code)
        cells = [replace(cell, memory_bytes=memory_bytes[cell.name]) for cell in cells]
    made = Sweep(folder, tuple(cells), study.resources, study.stop)
    write_manifest(made, dump_yaml(base_settings(study, path)))
    _train(made, unfinished(cells), orders, stop)


@sweep.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_train_options
def retry(folder: Path, orders: _Orders) -> None:
    """Train the failed runs of the sweep in FOLDER again."""
    from wn_dqn.sweeps.cells import read_manifest, standing
    from wn_dqn.sweeps.driver import require_allowed

    found = read_manifest(folder)
    require_allowed(found.cells, orders.named, orders.plugins)
    failed = [cell for cell in found.cells if standing(cell).state == "failed"]
    _train(found, failed, orders, _stopping(orders.stop_after))


@sweep.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("index", type=click.IntRange(0))
@NAMED_ENV
@_PLUGIN
def cell(folder: Path, index: int, named_env: str | None, plugins: tuple[str, ...]) -> None:
    """Train one run of the sweep in FOLDER, by its index in sweep.json. Each task of a SLURM array calls this."""
    from wn_dqn.sweeps.driver import require_allowed
    from wn_dqn.sweeps.slurm import cell_at, train_one

    chosen = cell_at(folder, index)
    require_allowed([chosen], [named_env] if named_env else [], plugins)
    stop = _stopping(None)
    with stop.on_signals():
        sys.exit(train_one(chosen, stop))


@sweep.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Update every two seconds, until all runs are done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, watch: bool, as_json: bool) -> None:
    """Show the status of the runs of the sweep in FOLDER."""
    from wn_dqn.sweeps.cells import read_manifest, standing, to_json
    from wn_dqn.sweeps.watching import show, watch_until_done

    cells = read_manifest(folder).cells

    def look() -> list[Standing]:
        return [standing(cell) for cell in cells]

    if as_json:
        click.echo(to_json(look()))
    elif watch:
        watch_until_done(look, _WATCH_S)
    else:
        show(look())


def _study(study_name: str, into: Path | None) -> tuple[Study, Path, Path]:
    """The study that a sweep file describes, the file, and the folder of the runs."""
    from wn_dqn.sweeps.study import find_study, read_study

    path = find_study(study_name)
    study = read_study(path)
    return study, path, into or Path(study.directory or Path("runs") / path.stem)


def _planned(
    study: Study, path: Path, folder: Path, named_env: str | None, plugins: Sequence[str]
) -> list[tuple[Cell, Settings]]:
    """The cells with their settings. Raises UsageError if they refer to code that is not allowed."""
    from wn_dqn.sweeps.driver import require_allowed
    from wn_dqn.sweeps.study import make_cells

    planned = make_cells(study, path, folder)
    require_allowed([cell for cell, _ in planned], [named_env] if named_env else [], plugins)
    return planned


def _memory_bytes(path: Path, folder: Path, code: Sequence[str]) -> dict[str, int]:
    """The memory that each cell needs, in bytes.

    A separate process computes it. It loads torch, and this process must stay small, because it runs for days.
    """
    command = [sys.executable, "-m", "wn_dqn", "sweep", "plan", str(path), "--into", str(folder), "--no-cost", "--json"]
    done = subprocess.run([*command, *code], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)  # the child has printed the reason
    return {cell["name"]: cell["memory_bytes"] for cell in json.loads(done.stdout)["cells"]}


def _stopping(stop_after: str | None) -> Stopping:
    from wn_dqn.sweeps.stopping import Stopping

    return Stopping(None if stop_after is None else seconds(stop_after))


def _train(made: Sweep, todo: Sequence[Cell], orders: _Orders, stop: Stopping) -> None:
    """Train the cells `todo` of a sweep, and exit with the status of the whole sweep."""
    from wn_dqn.sweeps.driver import conclude, drive
    from wn_dqn.system.progress import ProgressReporter

    if orders.fleet == "slurm":
        _submit(made, todo, orders)
        return
    message = ProgressReporter().message
    executor = _executor(made, todo, orders) if todo else None  # before our own handlers: Ray sets signal handlers
    with stop.on_signals():
        if executor is not None:
            drive(made, todo, executor, stop, message)
        sys.exit(conclude(made, stop, message))


def _executor(made: Sweep, todo: Sequence[Cell], orders: _Orders) -> Executor:
    if orders.fleet == "ray":
        from wn_dqn.sweeps.on_ray import OnRay

        return OnRay(orders.address, made.resources)
    from wn_dqn.sweeps.local import Local

    return Local(orders.jobs or 1, [cell.memory_bytes for cell in todo])


def _submit(made: Sweep, todo: Sequence[Cell], orders: _Orders) -> None:
    """Submit the cells `todo` as an array, or print its script."""
    from wn_dqn.sweeps import slurm

    if made.halving is not None:
        raise UsageError(
            "`stop` needs a process that compares the runs, and a SLURM array has none: leave it out, or "
            "use --on local or ray"
        )
    indices = [index for index, each in enumerate(made.cells) if each in todo]
    if not indices:
        click.echo("nothing is left to do")
        return
    options = [*([f"--partition={orders.partition}"] if orders.partition else []), *orders.sbatch, *orders.code]
    memory_bytes = max(each.memory_bytes for each in todo)
    text = slurm.script(made.folder, indices, memory_bytes, made.resources, orders.jobs or len(indices), options)
    if orders.dry_run:
        click.echo(text, nl=False)
        return
    click.echo(slurm.submit(made.folder, text))
    click.echo(f"wn-dqn sweep status {made.folder} --watch")
