"""Tests whether trained agents beat a random policy: runs of one game with different seeds, against random play.

    python scripts/compare_with_random.py runs/RoadRunner-wn-seed{0,1,2}

Each run's checkpoint plays fresh games under one protocol, and a uniformly random policy plays as many. The test is
whether mean - standard error of the agents exceeds 5 times mean + standard error of the random policy. Means and
standard errors are over runs.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import click
import torch

from wn_dqn.config.games import find_game
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import PROTOCOLS
from wn_dqn.runs.policy import load_policy, play_games
from wn_dqn.system.progress import ProgressReporter


@click.command(help=__doc__)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", default="best", show_default=True, help="best, last, or steps")
@click.option("--protocol", "protocol_name", default="nature", show_default=True, type=click.Choice(list(PROTOCOLS)))
def main(runs: tuple[Path, ...], checkpoint: str, protocol_name: str) -> None:
    if len(runs) < 2:
        raise click.UsageError("a standard error needs two runs at least")
    protocol, reporter = PROTOCOLS[protocol_name], ProgressReporter()
    try:
        policies = [load_policy(run, checkpoint, torch.device("cpu")) for run in runs]
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    names = {policy.settings.game for policy in policies}
    if len(names) > 1:
        raise click.UsageError(f"these runs play different games: {', '.join(sorted(names))}")
    game = find_game(names.pop())
    trained, random = [], []
    print(f"{game.name}, protocol {protocol.name}, checkpoint {checkpoint}")
    for seed, (run, policy) in enumerate(zip(runs, policies, strict=True)):
        result = play_games(policy, game, protocol, 30, seed, reporter)
        trained.append(result.mean)
        print(
            f"{run}: step {policy.steps:,}, mean {result.mean:,.1f}, std {result.std:,.1f}, {len(result.games)} games"
        )
    for seed in range(len(runs)):
        result = play_games(None, game, protocol, 30, seed, reporter)
        random.append(result.mean)
        print(f"random policy: mean {result.mean:,.1f}, std {result.std:,.1f}, {len(result.games)} games")
    low = statistics.fmean(trained) - standard_error(trained)
    high = statistics.fmean(random) + standard_error(random)
    print(f"trained: {statistics.fmean(trained):,.1f} +- {standard_error(trained):,.1f} over {len(trained)} seeds")
    print(f"random:  {statistics.fmean(random):,.1f} +- {standard_error(random):,.1f} over {len(random)} seeds")
    print(f"{low:,.1f} {'>' if low > 5 * high else '<='} 5 x {high:,.1f}")


def standard_error(values: list[float]) -> float:
    """The standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


if __name__ == "__main__":
    main()
