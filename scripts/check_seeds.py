"""Tests whether a config learns with every seed: trains it with many seeds, and counts the runs that end well.

    python scripts/check_seeds.py                                        # quick, wn, seeds 0 to 9
    python scripts/check_seeds.py --seeds 0-2 --arithmetics native,MKL_CBWR=COMPATIBLE,ATEN_CPU_CAPABILITY=default
    python scripts/check_seeds.py --params wn,standard --jobs 2 -o runs/quick-seeds
    python scripts/check_seeds.py --config catch --bar 0.9 --set agent=c51 -o runs/catch-c51

A run ends well if its last evaluation is at least 3 times a random policy's, at least half of its best one, and above
its first. If a random policy's score is not positive, set the threshold for the last evaluation by --bar, like 0.9.

Each run is a process with --threads threads. Finished runs are kept and stopped ones are resumed, so the same command
can be given again after Ctrl-C. An arithmetic is an environment variable with which the libraries round sums
differently, as other processors do. At the end, a table of all evaluations is printed. The exit status is 1 unless nine
of ten runs with the first of --params ended well.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click

from wn_dqn.analysis.read_runs import read_evaluations
from wn_dqn.api import evaluate_random
from wn_dqn.config.files import make_settings, read_config
from wn_dqn.evaluation.protocols import training_protocol
from wn_dqn.system.text import score_text

NATIVE = "native"
SHARE = 0.9


class Cell(NamedTuple):
    param: str
    arithmetic: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.param}-{self.arithmetic.replace('=', '-')}-seed{self.seed}"


def numbers(text: str) -> list[int]:
    """0-3,7 as 0, 1, 2, 3, 7."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def train(cell: Cell, config: str, changes: Sequence[str], output: Path, threads: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if cell.arithmetic != NATIVE:
        name, _, value = cell.arithmetic.partition("=")
        environment[name] = value
    command = [sys.executable, "-m", "wn_dqn", "train", "--config", config, "--param", cell.param, "--device", "cpu"]
    command += ["--seed", str(cell.seed), "--run-dir", str(output / cell.folder)]
    command += [f"--set={change}" for change in changes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{cell.folder}: {done.stderr.strip().splitlines()[-1]}")
    print(f"{cell.folder} is done", file=sys.stderr, flush=True)


def random_score(config: str) -> float:
    """The mean of 100 games of a random policy, under the rules of the config's evaluations."""
    settings = make_settings(read_config(config))
    protocol = training_protocol(settings.environment, settings.evaluation)
    return evaluate_random(settings.game, protocol, games=100, num_envs=8).result.mean


def ended_well(scores: Sequence[float], bar: float) -> bool:
    return scores[-1] >= bar and scores[-1] >= 0.5 * max(scores) and scores[-1] > scores[0]


@click.command(help=__doc__)
@click.option("--config", default="quick", show_default=True, help="a config's name or file")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="a setting of all runs; may be repeated")
@click.option("--seeds", default="0-9", show_default=True, help="as 0-9 or 0,3,5")
@click.option("--params", default="wn", show_default=True, help="parameterizations; the first sets the exit status")
@click.option("--arithmetics", default=NATIVE, show_default=True, help="native, or NAME=VALUE of the environment")
@click.option("--jobs", default=1, show_default=True, help="runs at once")
@click.option("--threads", default=2, show_default=True, help="threads of each run")
@click.option("--bar", type=float, help="threshold for the last evaluation  [default: 3 times a random policy's]")
@click.option("-o", "--output", default="runs/quick-seeds", show_default=True, type=click.Path(path_type=Path))
def main(
    config: str,
    changes: tuple[str, ...],
    seeds: str,
    params: str,
    arithmetics: str,
    jobs: int,
    threads: int,
    bar: float | None,
    output: Path,
) -> None:
    chance = random_score(config)
    if bar is None and chance <= 0:
        raise click.ClickException(f"a random policy scores {chance:.2f}: set a threshold with --bar")
    bar = 3 * chance if bar is None else bar
    choices = itertools.product(params.split(","), arithmetics.split(","), numbers(seeds))
    cells = [Cell(*choice) for choice in choices]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda cell: train(cell, config, changes, output, threads), cells))
    trained = " ".join([config, *changes])
    print(f"{trained}; a random policy: {score_text(chance)} (100 games); the bar: {score_text(bar)}\n")
    print("| parameterization | arithmetic | seed | evaluations | last / best | minutes | ended well |")
    print("|---|---|---|---|---|---|---|")
    good: dict[Cell, bool] = {}
    for cell in cells:
        table = read_evaluations(output / cell.folder)
        scores = [float(score) for score in table["mean_return"]]
        good[cell] = ended_well(scores, bar)
        shown = ", ".join(map(score_text, scores))
        minutes = float(table["train_s"][-1]) / 60
        print(
            f"| {cell.param} | {cell.arithmetic} | {cell.seed} | {shown} "
            f"| {scores[-1] / max(scores):.2f} | {minutes:.1f} | {'yes' if good[cell] else 'no'} |"
        )
    print()
    for param, arithmetic in itertools.product(params.split(","), arithmetics.split(",")):
        runs = [good[cell] for cell in cells if (cell.param, cell.arithmetic) == (param, arithmetic)]
        print(f"{param}, {arithmetic}: {sum(runs)} of {len(runs)} ended well")
    judged = [well for cell, well in good.items() if cell.param == params.split(",")[0]]
    if sum(judged) < SHARE * len(judged):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
