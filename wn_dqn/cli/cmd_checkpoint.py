"""``wn-dqn checkpoint``: list or verify the checkpoints of a run."""

from __future__ import annotations

from pathlib import Path

import click

from wn_dqn.cli.options import PLUGIN
from wn_dqn.errors import RunError


@click.group()
def checkpoint() -> None:
    """List or verify the checkpoints of a run."""


@checkpoint.command("list")
@click.argument("run", type=click.Path(path_type=Path))
@PLUGIN
def list_(run: Path) -> None:
    """List the checkpoints in RUN with the mean score of their evaluation; the best one is marked."""
    from wn_dqn.runs.checkpoint import list_checkpoints
    from wn_dqn.runs.run_directory import RunDirectory

    directory = RunDirectory(run)
    directory.read_settings()
    checkpoints = list_checkpoints(directory.checkpoints)
    best = directory.best_checkpoint()
    for info in checkpoints:
        score = "not evaluated" if info.score is None else f"mean score {info.score:,.1f}"
        click.echo(f"{info.path.name}  step {info.steps:,}  {score}" + ("  best" if info == best else ""))
    if not checkpoints:
        click.echo(f"{run} has no checkpoint yet")


@checkpoint.command()
@click.argument("run", type=click.Path(path_type=Path))
@PLUGIN
def verify(run: Path) -> None:
    """Verify every byte of every checkpoint in RUN, including its replay; exit status 1 if one is damaged.

    The best checkpoint is kept for evaluation, not for resuming: once it is old, its replay is removed.
    """
    from wn_dqn.runs.checkpoint import CheckpointError, checkpoint_paths
    from wn_dqn.runs.experiment import verify_checkpoint
    from wn_dqn.runs.run_directory import RunDirectory

    directory = RunDirectory(run)
    keep = directory.read_settings().output.keep_checkpoints
    paths = checkpoint_paths(directory.checkpoints)
    if not paths:
        raise RunError(f"{run} has no checkpoint")
    damaged = 0
    for path in paths:
        resumable = path in paths[-keep:]
        try:
            verify_checkpoint(directory, path, resumable=resumable)
            click.echo(f"{path.name}  whole" + ("" if resumable else ", kept for evaluation, without its replay"))
        except CheckpointError as error:
            damaged += 1
            click.echo(f"{path.name}  {error}")
    if damaged:
        raise RunError(f"{damaged} of the checkpoints in {run} are damaged")
