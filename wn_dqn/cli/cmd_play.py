"""``wn-dqn play``: watch a trained network play."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wn_dqn.cli.options import CHECKPOINT, DEVICE, NAMED_ENV, PLUGIN, CountRange, protocol_options
from wn_dqn.errors import UsageError

if TYPE_CHECKING:
    from wn_dqn.evaluation.protocols import EvaluationProtocol
    from wn_dqn.render.saliency import Method


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The video: a name ending in .webm, .mp4 or .gif."
)
@click.option("--show", is_flag=True, help="Open a window and watch; q ends it.")
@click.option("--episodes", type=click.IntRange(1, 1000), default=1, show_default=True, help="Games to play.")
@click.option(
    "--max-frames",
    type=CountRange(1, 10**7),
    help="End the video after this many frames, 60 per second.  [default: no limit; 3,600 for a GIF]",
)
@click.option(
    "--saliency",
    type=click.Choice(["gradient", "guided"]),
    help="Highlight the pixels that the Q-value depends on: gradient times input, or guided backpropagation.",
)
@CHECKPOINT
@NAMED_ENV
@protocol_options("nature")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the games.")
@DEVICE
@PLUGIN
def play(
    run: Path,
    output: Path | None,
    show: bool,
    episodes: int,
    max_frames: int | None,
    saliency: Method | None,
    checkpoint: str,
    named_env: str | None,
    protocol: EvaluationProtocol,
    seed: int,
    device: str,
) -> None:
    """Show the agent in RUN, a run directory or a checkpoint, at play: 60 colour frames per second, with Q-values.

    \b
    wn-dqn play runs/SpaceInvaders-wn-seed0 -o game.webm          a game, for a browser
    wn-dqn play runs/SpaceInvaders-wn-seed0 -o game.gif --max-frames 600 --saliency gradient

    An action that the network chose is blue; a random one (epsilon) is orange. The bars span the range of all Q-values
    of the last ten seconds.
    """
    if output is None and not show:
        raise UsageError("give a file to write, like -o game.webm, or --show")

    from wn_dqn import api
    from wn_dqn.cli.looking import written
    from wn_dqn.render.video import FRAMES_PER_S
    from wn_dqn.system.hardware import find_device, prepare_torch

    prepare_torch(find_device(device), "float32")
    policy = api.load(run, checkpoint, device=device, named=[named_env or ""])
    frames = policy.play(
        output,
        protocol=protocol,
        games=episodes,
        max_frames=max_frames,
        saliency=saliency,
        seed=seed,
        show=show,
        progress=True,
    )
    if output is not None:
        click.echo(written(output, f"{frames:,} frames, {frames / FRAMES_PER_S:.1f} seconds"))
