"""The ``wn-dqn`` command: arguments -> settings -> train, evaluate, games, doctor."""

from __future__ import annotations

import functools
import itertools
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

from wn_dqn import __version__, launch, output_file, plotting, results
from wn_dqn.atari.games import all_games
from wn_dqn.checkpoint import CheckpointError, best_checkpoint, list_checkpoints
from wn_dqn.config import (
    make_settings,
    merge,
    named_configs,
    nested,
    parse_assignment,
    read_config,
    setting_help,
)
from wn_dqn.curves import X_AXES
from wn_dqn.doctor import examine
from wn_dqn.errors import RunError, UsageError
from wn_dqn.evaluation import PROTOCOLS, Protocol, changed_protocol, find_protocol
from wn_dqn.export import Format, require_onnx
from wn_dqn.export import export as export_network
from wn_dqn.machine import find_device, num_cores
from wn_dqn.model_card import write_card
from wn_dqn.nature_weights import read_weights
from wn_dqn.play import open_window
from wn_dqn.progress import ProgressReporter
from wn_dqn.reevaluation import (
    Report,
    append_to_run,
    checkpoint_paths,
    evaluate_checkpoints,
    evaluate_policy,
    read_records,
)
from wn_dqn.report import make_report
from wn_dqn.run_directory import RunDirectory
from wn_dqn.saliency import Method
from wn_dqn.statistics import AGGREGATES
from wn_dqn.video import FRAMES_PER_S, find_encoder, write_video
from wn_dqn.watching import watch

_DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="WN_DQN_DEVICE",
    show_envvar=True,
    help="Where the network and the replay live: auto (a GPU if there is one), cpu, cuda, cuda:0, ...",
)

_SETTING_OF_OPTION = {
    "init": "network.init",
    "steps": "learning.total_steps",
    "num_envs": "environment.num_envs",
    "precision": "learning.precision",
    "save_replay": "output.save_replay",
}


_CHECKPOINT = click.option(
    "--checkpoint", default="best", show_default=True, metavar="best|last|STEPS", help="Which checkpoint of a run."
)


