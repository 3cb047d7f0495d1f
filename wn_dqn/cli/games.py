"""Commands that play games with trained networks: evaluate, play."""

from __future__ import annotations

import itertools
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from wn_dqn.analysis.published import PAPER_COLUMNS, human_normalized, published_scores
from wn_dqn.cli.options import CHECKPOINT, DEVICE, protocol_options
from wn_dqn.config.games import find_game
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import EvaluationProtocol, changed_protocol
from wn_dqn.render.play import open_window
from wn_dqn.render.saliency import Method
from wn_dqn.render.video import FRAMES_PER_S, find_encoder, write_video
from wn_dqn.runs.film import watch
from wn_dqn.runs.policy import load_policy
from wn_dqn.runs.reevaluation import Report, append_to_run, checkpoint_paths, evaluate_checkpoints, evaluate_policy
from wn_dqn.system.hardware import find_device, num_cores
from wn_dqn.system.progress import ProgressReporter


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
@CHECKPOINT
@click.option("--all", "all_of_a_run", is_flag=True, help="Test every checkpoint of each run.")
@protocol_options("paper")
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
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    runs: tuple[Path, ...],
    checkpoint: str,
    all_of_a_run: bool,
    protocol: EvaluationProtocol,
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
        game = find_game(random_game)
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
        printed = [_with_published(report) for report in reports]
        click.echo(json.dumps(printed[0] if len(printed) == 1 else printed, indent=2))
    elif len(reports) == 1:
        _print_evaluation(reports[0])
    else:
        _print_evaluations(reports)


def _with_published(report: Report) -> dict[str, Any]:
    """The outcome and, before its long list of scores, what has been published about the game."""
    outcome, game = report.as_json(), report.game.name
    scores, mean = outcome.pop("scores"), outcome["mean_return"]
    outcome["human_normalized"] = None if mean is None else human_normalized(game, mean)
    outcome["paper"] = published_scores(game).paper or None
    return {**outcome, "scores": scores}


def _print_evaluation(report: Report) -> None:
    figures, game = _with_published(report), report.game
    click.echo(f"{game.name}: {figures['policy']}, protocol {report.protocol.name}")
    table = Table()
    row = {
        name: f"{report.result.metrics()[f'{name}_return']:,.1f}" for name in ("mean", "median", "std", "min", "max")
    }
    row["games"] = f"{len(report.result.games)}"
    if figures["human_normalized"] is not None:
        row["human-normalized"] = f"{figures['human_normalized']:.1%}"
    for column, score in (figures["paper"] or {}).items():
        row[f"paper: {PAPER_COLUMNS[column]}"] = f"{score:,.0f}"
    for name in row:
        table.add_column(name, justify="right")
    table.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if figures["truncated_games"]:
        click.echo(
            f"{figures['truncated_games']} of these games were cut before their end and count with the score they had."
        )
    if report.result.unfinished_games:
        click.echo("One more game was in progress when the steps were used up; it does not count.")
    if figures["paper"] is not None:
        click.echo("The paper's figures are maxima over 200 epochs, not fresh games of one network.")


def _print_evaluations(reports: list[Report]) -> None:
    click.echo(f"protocol {reports[0].protocol.name}, seed {reports[0].seed}")
    table = Table("game", "checkpoint")
    for name in ("step", "mean", "median", "std", "min", "max", "games"):
        table.add_column(name, justify="right")
    for report in reports:
        figures = report.result.metrics()
        scores = (f"{figures[f'{name}_return']:,.1f}" for name in ("mean", "median", "std", "min", "max"))
        table.add_row(
            report.game.name, str(report.checkpoint), f"{report.trained_steps:,}", *scores, f"{figures['games']}"
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@click.command()
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
@CHECKPOINT
@protocol_options("nature")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the games.")
@DEVICE
def play(
    run: Path,
    output: Path | None,
    show: bool,
    episodes: int,
    max_frames: int | None,
    saliency: Method | None,
    checkpoint: str,
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
    if output is not None:
        find_encoder(output)
    window = open_window("wn-dqn") if show else None
    policy, reporter = load_policy(run, checkpoint, find_device(device)), ProgressReporter()
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
