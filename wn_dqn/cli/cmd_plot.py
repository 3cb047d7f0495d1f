"""``wn-dqn plot``: draws learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wn_dqn.analysis.choices import FIGURE_FORMATS, STATISTICS, X_AXES
from wn_dqn.cli.options import PLUGIN, REFERENCE, CountRange


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE." + "|".join(FIGURE_FORMATS),
    help="The file to write. An older plot of that name is overwritten, any other file is not.",
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
    help="Unit of the x axis. Hours are hours of training, without evaluations.",
)
@click.option(
    "--statistic",
    type=click.Choice(STATISTICS),
    default="mean",
    show_default=True,
    help="Statistic over seeds. iqm, the interquartile mean, ignores the best and the worst quarter.",
)
@click.option(
    "--smooth",
    "smoothing",
    type=CountRange(1, 10**6),
    default=1,
    show_default=True,
    help="Draw the mean of the last N values of each run; the label states it.",
)
@click.option(
    "--levels",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Published scores as lines: those in range, all of them, or none.",
)
@click.option("--each-run", is_flag=True, help="Draw a thin line for each seed as well.")
@REFERENCE
@PLUGIN
def plot(runs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Draw the learning curves of RUN...: run directories, or folders of them.

    One panel per game, one line per parameterization (and per other setting that differs), with a band of 95%
    confidence from the stratified bootstrap over seeds, where there are two or more.

    \b
    wn-dqn plot runs -o curves.png
    wn-dqn plot runs/SpaceInvaders-* -o figure5.pdf --smooth 5 --statistic iqm --levels all
    wn-dqn plot runs/paper-cifar10-* -o figure1.png                       the paper's other systems, after its figures
    wn-dqn plot runs/Breakout-* -o breakout.png --metric train/episode_return --x frames --reference dopamine
    """
    from wn_dqn.analysis import plotting
    from wn_dqn.cli.groups import read_groups, show_notes
    from wn_dqn.cli.looking import written
    from wn_dqn.cli.paper_arms import paper_arms
    from wn_dqn.paper import pages
    from wn_dqn.system import output_file
    from wn_dqn.system.text import number_of

    file_format = output_file.require_writable(output, FIGURE_FORMATS)
    if arms := paper_arms(runs):
        output_file.write(output, plotting.figure_bytes(pages.draw(arms), file_format))
        click.echo(written(output, number_of(sum(len(arm.runs) for arm in arms), "run")))
        return
    groups, _ = read_groups(runs)
    figure, notes = plotting.learning_curves(groups, **options)
    show_notes(notes)
    output_file.write(output, plotting.figure_bytes(figure, file_format))
    click.echo(written(output, number_of(sum(len(group.runs) for group in groups), "run")))