def _protocol_options(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--protocol`` and what changes it; the command gets one `protocol`."""
    options = (
        click.option(
            "--protocol",
            "protocol_name",
            default=default,
            show_default=True,
            metavar="|".join([*PROTOCOLS, "FILE.yaml"]),
            help="The rules: one of these names, or a YAML file with the fields of a protocol, like `epsilon: 0.01`.",
        ),
        click.option(
            "--epsilon", type=click.FloatRange(0, 1), help="Change the protocol: the share of random actions."
        ),
        click.option("--sticky", type=click.FloatRange(0, 1), help="Change it: the probability of sticky actions."),
        click.option(
            "--noops", type=click.IntRange(0, 1000), help="Change it: at most so many no-op frames at a start."
        ),
        click.option(
            "--time-limit", metavar="DURATION|none", help="Change it: cut games after 90s or 5m of play, or never."
        ),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(
            *,
            protocol_name: str,
            epsilon: float | None,
            sticky: float | None,
            noops: int | None,
            time_limit: str | None,
            **others: Any,
        ) -> None:
            named = {"epsilon": epsilon, "repeat_action_probability": sticky, "max_noop_frames": noops}
            changes: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
            if time_limit is not None:
                frames = None if time_limit == "none" else max(round(_seconds(time_limit) * FRAMES_PER_S), 1)
                changes["max_game_frames"] = frames
            command(protocol=changed_protocol(find_protocol(protocol_name), **changes), **others)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="wn-dqn")
def cli() -> None:
    """DQN for Atari with standard or weight-normalized layers (Salimans & Kingma, 2016).

    \b
    wn-dqn train --config quick                          learn a game in ten minutes on two CPU cores
    wn-dqn train --game SpaceInvaders --param wn         the paper's experiment
    wn-dqn evaluate runs/SpaceInvaders-wn-seed0          test the best network of a run
    tensorboard --logdir runs                            watch

    Completion of commands and options for your shell: eval "$(_WN_DQN_COMPLETE=bash_source wn-dqn)", or
    zsh_source, fish_source.
    """


@cli.command(
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
        "Save the replay with each checkpoint: about 2 GB for a million transitions. Without it exact resume is lost: "
        "a run that goes on begins with an empty replay, plays learning.start_steps without learning to fill it, and "
        "ends elsewhere than one that never stopped.  [default: save]"
    ),
)
@_DEVICE
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
    data = merge([config, *variables, *map(parse_assignment, assignments), *options])
    if isinstance(data.get("game"), str):
        data["game"] = launch.find_any_game(data["game"]).name
    settings = make_settings(data)
    agent = "" if settings.agent == "dqn" else f"-{settings.agent}"
    folder = run_dir or Path("runs") / f"{settings.game}-{settings.param}{agent}-seed{settings.seed}"
    stop_after_s = None if stop_after is None else _seconds(stop_after)
    sys.exit(
        launch.train_run(
            settings,
            folder,
            find_device(device),
            ProgressReporter(),
            resume=resume == "auto",
            stop_after_s=stop_after_s,
        )
    )


@cli.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
@_CHECKPOINT
@click.option("--all", "all_of_a_run", is_flag=True, help="Test every checkpoint of each run.")
@_protocol_options("paper")
@click.option("--games", type=click.IntRange(1, 10**6), help="Play so many games, instead of the protocol's length.")
@click.option(
    "--random", "random_game", metavar="GAME", help="Test a uniformly random policy on this game instead of a run."
)
@click.option(
    "--num-envs",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Games played at once; which games count does not depend on it.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the test.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    help="Checkpoints tested at the same time, in processes of their own; no result depends on it.  [default: "
    "one per core, 1 on a GPU]",
)
@_DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    runs: tuple[Path, ...],
    checkpoint: str,
    all_of_a_run: bool,
    protocol: Protocol,
    games: int | None,
    random_game: str | None,
    num_envs: int,
    seed: int,
    jobs: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Test the agents in RUN...: run directories, or checkpoints.

    \b
    paper        epsilon 0.05, games completed in 125,000 steps, no time limit (Salimans & Kingma 2016)
    nature       epsilon 0.05, 30 games of at most 5 minutes (Mnih et al. 2015)
    machado2018  epsilon 0.01, 100 games of at most 5 minutes, sticky actions 0.25, all 18 actions

    The best checkpoint of a run was chosen for its score after an epoch; what is printed here comes from new games.
    Each outcome is appended to reevaluations.jsonl in its run.
    """
    if bool(runs) == (random_game is not None):
        raise UsageError("give a run directory or checkpoint, or --random GAME")
    if games is not None:
        protocol = changed_protocol(protocol, steps=None, games=games)
    torch_device, reporter = find_device(device), ProgressReporter()
    if random_game is not None:
        game = launch.find_any_game(random_game)
        reports = [evaluate_policy(None, game, protocol, num_envs, seed, reporter)]
    else:
        paths = checkpoint_paths(runs, checkpoint, all_of_a_run=all_of_a_run)
        jobs = jobs or (1 if torch_device.type == "cuda" else num_cores())

        def keep(report: Report) -> None:
            problem = append_to_run(report)
            if problem is not None:
                reporter.message(problem)

        reports = evaluate_checkpoints(paths, protocol, num_envs, seed, torch_device, jobs, reporter, keep)
    if as_json:
        printed = [report.as_json() for report in reports]
        click.echo(json.dumps(printed[0] if len(printed) == 1 else printed, indent=2))
    elif len(reports) == 1:
        _print_evaluation(reports[0])
    else:
        _print_evaluations(reports)


def _print_evaluation(report: Report) -> None:
    figures, game = report.as_json(), report.game
    click.echo(f"{game.name}: {figures['policy']}, protocol {report.protocol.name}")
    table = Table()
    row = {
        name: f"{report.result.figures()[f'{name}_return']:,.1f}" for name in ("mean", "median", "std", "min", "max")
    }
    row["games"] = f"{len(report.result.games)}"
    if figures["human_normalized"] is not None:
        row["human-normalized"] = f"{figures['human_normalized']:.1%}"
    if game.paper is not None:
        for name, score in (
            ("standard", game.paper.standard),
            ("wn", game.paper.wn),
            ("Mnih 2015", game.paper.mnih2015),
        ):
            row[f"paper: {name}"] = f"{score:,.0f}"
    for name in row:
        table.add_column(name, justify="right")
    table.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if figures["cut_games"]:
        click.echo(
            f"{figures['cut_games']} of these games were cut before their end and count with the score they had."
        )
    if report.result.unfinished_games:
        click.echo("One more game was in progress when the steps were used up; it does not count.")
    if game.paper is not None:
        click.echo("The paper's figures are maxima over 200 epochs, not fresh games of one network.")


def _print_evaluations(reports: list[Report]) -> None:
    click.echo(f"protocol {reports[0].protocol.name}, seed {reports[0].seed}")
    table = Table("game", "checkpoint")
    for name in ("step", "mean", "median", "std", "min", "max", "games"):
        table.add_column(name, justify="right")
    for report in reports:
        figures = report.result.figures()
        scores = (f"{figures[f'{name}_return']:,.1f}" for name in ("mean", "median", "std", "min", "max"))
        table.add_row(
            report.game.name, str(report.checkpoint), f"{report.trained_steps:,}", *scores, f"{figures['games']}"
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def games(as_json: bool) -> None:
    """List the games that can be trained, with published scores."""
    catalogue = all_games().values()
    if as_json:
        rows = [vars(game) | {"paper": game.paper and vars(game.paper)} for game in catalogue]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("game", "random", "human", "paper: standard", "paper: wn")
    for column in table.columns[1:]:
        column.justify = "right"
    for game in catalogue:
        paper = (game.paper.standard, game.paper.wn) if game.paper else (None, None)
        table.add_row(
            game.name, *("" if score is None else f"{score:,.1f}" for score in (game.random, game.human, *paper))
        )
    Console().print(table)
    click.echo(f"{len(all_games())} games, and Catch, a small one for trying things out.")


@cli.group()
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
            launch.verify_checkpoint(directory, path, resumable=resumable)
            click.echo(f"{path.name}  whole" + ("" if resumable else ", kept for tests without its replay"))
        except CheckpointError as error:
            damaged += 1
            click.echo(f"{path.name}  {error}")
    if damaged:
        raise RunError(f"{damaged} of the checkpoints in {run} are damaged")


@cli.command()
def settings() -> None:
    """List every setting with its default, for --set and config files."""
    for key, default, text in setting_help():
        click.echo(f"{key} = {default}\n    {text}")


@cli.command()
@_DEVICE
def doctor(device: str) -> None:
    """Say what this machine has, what a training would use, and how fast it is."""
    for line in examine(find_device(device)):
        click.echo(line)


@cli.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.png|svg|pdf",
    help="The figure; an older figure of that name is overwritten, nothing else ever.",
)
@click.option(
    "--metric",
    default="mean_return",
    show_default=True,
    help="A column of evaluations.csv or metrics.csv, like held_out_max_q or train/loss.",
)
@click.option(
    "--x",
    "x_axis",
    type=click.Choice(X_AXES),
    default="epochs",
    show_default=True,
    help="What the x axis counts; hours are hours of training, evaluations not counted.",
)
@click.option(
    "--statistic",
    type=click.Choice(list(AGGREGATES)),
    default="mean",
    show_default=True,
    help="What the line is, over seeds; iqm, the interquartile mean, is blind to the best and the worst quarter.",
)
@click.option(
    "--smooth",
    "smoothing",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Draw the mean of the last so many values of each run; the label says so.",
)
@click.option(
    "--levels",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Published scores as lines: those in range, all of them, or none.",
)
@click.option("--each-run", is_flag=True, help="Draw a thin line for each seed as well.")
def plot(runs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Draw the learning curves of RUN...: run directories, or folders of them.

    One panel per game, one line per parameterization (and per other setting that differs), with a band of 95%
    confidence from the stratified bootstrap over seeds, where there are two or more.

    \b
    wn-dqn plot runs -o curves.png
    wn-dqn plot runs/SpaceInvaders-* -o figure5.pdf --smooth 5 --statistic iqm --levels all
    """
    file_format = output_file.require_writable(output, plotting.FORMATS)
    groups, _ = _read_groups(runs)
    figure, notes = plotting.learning_curves(groups, **options)
    _tell(notes)
    output_file.write(output, plotting.figure_bytes(figure, file_format))
    click.echo(f"{output}: {sum(len(group.runs) for group in groups)} runs")


@cli.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The report; an older report of that name is overwritten, nothing else ever.",
)
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="What an hour of the machine costs.")
def report(runs: tuple[Path, ...], output: Path, price_per_hour: float | None) -> None:
    """Write a report about RUN...: run directories, or folders of them.

    One HTML file that needs no other and no network: scores beside the paper's, with fresh games of the best networks
    where `wn-dqn evaluate` was run; human-normalized scores, IQM, probability of improvement; all curves; settings,
    provenance, time and cost; and what was not run or not finished.

    \b
    wn-dqn report runs
    wn-dqn report runs -o figure6.html --price-per-hour 0.35
    """
    output_file.require_writable(output, ["html"])
    groups, problems = _read_groups(runs)
    output_file.write(output, make_report(groups, problems, ProgressReporter(), price_per_hour))
    click.echo(f"{output}: {sum(len(group.runs) for group in groups)} runs")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
def card(run: Path) -> None:
    """Write the model card of RUN anew, with a picture of its curve: model_card.md and curve.png.

    A run that finishes writes its card by itself; this brings in what `wn-dqn evaluate` has found since.
    """
    click.echo(f"{write_card(run)}")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The video: a name ending in .webm, .mp4 or .gif."
)
@click.option("--show", is_flag=True, help="Open a window and watch; q ends it.")
@click.option("--episodes", type=click.IntRange(1, 1000), default=1, show_default=True, help="Games to play.")
@click.option(
    "--max-frames",
    type=click.IntRange(1, 10**7),
    help="End the video after so many frames, 60 a second.  [default: no end; 3,600 for a GIF]",
)
@click.option(
    "--saliency",
    type=click.Choice(["gradient", "guided"]),
    help="Let the pixels glow that the Q-value comes from: gradient times input, or guided backpropagation.",
)
@_CHECKPOINT
@_protocol_options("nature")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the games.")
@_DEVICE
def play(
    run: Path,
    output: Path | None,
    show: bool,
    episodes: int,
    max_frames: int | None,
    saliency: Method | None,
    checkpoint: str,
    protocol: Protocol,
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
    if output is not None:
        find_encoder(output)
    window = open_window("wn-dqn") if show else None
    policy, reporter = launch.load_policy(run, checkpoint, find_device(device)), ProgressReporter()
    if max_frames is None and output is not None and output.suffix.lower() == ".gif":
        max_frames = 60 * FRAMES_PER_S
        reporter.message("a GIF ends after a minute; --max-frames changes that")
    frames = watch(policy, protocol, episodes, seed, saliency, reporter)
    shown = itertools.takewhile(window, frames) if window is not None else frames
    cut = itertools.islice(shown, max_frames)
    if output is None:
        deque(cut, maxlen=0)
    else:
        written = write_video(output, cut)
        click.echo(f"{output}: {written:,} frames, {written / FRAMES_PER_S:.1f} seconds")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "safetensors"]),
    help="What to write.  [default: what the name of the file ends in]",
)
@_CHECKPOINT
def export(run: Path, output: Path, format_: Format | None, checkpoint: str) -> None:
    """Write the network of RUN, a run directory or a checkpoint, for other programs.

    Weight normalization is folded: what is written are plain weights. Beside FILE comes FILE.json, which says what
    goes in and what comes out, what the actions mean, and how well it played (`wn-dqn evaluate` first).
    """
    if format_ is None:
        if output.suffix not in (".onnx", ".safetensors"):
            raise UsageError(f"{output} ends in neither .onnx nor .safetensors: give --format")
        format_ = "onnx" if output.suffix == ".onnx" else "safetensors"
    if format_ == "onnx":
        require_onnx()
    policy = launch.load_policy(run, checkpoint, find_device("cpu"))
    contract = export_network(policy, output, format_, read_records(policy.path))
    click.echo(f"{output} and {contract.name}: {policy.settings.game}, {policy.settings.param}, step {policy.steps:,}")


@cli.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run to begin.")
@click.option("--game", help="The game that the network was trained on.")
@click.option("--param", help="Parameterization to put it in: wn (g = ||w||, v = w) or standard.  [default: wn]")
@click.option("--config", "config_name", metavar="NAME|FILE", help="Settings of the run, as for `wn-dqn train`.")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Any setting, as for `wn-dqn train`.")
@click.option("--seed", type=int, help="Seed of the run.  [default: 0]")
def import_(
    file: Path,
    output: Path,
    game: str | None,
    param: str | None,
    config_name: str | None,
    assignments: tuple[str, ...],
    seed: int | None,
) -> None:
    """Begin a run with the Q-network in FILE, of Stable-Baselines3, CleanRL or `wn-dqn export`.

    FILE is a .zip that Stable-Baselines3 saved, or a state_dict: .safetensors, .pt, .pth, .cleanrl_model. Nothing but
    tensors is ever loaded. `evaluate`, `play` and `export` read the new run; `train` goes on from it, with random
    play first unless --set exploration.initial=0.1 says less.
    """
    options = {"game": game, "param": param, "seed": seed}
    given = {key: value for key, value in options.items() if value is not None}
    network = read_weights(file)
    data = merge([read_config(config_name) if config_name else {}, *map(parse_assignment, assignments), given])
    settings = launch.settings_for_network(data, network)
    path = launch.import_run(settings, output, network, find_device("cpu"))
    click.echo(f"{path}\nTo go on: wn-dqn train --config {output}/config.yaml --run-dir {output}")


def _read_groups(paths: tuple[Path, ...]) -> tuple[list[results.Group], list[str]]:
    """The runs that can be read, and a line for each of the others, which is told, too. UsageError if none can."""
    runs, unreadable = results.read_runs(paths)
    groups, repeated = results.group_runs(runs)
    if not groups:
        raise UsageError("\n".join(unreadable))
    _tell([*unreadable, *repeated])
    return groups, [*unreadable, *repeated]


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"wn-dqn: {note}", err=True)


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration.strip())
    if match is None:
        raise UsageError(f"{duration!r} is not a duration; like 90s, 30m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def main() -> None:
    """Run the command; mistakes are one line and an exit status, never a traceback."""
    try:
        status = cli.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"wn-dqn: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except UsageError as error:
        click.echo(f"wn-dqn: {error}", err=True)
        sys.exit(2)
    except RunError as error:
        click.echo(f"wn-dqn: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # a disk that is full or gone, past what a run can bear
        click.echo(f"wn-dqn: {error}; what was saved before is intact", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
