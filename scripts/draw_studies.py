"""Draws the figures of the studies in evidence/, and prints their numbers.

python scripts/draw_studies.py precision    # docs/precision.svg: float32 and bf16, five seeds each
python scripts/draw_studies.py minatar      # docs/minatar.svg: standard and wn on three games, ten seeds each

A line is the mean over seeds (precision) or the interquartile mean (minatar); a band is its 95% bootstrap interval.
A score is the mean of a run's last two evaluations.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from wn_dqn.analysis.resampling import (
    AGGREGATES,
    Scores,
    bootstrap_interval,
    improvement_interval,
    probability_of_improvement,
)

ROOT = Path(__file__).resolve().parents[1]
_COLORS = ("#0072B2", "#D55E00")


class Panel(NamedTuple):
    """One environment: a table in evidence/, and the two arms in it."""

    title: str
    table: str
    arms: tuple[str, str]


class Study(NamedTuple):
    """Panels whose arms are called `names`, and how seeds are aggregated."""

    names: tuple[str, str]
    aggregate: str
    panels: list[Panel]


def _both(pattern: str, names: tuple[str, str]) -> tuple[str, str]:
    return pattern.format(names[0]), pattern.format(names[1])


_PRECISIONS, _PARAMS = ("float32", "bf16"), ("standard", "wn")
STUDIES = {
    "precision": Study(
        _PRECISIONS,
        "mean",
        [
            Panel("Catch", "precision-catch", _both("Catch-wn-precision_{}", _PRECISIONS)),
            Panel("Kung Fu Master", "precision-quick", _both("KungFuMaster-wn-double-dqn-precision_{}", _PRECISIONS)),
        ],
    ),
    "minatar": Study(
        _PARAMS,
        "iqm",
        [
            Panel(f"MinAtar {game}", "minatar-question", _both(f"MinAtar-{game}-v0-{{}}", _PARAMS))
            for game in ("Breakout", "Asterix", "SpaceInvaders")
        ],
    ),
}


def read_arm(table: str, arm: str) -> tuple[Scores, Scores]:
    """The steps of the evaluations, [T], and each seed's scores, [seeds, T]."""
    curves = np.array(list(_curves(table, arm).values()))
    return curves[0, :, 0], curves[:, :, 1]


def read_seeds(table: str, arm: str) -> list[int]:
    """The seeds of an arm, in the order of :func:`read_arm`."""
    return list(_curves(table, arm))


def _curves(table: str, arm: str) -> dict[int, list[tuple[int, float]]]:
    """Of each seed, steps and score of every evaluation."""
    curves: dict[int, list[tuple[int, float]]] = {}
    with (ROOT / "evidence" / f"{table}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["arm"] == arm:
                curves.setdefault(int(row["seed"]), []).append((int(row["steps"]), float(row["score"])))
    return curves


def final_scores(scores: Scores) -> Scores:
    """The mean of the last two evaluations of each seed: [seeds, T] to [seeds]."""
    final: Scores = scores[:, -2:].mean(axis=1)
    return final


def draw(axes: Axes, study: Study, panel: Panel) -> None:
    aggregate = AGGREGATES[study.aggregate]
    for name, arm, color in zip(study.names, panel.arms, _COLORS, strict=True):
        steps, scores = read_arm(panel.table, arm)
        axes.fill_between(steps, *bootstrap_interval([scores], aggregate), color=color, alpha=0.2, linewidth=0)
        axes.plot(steps, aggregate(scores.T), color=color, label=name)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("agent steps")
    axes.spines[["top", "right"]].set_visible(False)


def numbers(study: Study) -> list[str]:
    """A line for each panel and arm, and how often a run of the second arm beats one of the first."""
    lines, strata = [], []
    for panel in study.panels:
        finals = [final_scores(read_arm(panel.table, arm)[1]) for arm in panel.arms]
        strata.append(finals)
        for name, final in zip(study.names, finals, strict=True):
            low, high = bootstrap_interval([final[:, None]], AGGREGATES[study.aggregate])[:, 0]
            center = AGGREGATES[study.aggregate](final)
            digits = 0 if center > 100 else 2
            interval = f"{low:,.{digits}f} to {high:,.{digits}f}"
            lines.append(f"{panel.title}, {name}: {center:,.{digits}f} ({interval}), {len(final)} seeds")
    first, second = ([finals[arm] for finals in strata] for arm in (0, 1))
    low, high = improvement_interval(second, first)
    lines.append(
        f"a run of {study.names[1]} beats one of {study.names[0]} with probability "
        f"{probability_of_improvement(second, first):.2f} ({low:.2f} to {high:.2f})"
    )
    return lines


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(STUDIES)))
def main(name: str) -> None:
    study = STUDIES[name]
    with rc_context({"svg.hashsalt": "wn_dqn", "font.size": 9}):
        figure = Figure(figsize=(3.1 * len(study.panels), 2.7), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, panel in zip(figure.subplots(1, len(study.panels), squeeze=False)[0], study.panels, strict=True):
            draw(axes, study, panel)
        figure.axes[0].set_ylabel("score")
        figure.axes[0].legend(frameon=False)
        figure.savefig(ROOT / "docs" / f"{name}.svg", metadata={"Date": None})
    print("\n".join(numbers(study)))


if __name__ == "__main__":
    main()
