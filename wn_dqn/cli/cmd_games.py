"""``wn-dqn games``: the games that can be trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from wn_dqn.analysis.published import PublishedScores


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def games(as_json: bool) -> None:
    """List the games that can be trained, with published scores."""
    from wn_dqn.analysis.published import published_scores
    from wn_dqn.config.games import all_games

    catalogue = {game: published_scores(game.name) for game in all_games().values()}
    if as_json:
        rows = [
            vars(game) | vars(published) | {"paper": published.paper or None} for game, published in catalogue.items()
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_table({game.name: published for game, published in catalogue.items()})


def _print_table(catalogue: dict[str, PublishedScores]) -> None:
    from rich.console import Console
    from rich.table import Table

    from wn_dqn.analysis.published import PAPER_ARMS

    table = Table("game", "random", "human", *(f"paper: {arm}" for arm in PAPER_ARMS))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, published in catalogue.items():
        scores = (published.random, published.human, *map(published.paper.get, PAPER_ARMS))
        table.add_row(name, *("" if score is None else f"{score:,.1f}" for score in scores))
    Console().print(table)
    click.echo(f"{len(catalogue)} games, and Catch, a small game for quick experiments.")
