"""``wn-dqn report``: writes one HTML page about many runs."""

from __future__ import annotations

from pathlib import Path

import click

from wn_dqn.cli.options import PLUGIN, REFERENCE, NumberRange
from wn_dqn.errors import UsageError


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The file to write. An older report of that name is overwritten, any other file is not.",
)
@click.option("--price-per-hour", type=NumberRange(0, 1e6), help="Price of one machine hour, for the cost column.")
@click.option("--live", is_flag=True, help="Serve a page that updates while runs are training, and write no file.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default="a free one", help="Port for --live.")
@click.option(
    "--host",
    help="Address on which --live listens, like 0.0.0.0, so that other machines see the page. Anybody who has the "
    "printed address with its token can read the page. It is not encrypted.  [default: this machine only]",
)
@REFERENCE
@PLUGIN
def report(
    runs: tuple[Path, ...],
    output: Path,
    price_per_hour: float | None,
    live: bool,
    port: int,
    host: str | None,
    reference: str | None,
) -> None:
    """Write a report about RUN...: run directories, or folders of them.

    The report is one HTML file, which needs no other file and no network. It compares scores with the paper's, and
    includes the new games of `wn-dqn evaluate`. It has human-normalized scores, IQM, probability of improvement, all
    curves, settings, provenance, time and cost. It lists missing and unfinished runs.

    \b
    wn-dqn report runs
    wn-dqn report runs -o figure6.html --price-per-hour 0.35
    wn-dqn report runs/paper-cifar10-*                            the paper's other systems, beside its table
    wn-dqn report runs --live                                     a page that updates: curves, speed, the agent
    """
    from wn_dqn.paper import pages

    if live:
        from wn_dqn.live.server import serve

        if pages.are_all_paper_runs(runs):
            raise UsageError("--live shows runs of the agent; for these, leave it out, or use TensorBoard")
        serve(runs, host, port, lambda address: click.echo(f"{address}  (Ctrl-C stops the page, not the runs)"))
        return
    if host is not None or port:
        raise UsageError("--host and --port are options of --live")

    from wn_dqn.analysis.report import make_report
    from wn_dqn.cli.groups import read_groups
    from wn_dqn.cli.looking import written
    from wn_dqn.cli.paper_arms import paper_arms
    from wn_dqn.system import output_file
    from wn_dqn.system.progress import ProgressReporter
    from wn_dqn.system.text import number_of

    output_file.require_writable(output, ["html"])
    if arms := paper_arms(runs):
        output_file.write(output, pages.make_page(arms))
        click.echo(written(output, number_of(sum(len(arm.runs) for arm in arms), "run")))
        return
    groups, problems = read_groups(runs)
    output_file.write(output, make_report(groups, problems, ProgressReporter(), price_per_hour, reference))
    click.echo(written(output, number_of(sum(len(group.runs) for group in groups), "run")))
