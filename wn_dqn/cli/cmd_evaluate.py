"""``wn-dqn evaluate``: evaluates trained networks in new games."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wn_dqn.cli.options import CHECKPOINT, DEVICE, NAMED_ENV, PLUGIN, CountRange, protocol_options
from wn_dqn.errors import UsageError
from wn_dqn.system.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from wn_dqn.evaluation.protocols import EvaluationProtocol
    from wn_dqn.runs.reevaluation import Report

_SCORES = ("mean", "median", "std", "min", "max")


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
@CHECKPOINT
@NAMED_ENV
@click.option("--all", "all_of_a_run", is_flag=True, help="Test every checkpoint of each run.")
@protocol_options("paper")
@click.option(
    "--games",
    type=CountRange(1, 10**6),
    help="Play this many games instead of the protocol's length. If the protocol has no time limit, a game is "
    "truncated after an hour of play.",
)
@click.option(
    "--random", "random_game", metavar="GAME", help="Test a uniformly random policy on this game instead of a run."
)
@click.option(
    "--num-envs",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Games played at once; the result does not depend on it.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the test.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    help="Checkpoints tested at the same time, in separate processes; no result depends on it.  [default: "
    "one per core, 1 on a GPU]",
)
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@PLUGIN
def evaluate(
    runs: tuple[Path, ...],
    checkpoint: str,
    named_env: str | None,
    all_of_a_run: bool,
    protocol: EvaluationProtocol,
    games: int | None,
    random_game: str | None,
    num_envs: int,
    seed: int,
    jobs: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Test the agents in RUN...: run directories, or checkpoints.

    \b
    paper        epsilon 0.05, games completed in 125,000 steps, no time limit (Salimans & Kingma 2016)
    nature       epsilon 0.05, 30 games of at most 5 minutes (Mnih et al. 2015)
    machado2018  epsilon 0.01, 100 games of at most 5 minutes, sticky actions 0.25, all 18 actions

    The best checkpoint of a run was selected by its score after an epoch, which makes that score too high. The scores
    printed here come from new games. Each outcome is appended to reevaluations.jsonl in its run.
    """
    if bool(runs) == (random_game is not None):
        raise UsageError("give a run directory or checkpoint, or --random GAME")

    from wn_dqn import api
    from wn_dqn.system.hardware import find_device, prepare_torch

    prepare_torch(find_device(device), "float32")
    options: Any = {"games": games, "num_envs": num_envs, "seed": seed, "progress": True}
    if random_game is not None:
        reports = [api.evaluate_random(random_game, protocol, **options)]
    else:
        options |= {"checkpoint": checkpoint, "all_checkpoints": all_of_a_run, "jobs": jobs, "device": device}
        reports = api.evaluate(runs, protocol, named=[named_env or ""], **options)
    if as_json:
        printed = [_with_published(report) for report in reports]
        click.echo(json.dumps(printed[0] if len(printed) == 1 else printed, indent=2))
    elif len(reports) == 1:
        _print_evaluation(reports[0])
    else:
        _print_evaluations(reports)
    if runs:
        _say_where(reports)


def _say_where(reports: list[Report]) -> None:
    """Print one line about the files that contain the outcomes, if there are any."""
    from wn_dqn.runs.run_directory import REEVALUATIONS
    from wn_dqn.runs.story import pasteable
    from wn_dqn.system.progress import ProgressReporter

    folders = {report.checkpoint.parent.parent for report in reports if report.checkpoint is not None}
    kept = [pasteable(folder) for folder in sorted(folders) if (folder / REEVALUATIONS).is_file()]
    if kept:
        ProgressReporter().message(f"saved in {REEVALUATIONS}; to compare runs: wn-dqn report {' '.join(kept)}")


def _with_published(report: Report) -> dict[str, Any]:
    """The outcome with the published scores of the game. They precede the long list of scores."""
    from wn_dqn.analysis.published import human_normalized, published_scores

    outcome, game = report.as_json(), report.game.name
    scores, mean = outcome.pop("scores"), outcome["mean_return"]
    outcome["human_normalized"] = None if mean is None else human_normalized(game, mean)
    outcome["paper"] = published_scores(game).paper or None
    return {**outcome, "scores": scores}


def _print_evaluation(report: Report) -> None:
    from rich.table import Table

    from wn_dqn.analysis.published import PAPER_COLUMNS

    outcome, game = _with_published(report), report.game
    click.echo(printable(f"{game.name}: {outcome['policy']}, protocol {report.protocol.name}"))
    metrics = report.result.metrics()
    row = {name: f"{metrics[f'{name}_return']:,.1f}" for name in _SCORES} | {"games": f"{metrics['games']}"}
    if outcome["human_normalized"] is not None:
        row["human-normalized"] = f"{outcome['human_normalized']:.1%}"
    for column, score in (outcome["paper"] or {}).items():
        row[f"paper: {PAPER_COLUMNS[column]}"] = f"{score:,.0f}"
    table = Table()
    for name in row:
        table.add_column(name, justify="right")
    table.add_row(*row.values())
    _print_table(table, 120)
    if outcome["truncated_games"]:
        click.echo(f"{outcome['truncated_games']} of these games were truncated and count with the score they had.")
    if outcome["unfinished_games"]:
        click.echo("One more game was in progress at the last step; it does not count.")
    if outcome["paper"] is not None:
        click.echo("The paper's scores are maxima over 200 epochs, not fresh games of one network.")


def _print_evaluations(reports: list[Report]) -> None:
    from rich.table import Table

    click.echo(f"protocol {reports[0].protocol.name}, seed {reports[0].seed}")
    table = Table("game", "checkpoint")
    for name in ("step", *_SCORES, "games"):
        table.add_column(name, justify="right")
    for report in reports:
        metrics, path = report.result.metrics(), printable(str(report.checkpoint))
        scores = (f"{metrics[f'{name}_return']:,.1f}" for name in _SCORES)
        table.add_row(report.game.name, path, f"{report.trained_steps:,}", *scores, f"{metrics['games']}")
    _print_table(table, 160)
    truncated = sum(int(report.result.metrics()["truncated_games"]) for report in reports)
    if truncated:
        click.echo(f"{truncated} of these games were truncated and count with the score they had.")


def _print_table(table: Table, width: int) -> None:
    """Print a table in the terminal's width, or in `width` if there is no terminal.

    Markup is off, because a name in brackets is a name here, not a colour.
    """
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width, markup=False, emoji=False).print(table)
