"""Trains every parameterization on one game from identical starts, and plots their learning curves.

    python scripts/compare_parameterizations.py                                  # Catch: some minutes
    python scripts/compare_parameterizations.py --params wn,standard --seeds 5 --jobs 2
    python scripts/compare_parameterizations.py --config quick -o runs/comparison-quick

First it verifies that the starts are identical. For each seed, it prints the largest difference between the Q-values of
any two networks on 512 states of random play. Layer normalization computes another function from the same weights; its
difference from the others is printed. OUTPUT/starts.json has all differences. If `ws` is among the parameterizations,
all use centred directions (network.init_centred).

Then it trains the runs, one after the other or --jobs at once. Each is a process with one thread of torch. Finished
runs are skipped and stopped ones are resumed, so the same command can be given again after Ctrl-C. At the end, it
prints the scores by seed, and writes OUTPUT/curves.svg.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from wn_dqn.analysis import plotting, scores
from wn_dqn.analysis.choices import FIGURE_FORMATS
from wn_dqn.analysis.read_runs import Group, group_runs, read_runs
from wn_dqn.config.files import dump_yaml, make_settings, merge, parse_assignment, read_config
from wn_dqn.config.games import find_game
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import make_env
from wn_dqn.envs.rules import training_rules
from wn_dqn.errors import RunError, UsageError
from wn_dqn.evaluation.rollout import Evaluation, GameResult
from wn_dqn.runs.parts import make_agent, make_plan, make_sampler
from wn_dqn.system import output_file
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.host import Stop
from wn_dqn.training.loop import train
from wn_dqn.training.metrics import NullMetrics
from wn_dqn.training.state import new_state
from wn_dqn_agents.dqn import DQN

CPU = torch.device("cpu")
LARGEST_DIFFERENCE = 1e-4
"""tolerance for rounding; the initial Q-values have variance 1"""
STATES = 512
"""number of states of random play on which starts are compared"""
# After the settings with which the tests solve Catch.
CATCH: dict[str, Any] = {
    "game": "Catch",
    "replay": {"capacity": 5000},
    "network": {"init_batch_size": 256},
    "learning": {"total_steps": 5000, "start_steps": 400, "batch_size": 32, "target_period_steps": 100},
    "optimizer": {"learning_rate": 1e-3},
    "exploration": {"final": 0.05, "decay_steps": 1500},
    "evaluation": {"epoch_steps": 500, "steps": 600, "held_out_states": 256},
    "output": {"log_period_steps": 500, "checkpoint_period_steps": 5000},
}


class _UntilInitialization(DQN):
    """Explores as every agent does before it learns. It stops at the initialization, and keeps that batch."""

    obs: Tensor | None = None

    def initialize(self, obs: Tensor) -> dict[str, int]:
        self.obs = obs
        raise Stop


class _NoHost:
    """A host without evaluations. They do not change a run, so those before learning are not needed."""

    def evaluate(self, _steps: int) -> Evaluation:
        return Evaluation((GameResult(0.0, 1, finished=True),), 0)

    def save(self, *_args: object) -> None: ...
    def on_initialized(self, _counts: object) -> None: ...
    def after_step(self, _state: object) -> None: ...
    def check_stop(self) -> None: ...


def start_differences(arms: Sequence[Settings]) -> dict[str, float]:
    """The largest difference of each arm's Q-values from those of the first arm with a common start.

    Each arm is initialized from the batch of its own run. Raises UsageError if no arm has a common start.
    """
    common = [each for each in arms if PARAMETERIZATIONS[each.param].start != "own"]
    if not common:
        raise UsageError("starts are compared with one that others have: name standard among the parameterizations")
    settings = arms[0]
    num_envs = settings.environment.num_envs
    env = make_env(find_game(settings.game), num_envs, training_rules(settings.environment))
    plan, sampler = make_plan(settings), make_sampler(settings, env.spec, CPU)
    explorer: Any = make_agent(settings, env.spec, CPU, _UntilInitialization)
    with contextlib.suppress(Stop):
        state = new_state(env.spec, num_envs, plan)
        train(plan, env, explorer, sampler, NullMetrics(), _NoHost(), state)
    if explorer.obs is None:
        raise UsageError("these runs never begin to learn: learning.total_steps must exceed learning.start_steps")
    (states,) = sampler.replay.sample(np.random.default_rng(settings.seed), STATES)
    q = {}
    for each in (common[0], *arms):
        agent = make_agent(each, env.spec, CPU)
        agent.initialize(explorer.obs)
        agent.online.double()  # compare the functions without the rounding of float32 sums
        q[each.param] = agent.q_values(states.obs)
    first = q[common[0].param]
    return {param: (values - first).abs().max().item() for param, values in q.items()}


def check_starts(arms: dict[int, list[Settings]], reporter: ProgressReporter) -> dict[int, dict[str, float]]:
    """Print the differences of the starts. Raises UsageError if arms with a common start differ."""
    found = {}
    for seed, settings in arms.items():
        reporter.message(f"seed {seed}: playing up to the initialization")
        differences = found[seed] = start_differences(settings)
        own = {param: value for param, value in differences.items() if PARAMETERIZATIONS[param].start == "own"}
        common = {param: value for param, value in differences.items() if param not in own}
        largest = max(common.values())
        print(f"seed {seed}: Q-values of {len(common)} networks differ by at most {largest:.1e} on {STATES} states")
        for param, value in own.items():
            print(f"seed {seed}: {param} starts as a different function: it differs by up to {value:.2f}")
        if largest > LARGEST_DIFFERENCE:
            param = max(common, key=lambda name: common[name])
            raise UsageError(f"that is more than rounding ({LARGEST_DIFFERENCE:g}): {param} starts as another function")
    return found


def train_all(arms: dict[Path, Settings], jobs: int, reporter: ProgressReporter) -> None:
    """Train each run directory in a process, `jobs` at once. Raises RunError at the end if one failed."""

    def run(folder: Path) -> bool:
        config, log = folder.with_suffix(".yaml"), folder.with_suffix(".log")
        config.write_bytes(dump_yaml(arms[folder].model_dump()).encode())
        reporter.message(f"{folder.name}: training, see {log}")
        command = [sys.executable, "-m", "wn_dqn", "train", "--config", str(config), "--run-dir", str(folder)]
        with log.open("ab") as output:
            process = subprocess.run(
                command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
            )
        reporter.message(f"{folder.name}: " + ("done" if process.returncode == 0 else f"failed, see {log}"))
        return process.returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        try:
            succeeded = list(pool.map(run, arms))
        except KeyboardInterrupt:  # the runs have received the signal, too, and save
            pool.shutdown(cancel_futures=True)
            raise
    if not all(succeeded):
        raise RunError(f"{succeeded.count(False)} of {len(succeeded)} runs failed; the same command goes on")


def print_scores(groups: Sequence[Group]) -> None:
    """Print a row per parameterization: the score of every seed, the mean, and its interval."""
    print(f"\n| parameterization | last {scores.LAST_EPOCHS} tests, by seed | mean (95% bootstrap) | best test |")
    print("|---|---|---|---|")
    for group in groups:
        last = np.array([scores.last_epochs(run) for run in group.runs])
        center, interval = scores.mean_and_interval(last)
        band = "one seed" if interval is None else f"{interval[0]:,.2f} to {interval[1]:,.2f}"
        by_seed = ", ".join(f"{value:,.2f}" for value in last)
        best = np.mean([scores.maximum(run) for run in group.runs])
        print(f"| `{group.param}` | {by_seed} | {center:,.2f} ({band}) | {best:,.2f} |")
    print(
        f"\nMeans over {len(groups[0].runs)} seeds. The best test is a maximum, and biased upward. An interval of few"
    )
    print("seeds is too narrow: these runs do not distinguish parameterizations whose intervals overlap.")


@click.command(help=__doc__)
@click.option("--params", default=",".join(PARAMETERIZATIONS), show_default=True)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="seeds 0, 1, ...")
@click.option("--config", help="a named config or a file, like quick  [default: Catch]")
@click.option("--game", help="another game than the config's")
@click.option("--steps", type=click.IntRange(1), help="another length than the config's")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="any setting, for all runs")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="runs at once")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/comparison"),
    show_default=True, help="folder of the runs and the plot",
)  # fmt: skip
def main(
    params: str, seeds: int, config: str | None, game: str | None, steps: int | None,
    assignments: tuple[str, ...], jobs: int, output: Path,
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    reporter = ProgressReporter()
    names = params.split(",")
    centred = [row for name, row in PARAMETERIZATIONS.items() if name in names and row.start == "centred"]
    layers = [{"network": {"init_centred": True}}] if centred else []
    layers += [CATCH if config is None else read_config(config)]
    layers += [{"game": game}] if game else []
    layers += [{"learning": {"total_steps": steps}}] if steps else []
    layers += [parse_assignment(assignment) for assignment in assignments]
    arms = {
        seed: [make_settings(merge([*layers, {"param": param, "seed": seed}])) for param in names]
        for seed in range(seeds)
    }
    output.mkdir(parents=True, exist_ok=True)
    figure_path = output / "curves.svg"
    file_format = output_file.require_writable(figure_path, FIGURE_FORMATS)
    starts = check_starts(arms, reporter)
    output_file.write(output / "starts.json", json.dumps(starts, indent=2).encode())
    folders = {
        output / f"{each.game}-{each.param}-seed{seed}": each for seed, settings in arms.items() for each in settings
    }
    train_all(folders, jobs, reporter)
    runs, problems = read_runs(folders)
    groups, more = group_runs(runs)
    figure, notes = plotting.learning_curves(groups, x_axis="steps", levels="none")
    for line in (*problems, *more, *notes):
        reporter.message(line)
    output_file.write(figure_path, plotting.figure_bytes(figure, file_format))
    print_scores(groups)
    print(f"\n{figure_path}")


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except (UsageError, RunError) as error:
        sys.exit(f"error: {error}")
