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
from wn_dqn.analysis.resampling import bootstrap_interval, mean
from wn_dqn.paper.pages import Arm, PaperRun, arms_of, draw, last_values, read_arms
from wn_dqn.paper.settings import ARMS, make_paper_settings

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(5)


def table_of(system: str) -> Path:
    return ROOT / "evidence" / "paper" / f"{system}.csv"


def folder_of(runs: Path, system: str, param: str, seed: int) -> Path:
    return runs / f"{system}-{param}-{seed}"


def train(system: str, runs: Path) -> None:
    for seed in SEEDS:
        for param in ARMS[system]:
            folder = str(folder_of(runs, system, param, seed))
            options = ["--param", param, "--seed", str(seed), "--device", "cpu", "--run-dir", folder]
            subprocess.run([sys.executable, "-m", "wn_dqn", "paper", system, *options], check=True)


def rows_of(run: PaperRun) -> Iterator[dict[str, str]]:
    """An epoch each: what was seen in training, and the measures of the test; no times."""
    columns = {name: values for name, values in run.metrics.items() if name.startswith("train/")}
    columns |= {name: values for name, values in run.evaluations.items() if name not in ("epoch", "steps")}
    for index, epoch in enumerate(run.evaluations["epoch"]):
        known = {"arm": run.settings.param, "seed": str(run.settings.seed), "epoch": str(int(epoch))}
        yield known | {name: f"{values[index]:.6g}" for name, values in columns.items()}


def write_table(system: str, runs: Path) -> None:
    arms = read_arms([folder_of(runs, system, param, seed) for param in ARMS[system] for seed in SEEDS])
    rows = [row for arm in arms for run in arm.runs for row in rows_of(run)]
    with table_of(system).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


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
        values = np.array(last_values(arm))
        low, high = bootstrap_interval([values[:, None]], mean)[:, 0]
        print(f"{arm.param}: mean {values.mean():.3f}, 95% bootstrap {low:.3f} to {high:.3f}, {len(values)} seeds")


if __name__ == "__main__":
    main()
