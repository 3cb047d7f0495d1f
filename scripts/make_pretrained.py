"""Adds the best network of a run to those that come with the package: weights, contract and model card.

    wn-dqn evaluate RUN --protocol nature --games 100
    python scripts/make_pretrained.py RUN minatar-breakout-wn

It writes NAME.safetensors, NAME.safetensors.json and NAME.md to agents/pretrained. The run needs fresh games of its
best network, because the score of the evaluation that selected it is biased.
"""

from __future__ import annotations

from pathlib import Path

import click

from wn_dqn.analysis.model_card import card_text
from wn_dqn.analysis.read_runs import read_run
from wn_dqn.analysis.scores import latest_reevaluations
from wn_dqn.api import load
from wn_dqn.interop.places import PRETRAINED, pretrained_folder


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("name")
def main(run: Path, name: str) -> None:
    read = read_run(run)
    if not latest_reevaluations(read):
        raise click.ClickException(f"{run} has no fresh games of its best network: wn-dqn evaluate {run} first")
    folder = pretrained_folder()
    folder.mkdir(exist_ok=True)
    load(run, device="cpu", named=[read.settings.game]).export(folder / f"{name}.safetensors")
    (folder / f"{name}.md").write_text(card_text(read, picture=False, place=PRETRAINED + name))
    print(f"{folder / name}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB are there now")


if __name__ == "__main__":
    main()
