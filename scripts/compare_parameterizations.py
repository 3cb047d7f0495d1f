"""Trains every parameterization on one game from identical starts, and draws one figure of their learning curves.

    python scripts/compare_parameterizations.py                                  # Catch: some minutes
    python scripts/compare_parameterizations.py --params wn,standard --seeds 5 --jobs 2
    python scripts/compare_parameterizations.py --config quick -o runs/comparison-quick

First it shows that the starts are identical: for each seed, the largest difference between the Q-values of any two
networks on the batch that initializes them. Then come the runs, one after the other or --jobs at once, each in a
process with one thread of torch; finished ones are skipped and stopped ones go on, so the same command can be given
again after Ctrl-C. At the end: scores with their seeds, and OUTPUT/curves.svg.
"""

from __future__ import annotations

import contextlib
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
"""Q-values begin with variance 1, so this is rounding."""
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
    """Explores as every agent does before it learns, and stops there, keeping the batch."""

    obs: Tensor | None = None

    def initialize(self, obs: Tensor) -> dict[str, int]:
        self.obs = obs
        raise Stop


class _NoHost:
    """Tests change nothing of a run, so one that comes before learning need not be played."""

    def evaluate(self, _steps: int) -> Evaluation:
        return Evaluation((GameResult(0.0, 1, finished=True),), 0)

    def save(self, *_args: object) -> None: ...
    def on_initialized(self, _counts: object) -> None: ...
    def after_step(self, _state: object) -> None: ...
    def check_stop(self) -> None: ...


def largest_difference(arms: Sequence[Settings]) -> float:
    """Between the Q-values of any two arms, each initialized from the batch that their runs come upon."""
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
    q = []
    for each in arms:
        agent = make_agent(each, env.spec, CPU)
        agent.initialize(explorer.obs)
        q.append(agent.q_values(explorer.obs))
    values = torch.stack(q)
    return (values.amax(dim=0) - values.amin(dim=0)).max().item()


def check_starts(arms: dict[int, list[Settings]], reporter: ProgressReporter) -> None:
    """Tell how equal the starts are; UsageError if the arms of a seed do not start as the same function."""
    for seed, settings in arms.items():
        reporter.message(f"seed {seed}: playing up to the initialization")
        difference = largest_difference(settings)
        print(f"seed {seed}: Q-values of {len(settings)} networks differ by at most {difference:.1e} on the init batch")
        if difference > LARGEST_DIFFERENCE:
            raise UsageError(f"that is more than rounding ({LARGEST_DIFFERENCE:g}): the starts are not identical")


def train_all(arms: dict[Path, Settings], jobs: int, reporter: ProgressReporter) -> None:
    """A process for each run directory, `jobs` at once; RunError, once all have ended, if one failed."""

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
        except KeyboardInterrupt:  # the runs got the signal, too, and save
            pool.shutdown(cancel_futures=True)
            raise
    if not all(succeeded):
        raise RunError(f"{succeeded.count(False)} of {len(succeeded)} runs failed; the same command goes on")


def print_scores(groups: Sequence[Group]) -> None:
    """A row per parameterization: every seed, the mean, and what so few seeds say about it."""
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
    print("seeds is too narrow: parameterizations whose intervals overlap are not told apart by these runs.")


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
    show_default=True, help="folder of the runs and the figure",
)  # fmt: skip
def main(
    params: str, seeds: int, config: str | None, game: str | None, steps: int | None,
    assignments: tuple[str, ...], jobs: int, output: Path,
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    reporter = ProgressReporter()
    layers = [CATCH if config is None else read_config(config)]
    layers += [{"game": game}] if game else []
    layers += [{"learning": {"total_steps": steps}}] if steps else []
    layers += [parse_assignment(assignment) for assignment in assignments]
    arms = {
        seed: [make_settings(merge([*layers, {"param": param, "seed": seed}])) for param in params.split(",")]
        for seed in range(seeds)
    }
    output.mkdir(parents=True, exist_ok=True)
    figure_path = output / "curves.svg"
    file_format = output_file.require_writable(figure_path, FIGURE_FORMATS)
    check_starts(arms, reporter)
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
