"""The numbers of evidence/README.md follow from the tables beside it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from wn_dqn.analysis.reference import reference_curve
from wn_dqn.config.games import find_game

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
