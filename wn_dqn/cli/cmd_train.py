"""``wn-dqn train``: starts a run, or resumes one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from wn_dqn.cli.options import DEVICE, ENV_ARGS, Count, environment_arguments, plugin_option, seconds
from wn_dqn.config.named import named_configs
from wn_dqn.config.registry import AGENTS, DEFAULT_PARAMETERIZATION, PARAMETERIZATIONS
from wn_dqn.errors import UsageError
from wn_dqn.system.collector import imports_uncollected

if TYPE_CHECKING:
    from wn_dqn.config.schema import Settings
    from wn_dqn.runs.callback import Callback

_SETTING_OF_OPTION = {
    "env": "game",
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
    "--env",
    envvar="WN_DQN_ENV",
    show_envvar=True,
    help="An external environment, instead of --game: gymnasium:CartPole-v1, gymnasium:MODULE:ID (imports MODULE "
    "first), or MODULE:FACTORY, a gymnasium.Env class or a function that makes a gymnasium.vector.VectorEnv.",
)
@ENV_ARGS
@plugin_option(expose_value=True)
@click.option(
    "--param",
    envvar="WN_DQN_PARAM",
    show_envvar=True,
    help="Parameterization of the network. "
    + "; ".join(f"{name}: {row.label}" for name, row in PARAMETERIZATIONS.items())
    + f".  [default: {DEFAULT_PARAMETERIZATION}]",
)
@click.option(
    "--agent",
    envvar="WN_DQN_AGENT",
    show_envvar=True,
    help="; ".join(f"{name}: {row.label}" for name, row in AGENTS.items())
    + ". More differences from DQN are settings.  [default: dqn]",
)
@click.option(
    "--init",
    envvar="WN_DQN_INIT",
    show_envvar=True,
    help="Initialization: data (section 3 of the paper), torch (uniform, torch's default), nature (He's) or glorot. "
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
    help="The seed of all random numbers.  [default: 0]",
)
@click.option(
    "--steps",
    type=Count(),
    envvar="WN_DQN_STEPS",
    show_envvar=True,
    help="Agent steps to train for (4 frames each, summed over all environments).  [default: 50,000,000]",
)
@click.option(
    "--num-envs",
    type=Count(),
    envvar="WN_DQN_NUM_ENVS",
    show_envvar=True,
    help="Games played in lockstep. The number is part of the experiment: it changes results.  [default: 8]",
)
@click.option(
    "--precision",
    envvar="WN_DQN_PRECISION",
    show_envvar=True,
    help="Precision of matrix products and convolutions: float32, tf32 (on a GPU) or bf16.  [default: float32]",
)
@click.option(
    "--save-replay/--no-save-replay",
    default=None,
    envvar="WN_DQN_SAVE_REPLAY",
    show_envvar=True,
    help=(
        "Save the replay with each checkpoint: 0.26 GB for a million transitions of Space Invaders. Without it, a run "
        "cannot be resumed exactly. The resumed run starts with an empty replay, fills it for learning.start_steps "
        "without learning, and has other results than a run that never stopped.  [default: save]"
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
    help="auto: resume an unfinished run in the folder; never: start a new run, which needs an empty folder.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Resume a run although settings differ from its checkpoint's, or rows of its tables were lost. The "
    "differences are recorded in provenance.json.",
)
@click.option("--verbose", is_flag=True, help="Print all settings first.")
@click.option(
    "--stop-after",
    metavar="DURATION",
    help="Save and stop after this time, like 90s, 30m or 2h; the same command resumes the run later.",
)
@click.option(
    "--track",
    "trackers",
    type=click.Choice(["wandb", "mlflow"]),
    multiple=True,
    help="Also send metrics to Weights & Biases or MLflow. Their own environment variables configure them. If they "
    "fail, the run continues without them.",
)
def train(
    config_name: str | None,
    assignments: tuple[str, ...],
    device: str,
    run_dir: Path | None,
    resume: str,
    accept_changes: bool,
    stop_after: str | None,
    verbose: bool,
    env_args: tuple[str, ...],
    plugins: tuple[str, ...],
    trackers: tuple[str, ...],
    **setting_options: Any,
) -> None:
    """Train an agent, or resume a run that was stopped.

    With --game alone this is the paper's protocol: 50,000,000 steps, days on a CPU. `--config quick` learns Kung Fu
    Master in about five minutes.
    """
    stop_after_s = None if stop_after is None else seconds(stop_after)
    with imports_uncollected():
        settings = _settings(config_name, assignments, env_args, plugins, setting_options)

        from wn_dqn import api
        from wn_dqn.cli.signals import stopping_on_signals
        from wn_dqn.config.trust import require_trust
        from wn_dqn.runs.stop_request import StopRequest

    if verbose:
        from wn_dqn.config.files import dump_yaml
        from wn_dqn.system.progress import ProgressReporter

        ProgressReporter().message(dump_yaml(settings.model_dump()).rstrip())
    require_trust(settings, [name for name in map(setting_options.get, ("env", "game")) if name is not None])
    stop = StopRequest(stop_after_s)
    with stopping_on_signals(stop):
        api.train(
            settings,
            run_dir=run_dir,
            callbacks=_callbacks(trackers),
            device=device,
            resume=resume == "auto",
            accept_changes=accept_changes,
            stop=stop,
        )
    sys.exit(stop.exit_status)


def _callbacks(trackers: tuple[str, ...]) -> list[Callback]:
    """The trackers of these names. Raises UsageError if one is not installed."""
    if not trackers:
        return []
    from wn_dqn.interop.trackers import MLflowTracker, WandbTracker

    kinds: dict[str, type[Callback]] = {"wandb": WandbTracker, "mlflow": MLflowTracker}
    return [kinds[name]() for name in dict.fromkeys(trackers)]


def _settings(
    config_name: str | None,
    assignments: tuple[str, ...],
    env_args: tuple[str, ...],
    plugins: tuple[str, ...],
    options: dict[str, Any],
) -> Settings:
    """The settings of a command line. Precedence: option, environment variable, --config, default."""
    from wn_dqn.config.files import make_settings, merge, nested, parse_assignment, read_config
    from wn_dqn.config.plugins import plugins_of

    _require_one_game(options)
    by_variable: list[dict[str, Any]] = []
    by_option: list[dict[str, Any]] = []
    for name, value in options.items():
        if value is not None:
            source = click.get_current_context().get_parameter_source(name)
            layer = by_variable if source is ParameterSource.ENVIRONMENT else by_option
            layer.append(nested(_SETTING_OF_OPTION.get(name, name), value))
    config = read_config(config_name) if config_name else {}
    if plugins:
        by_option.append({"plugins": list(dict.fromkeys([*plugins_of(config), *plugins]))})
    if env_args:
        by_option.append(nested("environment.args", environment_arguments(env_args)))
    return make_settings(merge([config, *by_variable, *map(parse_assignment, assignments), *by_option]))


def _require_one_game(options: dict[str, Any]) -> None:
    """Raise UsageError if the command line names a game and an environment.

    An option has precedence over the environment variable of the other one.
    """
    given = [name for name in ("game", "env") if options.get(name) is not None]
    source = click.get_current_context().get_parameter_source
    by_option = [name for name in given if source(name) is not ParameterSource.ENVIRONMENT]
    if len(by_option) == 2 or (len(given) == 2 and not by_option):
        raise UsageError("--game and --env exclude each other: give one of them")
    if options.get("env") is not None and ":" not in options["env"]:
        raise UsageError(f"--env {options['env']} is not an environment; for a game: --game {options['env']}")
