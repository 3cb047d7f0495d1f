"""Commands that show what runs have come to: plot, report, card."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from wn_dqn.analysis import plotting
from wn_dqn.analysis import read_runs as results
from wn_dqn.analysis.curves import X_AXES
from wn_dqn.analysis.model_card import write_card
from wn_dqn.analysis.report import make_report
from wn_dqn.analysis.resampling import AGGREGATES
from wn_dqn.errors import UsageError
from wn_dqn.system import output_file
from wn_dqn.system.progress import ProgressReporter


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.png|svg|pdf",
    help="The figure; an older figure of that name is overwritten, nothing else ever.",
)
@click.option(
    "--metric",
    default="mean_return",
    show_default=True,
    help="A column of evaluations.csv or metrics.csv, like held_out_max_q or train/loss.",
)
@click.option(
    "--x",
    "x_axis",
    type=click.Choice(X_AXES),
    default="epochs",
    show_default=True,
    help="What the x axis counts; hours are hours of training, evaluations not counted.",
)
@click.option(
    "--statistic",
    type=click.Choice(list(AGGREGATES)),
    default="mean",
    show_default=True,
    help="What the line is, over seeds; iqm, the interquartile mean, is blind to the best and the worst quarter.",
)
@click.option(
    "--smooth",
    "smoothing",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Draw the mean of the last so many values of each run; the label says so.",
)
@click.option(
    "--levels",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Published scores as lines: those in range, all of them, or none.",
)
@click.option("--each-run", is_flag=True, help="Draw a thin line for each seed as well.")
def plot(runs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Draw the learning curves of RUN...: run directories, or folders of them.

    One panel per game, one line per parameterization (and per other setting that differs), with a band of 95%
    confidence from the stratified bootstrap over seeds, where there are two or more.

    \b
    wn-dqn plot runs -o curves.png
    wn-dqn plot runs/SpaceInvaders-* -o figure5.pdf --smooth 5 --statistic iqm --levels all
    """
    file_format = output_file.require_writable(output, plotting.FORMATS)
    groups, _ = _read_groups(runs)
    figure, notes = plotting.learning_curves(groups, **options)
    _tell(notes)
    output_file.write(output, plotting.figure_bytes(figure, file_format))
    click.echo(f"{output}: {sum(len(group.runs) for group in groups)} runs")


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The report; an older report of that name is overwritten, nothing else ever.",
)
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="What an hour of the machine costs.")
def report(runs: tuple[Path, ...], output: Path, price_per_hour: float | None) -> None:
    """Write a report about RUN...: run directories, or folders of them.

    One HTML file that needs no other and no network: scores beside the paper's, with fresh games of the best networks
    where `wn-dqn evaluate` was run; human-normalized scores, IQM, probability of improvement; all curves; settings,
    provenance, time and cost; and what was not run or not finished.

    \b
    wn-dqn report runs
    wn-dqn report runs -o figure6.html --price-per-hour 0.35
    """
    output_file.require_writable(output, ["html"])
    groups, problems = _read_groups(runs)
    output_file.write(output, make_report(groups, problems, ProgressReporter(), price_per_hour))
    click.echo(f"{output}: {sum(len(group.runs) for group in groups)} runs")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def card(run: Path) -> None:
    """Write the model card of RUN anew, with a picture of its curve: model_card.md and curve.png.

    A run that finishes writes its card by itself; this brings in what `wn-dqn evaluate` has found since.
    """
    path = write_card(run)
    _tell(results.read_run(run).problems)
    click.echo(f"{path}")


def _read_groups(paths: tuple[Path, ...]) -> tuple[list[results.Group], list[str]]:
    """The runs that can be read, and messages, also printed, about what cannot. UsageError if no run can."""
    runs, unreadable = results.read_runs(paths)
    groups, repeated = results.group_runs(runs)
    if not groups:
        raise UsageError("\n".join(unreadable))
    _tell([*unreadable, *repeated])
    return groups, [*unreadable, *repeated]


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"wn-dqn: {note}", err=True)
