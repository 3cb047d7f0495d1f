"""Trains all arms of one of the paper's other systems on its embedded data with several seeds, and writes the study.

    python scripts/study_paper.py vae --runs runs/study

The runs are `wn-dqn paper SYSTEM --param P --seed S` with their defaults. Started again, it trains what is missing.
Then it writes every epoch of every run to evidence/paper/SYSTEM.csv, and the curves of that table to
docs/paper_SYSTEM.svg.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from wn_dqn.analysis.plotting import figure_bytes
from wn_dqn.analysis.read_runs import Table
from wn_dqn.paper.pages import Arm, PaperRun, arms_of, draw, last_values, read_arms
from wn_dqn.paper.settings import ARMS, make_paper_settings

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(5)


def table_of(system: str) -> Path:
    return ROOT / "evidence" / "paper" / f"{system}.csv"


def train(system: str, runs: Path) -> None:
    for seed in SEEDS:
        for param in ARMS[system]:
            folder = str(runs / f"{system}-{param}-{seed}")
            options = ["--param", param, "--seed", str(seed), "--device", "cpu", "--run-dir", folder]
            subprocess.run([sys.executable, "-m", "wn_dqn", "paper", system, *options], check=True)


def rows_of(run: PaperRun) -> Iterator[list[str]]:
    """An epoch each, after the names: what was seen in training, and the measures of the test; no times."""
    names, columns = zip(*_columns(run), strict=True)
    yield list(names)
    for epoch in zip(*columns, strict=True):
        yield [run.settings.param, str(run.settings.seed), *(f"{value:.6g}" for value in epoch)]


def _columns(run: PaperRun) -> Iterator[tuple[str, np.ndarray]]:
    yield "epoch", run.evaluations["epoch"]
    yield from ((name, values) for name, values in run.metrics.items() if name.startswith("train/"))
    yield from ((name, values) for name, values in run.evaluations.items() if name not in ("epoch", "steps"))


def write_table(system: str, runs: Path) -> None:
    arms = read_arms([runs / f"{system}-{param}-{seed}" for param in ARMS[system] for seed in SEEDS])
    with table_of(system).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        for number, run in enumerate(run for arm in arms for run in arm.runs):
            head, *rows = rows_of(run)
            table.writerows([["arm", "seed", *head], *rows] if number == 0 else rows)


def read_table(system: str) -> list[Arm]:
    """The arms of the study, from its table."""
    with table_of(system).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[tuple[str, int], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row.pop("arm"), int(row.pop("seed"))), []).append(row)
    runs = []
    for (param, seed), epochs in found.items():
        table = Table({name: np.array([float(row[name]) for row in epochs]) for name in epochs[0]})
        runs.append(PaperRun(ROOT, make_paper_settings(system, param, None, seed=seed), table, table))
    return list(arms_of(runs))


@click.command(help=__doc__)
@click.argument("system", type=click.Choice(list(ARMS)))
@click.option("--runs", type=click.Path(path_type=Path), help="Folder of the runs. Without it, the table is read.")
def main(system: str, runs: Path | None) -> None:
    if runs is not None:
        train(system, runs)
        write_table(system, runs)
    arms = read_table(system)
    (ROOT / "docs" / f"paper_{system}.svg").write_bytes(figure_bytes(draw(arms), "svg"))
    for arm in arms:
        values = last_values(arm)
        print(f"{arm.param}: {np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f}), {len(values)} seeds")


if __name__ == "__main__":
    main()
