"""``wn-dqn games``: what can be played."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from wn_dqn.envs.atari_games import Game


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def games(as_json: bool) -> None:
    """List the games that can be trained, with published scores."""
    from wn_dqn.envs.atari_games import all_games

    catalogue = all_games().values()
    if as_json:
        rows = [vars(game) | {"paper": game.paper and vars(game.paper)} for game in catalogue]
        click.echo(json.dumps(rows, indent=2))
        return
    _print_table(list(catalogue))


def _print_table(catalogue: list[Game]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("game", "random", "human", "paper: standard", "paper: wn")
    for column in table.columns[1:]:
        column.justify = "right"
    for game in catalogue:
        paper = (game.paper.standard, game.paper.wn) if game.paper else (None, None)
        table.add_row(
            game.name, *("" if score is None else f"{score:,.1f}" for score in (game.random, game.human, *paper))
        )
    Console().print(table)
    click.echo(f"{len(catalogue)} games, and Catch, a small one for trying things out.")
