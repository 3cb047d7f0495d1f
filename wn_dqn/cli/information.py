"""Commands that tell what there is: games, settings, doctor."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from wn_dqn.analysis.published import PAPER_ARMS, published_scores
from wn_dqn.cli.options import DEVICE
from wn_dqn.config.files import setting_help
from wn_dqn.config.games import all_games
from wn_dqn.runs.doctor import examine
from wn_dqn.system.hardware import find_device


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def games(as_json: bool) -> None:
    """List the games that can be trained, with published scores."""
    catalogue = [(game, published_scores(game.name)) for game in all_games().values()]
    if as_json:
        rows = [vars(game) | vars(published) | {"paper": published.paper or None} for game, published in catalogue]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("game", "random", "human", *(f"paper: {arm}" for arm in PAPER_ARMS))
    for column in table.columns[1:]:
        column.justify = "right"
    for game, published in catalogue:
        scores = (published.random, published.human, *map(published.paper.get, PAPER_ARMS))
        table.add_row(game.name, *("" if score is None else f"{score:,.1f}" for score in scores))
    Console().print(table)
    click.echo(f"{len(catalogue)} games, and Catch, a small one for trying things out.")


@click.command()
def settings() -> None:
    """List every setting with its default, for --set and config files."""
    for key, default, text in setting_help():
        click.echo(f"{key} = {default}\n    {text}")


@click.command()
@DEVICE
def doctor(device: str) -> None:
    """Say what this machine has, what a training would use, and how fast it is."""
    for line in examine(find_device(device)):
        click.echo(line)
