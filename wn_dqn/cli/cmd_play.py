"""``wn-dqn play``: watch a trained network play."""

from __future__ import annotations

import itertools
from collections import deque
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
    help="End the video after this many frames, 60 a second.  [default: no end; 3,600 for a GIF]",
)
@click.option(
    "--saliency",
    type=click.Choice(["gradient", "guided"]),
    help="Let the pixels glow that the Q-value comes from: gradient times input, or guided backpropagation.",
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
    """Watch the agent in RUN, a run directory or a checkpoint, play: colour frames, 60 per second, and its Q-values.

    \b
    wn-dqn play runs/RoadRunner-wn-seed0 -o game.webm             a game, for a browser
    wn-dqn play runs/RoadRunner-wn-seed0 -o game.gif --max-frames 600 --saliency gradient

    Blue is the action that the network chose, orange one that chance did (epsilon). The bars span the range of all
    Q-values of the last ten seconds.
    """
    if output is None and not show:
        raise UsageError("give a file to write, like -o game.webm, or --show")

    from wn_dqn.render.play import open_window
    from wn_dqn.render.video import FRAMES_PER_S, find_encoder, write_video
    from wn_dqn.runs.film import watch
    from wn_dqn.runs.policy import load_policy
    from wn_dqn.system.hardware import find_device, prepare_torch
    from wn_dqn.system.progress import ProgressReporter

    if output is not None:
        find_encoder(output)
    window = open_window("wn-dqn") if show else None
    torch_device, reporter = find_device(device), ProgressReporter()
    prepare_torch(torch_device, "float32")
    policy = load_policy(run, checkpoint, torch_device, [named_env or ""])
    if max_frames is None and output is not None and output.suffix.lower() == ".gif":
        max_frames = 60 * FRAMES_PER_S
        reporter.message("a GIF ends after a minute; --max-frames changes that")
    frames = watch(policy, protocol, episodes, seed, saliency, reporter)
    shown = itertools.takewhile(window, frames) if window is not None else frames
    filmed = itertools.islice(shown, max_frames)
    if output is None:
        deque(filmed, maxlen=0)
    else:
        written = write_video(output, filmed)
        click.echo(f"{output}: {written:,} frames, {written / FRAMES_PER_S:.1f} seconds")
