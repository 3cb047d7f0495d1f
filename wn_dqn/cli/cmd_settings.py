"""``wn-dqn settings``: every setting, its default and its unit."""

from __future__ import annotations

import click


@click.command()
def settings() -> None:
    """List every setting with its default, for --set and config files."""
    from wn_dqn.config.files import setting_help

    for key, default, text in setting_help():
        click.echo(f"{key} = {default}\n    {text}")
