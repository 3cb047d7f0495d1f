"""``wn-dqn push``: sends a trained network to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from wn_dqn.cli.options import NAMED_ENV, PLUGIN


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--repo-id", required=True, metavar="USER/NAME", help="The repository; it is created if it does not exist."
)
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="FOLDER", help="Write the files to a new folder and send nothing."
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@NAMED_ENV
@PLUGIN
def push(run: Path, repo_id: str, to: Path | None, private: bool, named_env: str | None) -> None:
    """Send the best network of RUN to the Hugging Face Hub: weights, model card, a video of a game, settings.

    \b
    wn-dqn push runs/Breakout-wn-seed0 --repo-id me/breakout-wn
    wn-dqn push runs/Breakout-wn-seed0 --repo-id me/breakout-wn --to breakout     inspect it first
    wn-dqn play hf:me/breakout-wn -o game.webm                                     for everybody else

    It needs `pip install 'wn-dqn[hub]'` and a token: `hf auth login`, or HF_TOKEN.
    """
    from wn_dqn import api
    from wn_dqn.runs.story import pasteable

    address = api.push(run, repo_id, to=to, private=private, named=[named_env or ""], progress=True)
    if to is None:
        click.echo(f"{address}: others read it with wn_dqn.load('hf:{repo_id}')")
    else:
        click.echo(f"{pasteable(to)}: the files for {repo_id}; without --to they are sent")
