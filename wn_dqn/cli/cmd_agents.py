"""``wn-dqn agents``: the trained networks that come with the package."""

from __future__ import annotations

import json
import sys
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def agents(as_json: bool) -> None:
    """List the trained agents that come with wn-dqn: `wn-dqn play agent:NAME -o game.webm` shows one.

    Each has a model card in the folder that the last line names.
    """
    from wn_dqn.interop.places import pretrained, pretrained_folder

    found = pretrained()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print_table(found)
    click.echo(f"wn-dqn play agent:NAME -o game.webm, wn-dqn evaluate agent:NAME; cards: {pretrained_folder()}")


def _print_table(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "game", "parameterization", "steps", "mean score", "games", "protocol")
    table.columns[0].no_wrap = True  # people type it, so it must not be split
    for row in found:
        score, game = row["score"], row["game"].removeprefix("gymnasium:")
        tested = f"{score['mean']:,.1f}", f"{score['games']:,}", score["protocol"]
        table.add_row(row["name"], game, row["param"], f"{row['steps']:,}", *tested)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
