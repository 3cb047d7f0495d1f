"""Writes a table of the evaluations of a sweep's runs, for evidence/: the first, the last and the best of each run, or
with --curves all of them.

wn-dqn sweep run evidence/learning/catch.yaml --jobs 2
python scripts/collect_learning.py runs/catch -o evidence/learning/catch.csv
"""

from __future__ import annotations

import csv
from pathlib import Path

import click

from wn_dqn.analysis.read_runs import read_evaluations
from wn_dqn.sweeps.cells import read_manifest, standing


def arm_of(name: str) -> tuple[str, int]:
    """The arm and the seed in a cell's name: GAME-ARM-seedN."""
    arm, _, seed = name.rpartition("-seed")
    return arm, int(seed)


@click.command(help=__doc__)
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--curves", is_flag=True, help="One row for each evaluation.")
def main(sweep: Path, output: Path, curves: bool) -> None:
    cells = read_manifest(sweep).cells
    if left := [cell.name for cell in cells if standing(cell).state != "finished"]:
        raise click.ClickException(f"{len(left)} runs of {sweep} are not finished, {left[0]} is the first")
    with output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["arm", "seed", *(("steps", "score") if curves else ("first", "last", "best"))])
        for cell in cells:
            evaluations = read_evaluations(cell.folder)
            scores = evaluations["mean_return"]
            if curves:
                rows = [(f"{steps:.0f}", score) for steps, score in zip(evaluations["steps"], scores, strict=True)]
                table.writerows([*arm_of(cell.name), steps, f"{score:.6g}"] for steps, score in rows)
            else:
                shown = (f"{score:.6g}" for score in (scores[0], scores[-1], scores.max()))
                table.writerow([*arm_of(cell.name), *shown])
    print(f"{output}: {len(cells)} runs")


if __name__ == "__main__":
    main()
