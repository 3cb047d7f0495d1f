"""``wn-dqn card``: the model card of a run."""

from __future__ import annotations

from pathlib import Path

import click

from wn_dqn.cli.options import PLUGIN


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@PLUGIN
def card(run: Path) -> None:
    """Write the model card of RUN again, with a picture of its curve: model_card.md and curve.png.

    A run writes its card when it finishes. This command adds the results of `wn-dqn evaluate` since then.
    """
    from wn_dqn.analysis.model_card import CURVE, write_card
    from wn_dqn.analysis.read_runs import read_run
    from wn_dqn.system.text import printable

    path = write_card(run)
    for problem in read_run(run).problems:
        click.echo(f"wn-dqn: {problem}", err=True)
    click.echo(f"{printable(str(path))}: Markdown, for a repository or the Hugging Face Hub; its picture is {CURVE}")
