"""The numbers of evidence/README.md follow from the tables beside it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from wn_dqn.analysis.reference import reference_curve
from wn_dqn.config.games import find_game
from wn_dqn.config.registry import PARAMETERIZATIONS

EVIDENCE = Path(__file__).parents[1] / "evidence"
PAGE = (EVIDENCE / "README.md").read_text(encoding="utf-8")
T4 = 2.776445  # the 97.5 % quantile of Student's t with 4 degrees of freedom, from a table
RANGE_OF_FIVE = 2.326  # the expected range of five normal numbers, in standard deviations, from a table


@pytest.mark.parametrize("million", [1, 2])
def test_the_prediction_for_breakout(million: int) -> None:
    curve = reference_curve("dopamine", find_game("Breakout"))
    assert curve is not None
    mean, (low, high) = curve.center[million - 1], curve.interval[:, million - 1]
    half = T4 * (high - low) / RANGE_OF_FIVE * math.sqrt(1 / 3 + 1 / 5)
    assert (
        f"| {million} million | {mean:.2f} [{low:.2f}, {high:.2f}] | {mean - half:.2f} to {mean + half:.2f} |" in PAGE
    )


def test_the_first_million_frames_of_breakout() -> None:
    returns = []
    for seed in range(3):
        with (EVIDENCE / "breakout" / f"seed{seed}" / "metrics.csv").open(encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        assert row["steps"] == "250000"
        returns.append(float(row["train/episode_return"]))
        assert f"| {seed} | {returns[-1]:.3f} | {int(float(row['train/games'])):,} |" in PAGE
    assert f"| mean | {np.mean(returns):.3f} | |" in PAGE


LEARNING = (EVIDENCE.parent / "docs" / "parameterizations.md").read_text(encoding="utf-8")
PARTS = {
    "wn-double-dqn": "`wn`, Double DQN",
    "wn-c51": "`wn`, C51",
    "wn-double-c51": "`wn`, Double C51",
    "wn-dueling_True": "`wn`, dueling heads",
    "wn-priority_exponent_0.6": "`wn`, prioritized replay",
    "wn-n_steps_3": "`wn`, 3-step returns",
    "wn-noisy_True": "`wn`, noisy layers",
    "wn-double-c51-dueling_True-noisy_True-priority_exponent_0.5-n_steps_3": "`wn`, all of Rainbow",
}


def last_scores(name: str, game: str) -> dict[str, list[float]]:
    """Of each arm, in the order of its seeds."""
    scores: dict[str, list[float]] = {}
    with (EVIDENCE / "learning" / f"{name}.csv").open(encoding="utf-8") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: int(row["seed"])):
            scores.setdefault(row["arm"].removeprefix(f"{game}-"), []).append(float(row["last"]))
    return scores


def test_every_arm_learns_and_the_page_says_how_well() -> None:
    catch, breakout = last_scores("catch", "Catch"), last_scores("minatar", "MinAtar-Breakout-v0")
    assert catch.keys() == breakout.keys() == {*PARAMETERIZATIONS, *PARTS}
    for arm in catch:
        assert min(catch[arm]) > 0.7
        assert min(breakout[arm]) > 3 * 0.625
        cells = [", ".join(f"{score:.2f}" for score in scores) for scores in (catch[arm], breakout[arm])]
        row = [PARTS.get(arm, f"`{arm}`"), *cells, f"{np.mean(breakout[arm]):.2f}"]
        assert f"| {' | '.join(row)} |" in LEARNING


def test_the_classifier_on_photographs() -> None:
    page = (EVIDENCE.parent / "docs" / "paper-systems.md").read_text(encoding="utf-8")
    errors: dict[str, list[float]] = {}
    with (EVIDENCE / "paper" / "cifar10-photos.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            errors.setdefault(row["arm"], []).append(float(row["error_percent"]))
    for arm, values in errors.items():
        cells = [f"{value:.1f}" for value in (*values, float(np.mean(values)))]
        assert f"| `{arm}` | {' | '.join(cells)} |" in page
