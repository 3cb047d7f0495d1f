"""Commands that make runs and look after them: train, checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from wn_dqn.analysis.model_card import write_finished_card
from wn_dqn.cli.options import DEVICE, seconds
from wn_dqn.config.files import make_settings, merge, named_configs, nested, parse_assignment, read_config
from wn_dqn.errors import RunError
from wn_dqn.runs import launch
from wn_dqn.runs.checkpoint import CheckpointError, best_checkpoint, list_checkpoints
from wn_dqn.runs.experiment import verify_checkpoint
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system.hardware import find_device
from wn_dqn.system.progress import ProgressReporter

_SETTING_OF_OPTION = {
    "init": "network.init",
    "steps": "learning.total_steps",
    "num_envs": "environment.num_envs",
    "precision": "learning.precision",
    "save_replay": "output.save_replay",
}


@click.command(
    epilog=(
        "Every setting, with its default and unit: wn-dqn settings. Precedence: option, environment "
        "variable, --config, default."
    )
)
@click.option(
    "--game",
    envvar="WN_DQN_GAME",
    show_envvar=True,
    help="The game: SpaceInvaders, space_invaders and ALE/SpaceInvaders-v5 are the same. See `wn-dqn games`.",
)
@click.option(
    "--param",
    envvar="WN_DQN_PARAM",
    show_envvar=True,
    help="Parameterization of the network: wn (weight normalization), standard, wn-exp (g = e^s), mean-only-bn, "
    "wn-mean-only-bn (section 4 of the paper) or bn (batch normalization).  [default: wn]",
)
@click.option(
    "--agent",
    envvar="WN_DQN_AGENT",
    show_envvar=True,
    help="dqn, or double-dqn (van Hasselt et al. 2016); more differences from DQN are settings.  [default: dqn]",
)
@click.option(
    "--init",
    envvar="WN_DQN_INIT",
    show_envvar=True,
    help="Initialization: data (section 3 of the paper), torch (uniform, torch's default) or nature (uniform, He's). "
    "With one seed all parameterizations start as the same function.  [default: data]",
)
@click.option(
    "--config",
    "config_name",
    metavar="NAME|FILE",
    envvar="WN_DQN_CONFIG",
    show_envvar=True,
    help=f"Settings that differ from the paper's protocol: a YAML file, or one of {', '.join(named_configs())}.",
)
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any setting, like learning.batch_size=32. May be given several times.",
)
@click.option(
    "--seed",
    type=int,
    envvar="WN_DQN_SEED",
    show_envvar=True,
    help="One integer that all randomness comes from.  [default: 0]",
)
@click.option(
    "--steps",
    type=int,
    envvar="WN_DQN_STEPS",
    show_envvar=True,
    help="Agent steps to train for (4 frames each, summed over all environments).  [default: 50,000,000]",
)
@click.option(
    "--num-envs",
    type=int,
    envvar="WN_DQN_NUM_ENVS",
    show_envvar=True,
    help="Games played in lockstep. Part of the experiment: it changes results.  [default: 8]",
)
@click.option(
    "--precision",
    envvar="WN_DQN_PRECISION",
    show_envvar=True,
    help="Of matrix products and convolutions: float32, tf32 (a GPU's) or bf16.  [default: float32]",
)
@click.option(
    "--save-replay/--no-save-replay",
    default=None,
    envvar="WN_DQN_SAVE_REPLAY",
    show_envvar=True,
    help=(
        "Save the replay with each checkpoint: 0.26 GB for a million transitions of Space Invaders. Without it "
        "exact resume is lost: a run that goes on begins with an empty replay, plays learning.start_steps without "
        "learning to fill it, and ends elsewhere than one that never stopped.  [default: save]"
    ),
)
@DEVICE
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    envvar="WN_DQN_RUN_DIR",
    show_envvar=True,
    help="Folder of the run.  [default: runs/GAME-PARAM-seedSEED; GAME-PARAM-AGENT-seedSEED for other agents than dqn]",
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="auto: go on with an unfinished run in the folder; never: begin, and only in an empty folder.",
)
@click.option(
    "--stop-after",
    metavar="DURATION",
    help="Save and stop after so long, like 90s, 30m or 2h; the same command goes on later.",
)
def train(
    config_name: str | None,
    assignments: tuple[str, ...],
    device: str,
    run_dir: Path | None,
    resume: str,
    stop_after: str | None,
    **setting_options: Any,
) -> None:
    """Train an agent, or go on with a run that was stopped.

    With --game alone this is the paper's protocol: 50,000,000 steps, days on a CPU. `--config quick` learns Road
    Runner in about ten minutes.
    """
    variables: list[dict[str, Any]] = []
    options: list[dict[str, Any]] = []
    for name, value in setting_options.items():
        if value is not None:
            source = click.get_current_context().get_parameter_source(name)
            layer = variables if source is ParameterSource.ENVIRONMENT else options
            layer.append(nested(_SETTING_OF_OPTION.get(name, name), value))
    config = read_config(config_name) if config_name else {}
    settings = make_settings(merge([config, *variables, *map(parse_assignment, assignments), *options]))
    agent = "" if settings.agent == "dqn" else f"-{settings.agent}"
    folder = run_dir or Path("runs") / f"{settings.game}-{settings.param}{agent}-seed{settings.seed}"
    reporter = ProgressReporter()
    stop_after_s = None if stop_after is None else seconds(stop_after)
    sys.exit(
        launch.train_run(
            settings,
            folder,
            find_device(device),
            reporter,
            resume=resume == "auto",
            stop_after_s=stop_after_s,
            on_finished=lambda path: write_finished_card(path, reporter.message),
        )
    )


@click.group()
def checkpoint() -> None:
    """List or verify the checkpoints of a run."""


@checkpoint.command("list")
@click.argument("run", type=click.Path(path_type=Path))
def list_(run: Path) -> None:
    """List the checkpoints in RUN with the mean score of their evaluation; the best one is marked."""
    directory = RunDirectory(run)
    directory.read_settings()
    checkpoints = list_checkpoints(directory.checkpoints)
    best = best_checkpoint(checkpoints)
    for info in checkpoints:
        score = "not evaluated" if info.score is None else f"mean score {info.score:,.1f}"
        click.echo(f"{info.path.name}  step {info.steps:,}  {score}" + ("  best" if info == best else ""))
    if not checkpoints:
        click.echo(f"{run} has no checkpoint yet")


@checkpoint.command()
@click.argument("run", type=click.Path(path_type=Path))
def verify(run: Path) -> None:
    """Read every byte of every checkpoint in RUN, its part of the replay included; exit status 1 if one is damaged.

    The best checkpoint is kept to be tested, not to go on from: once it is old, its replay is gone.
    """
    directory = RunDirectory(run)
    keep = directory.read_settings().output.keep_checkpoints
    paths = sorted(directory.checkpoints.glob("step-*"))
    damaged = 0
    for path in paths:
        resumable = path in paths[-keep:]
        try:
            verify_checkpoint(directory, path, resumable=resumable)
            click.echo(f"{path.name}  whole" + ("" if resumable else ", kept for tests without its replay"))
        except CheckpointError as error:
            damaged += 1
            click.echo(f"{path.name}  {error}")
    if damaged:
        raise RunError(f"{damaged} of the checkpoints in {run} are damaged")
