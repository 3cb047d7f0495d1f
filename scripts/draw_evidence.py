"""Draws the plot in the README from the tables in evidence/, and prints its numbers.

    python scripts/draw_evidence.py -o docs/evidence.svg

Left: the evaluations of `wn-dqn train --config quick`, one line per seed (evidence/quick.csv). Right: Breakout with
Dopamine's settings (evidence/breakout), with the prediction that was recorded before the runs.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from wn_dqn.analysis.reference import reference_curve
from wn_dqn.analysis.resampling import Scores, bootstrap_interval, mean
from wn_dqn.config.games import find_game

EVIDENCE = Path(__file__).resolve().parents[1] / "evidence"
RANDOM_KUNG_FU_MASTER = 449.0
"""mean of 100 games of random play under the same rules (docs/quick.md)"""
T4 = 2.776445
"""97.5% quantile of Student's t with 4 degrees of freedom"""
RANGE_OF_FIVE = 2.326
"""expected range of five normal numbers, in standard deviations"""
_WN, _PUBLISHED = "#D55E00", "#777777"


class Quick(NamedTuple):
    """Evaluations of `quick`: S seeds, T evaluations."""

    steps: Scores
    """[T]"""
    scores: Scores
    """[S, T]"""
    center: Scores
    """[T], mean over seeds"""
    interval: Scores
    """[2, T], 95% bootstrap over seeds"""


def read_quick() -> Quick:
    """The table evidence/quick.csv, with its mean and interval."""
    with (EVIDENCE / "quick.csv").open(encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    scores = np.array([row[1:] for row in rows], np.float64)
    steps = np.array([name.removeprefix("steps_") for name in head[1:]], np.float64)
    return Quick(steps, scores, mean(scores.T), bootstrap_interval([scores], mean))


def read_breakout() -> Scores:
    """Mean training score of each million frames, [S, 2], of each seed."""
    scores = []
    for path in sorted((EVIDENCE / "breakout").glob("seed*/metrics.csv")):
        with path.open(encoding="utf-8") as file:
            scores.append([float(row["train/episode_return"]) for row in csv.DictReader(file)])
    return np.array(scores)


def predicted(million: int) -> tuple[float, float]:
    """The 95% prediction interval for a mean of three seeds, from the five published runs: evidence/README.md."""
    curve = reference_curve("dopamine", find_game("Breakout"))
    assert curve is not None
    center, (low, high) = curve.center[million - 1], curve.interval[:, million - 1]
    half = T4 * (high - low) / RANGE_OF_FIVE * math.sqrt(1 / 3 + 1 / 5)
    return float(center - half), float(center + half)


def draw_quick(axes: Axes) -> str:
    """Draw one line per seed, the mean with its band, and the score of random play."""
    quick = read_quick()
    axes.plot(quick.steps, quick.scores.T, color=_WN, alpha=0.35, linewidth=0.8)
    axes.fill_between(quick.steps, *quick.interval, color=_WN, alpha=0.2, linewidth=0)
    axes.plot(quick.steps, quick.center, color=_WN, marker="o", label=f"mean of {len(quick.scores)} seeds, 95% band")
    axes.axhline(RANDOM_KUNG_FU_MASTER, color=_PUBLISHED, linestyle=":", label="random play")
    axes.set(title="Kung Fu Master, --config quick", xlabel="agent steps", ylabel="score", ylim=(0, None))
    axes.set_xticks(quick.steps, [f"{int(step):,}" for step in quick.steps])
    axes.legend(frameon=False, loc="upper left")
    low, high = quick.interval[:, -1]
    return (
        f"Kung Fu Master: {quick.center[-1]:,.0f} ({low:,.0f} to {high:,.0f}) after {int(quick.steps[-1]):,} steps, "
        f"{len(quick.scores)} seeds; random play {RANDOM_KUNG_FU_MASTER:.0f}"
    )


def draw_breakout(axes: Axes) -> str:
    """Draw the published runs, the prediction from them, and our own seeds."""
    curve = reference_curve("dopamine", find_game("Breakout"))
    assert curve is not None
    scores = read_breakout()
    axes.fill_between([0, 1, 2], *_from_zero(curve.interval[:, :2]), color=_PUBLISHED, alpha=0.3, linewidth=0)
    axes.plot([0, 1, 2], [0, *curve.center[:2]], color=_PUBLISHED, label="Dopamine's DQN, 5 runs, with their range")
    for million in (1, 2):
        low, high = predicted(million)
        axes.errorbar(million, (low + high) / 2, (high - low) / 2, color="#0072B2", capsize=6, linewidth=1.5)
    axes.plot([], [], color="#0072B2", label="prediction for a mean of 3 seeds (95%)")
    axes.plot([1, 2], scores.T, "o", color=_WN, alpha=0.5, markersize=4)
    axes.plot([], [], "o", color=_WN, alpha=0.5, markersize=4, label="seeds run here")
    axes.plot([1, 2], scores.mean(axis=0), "_", color=_WN, markersize=22, markeredgewidth=2, label="their mean")
    axes.set(title="Breakout, --config dopamine", xlabel="million frames", ylabel="training score", ylim=(0, None))
    axes.set_xticks([0, 1, 2])
    axes.legend(frameon=False, loc="upper left")
    return "\n".join(
        f"Breakout: {scores[:, million - 1].mean():.2f} in million {million}, {len(scores)} seeds; predicted "
        f"{predicted(million)[0]:.2f} to {predicted(million)[1]:.2f}, published {curve.center[million - 1]:.2f}"
        for million in (1, 2)
    )


def _from_zero(interval: Scores) -> Scores:
    return np.concatenate([np.zeros((2, 1)), interval], axis=1)


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The SVG file to write.")
def main(output: Path) -> None:
    with rc_context({"svg.hashsalt": "wn_dqn", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        print(draw_quick(left))
        print(draw_breakout(right))
        figure.set_facecolor("white")
        FigureCanvasSVG(figure).print_svg(output, metadata={"Date": None})


if __name__ == "__main__":
    main()
