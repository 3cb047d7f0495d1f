"""``wn-dqn report``: one HTML page about many runs."""

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
    help="The report; an older report of that name is overwritten, nothing else ever.",
)
@click.option("--price-per-hour", type=NumberRange(0, 1e6), help="What an hour of the machine costs.")
@click.option("--live", is_flag=True, help="Serve a page that is kept current while runs go on, and write no file.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default="any that is free", help="Of --live.")
@click.option(
    "--host",
    help="Serve --live to other machines, too: the address to listen on, like 0.0.0.0. Whoever has the address that is "
    "printed, with its token, sees the page; it is not encrypted.  [default: this machine only]",
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

    One HTML file that needs no other and no network: scores beside the paper's, with fresh games of the best networks
    where `wn-dqn evaluate` was run; human-normalized scores, IQM, probability of improvement; all curves; settings,
    provenance, time and cost; and what was not run or not finished.

    \b
    wn-dqn report runs
    wn-dqn report runs -o figure6.html --price-per-hour 0.35
    wn-dqn report runs/paper-cifar10-*                            the paper's other systems, beside its table
    wn-dqn report runs --live                                     a page that follows runs: curves, speed, the agent
    """
    if live:
        from wn_dqn.live.server import serve

        serve(runs, host, port, lambda address: click.echo(f"{address}  (Ctrl-C ends the page, not the runs)"))
        return
    if host is not None or port:
        raise UsageError("--host and --port are options of --live")

    from wn_dqn.analysis.report import make_report
    from wn_dqn.cli.groups import read_groups
    from wn_dqn.cli.looking import written
    from wn_dqn.cli.paper_arms import paper_arms
    from wn_dqn.paper import pages
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
