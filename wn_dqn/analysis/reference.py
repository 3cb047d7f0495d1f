"""Published learning curves, which can be drawn behind ours. `data/README.md` has their sources."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from wn_dqn.analysis.choices import REFERENCES
from wn_dqn.analysis.resampling import Scores
from wn_dqn.config.games import Game

METRICS = ("mean_return", "train/episode_return")
"""metrics that are comparable with a published curve: returns of complete games"""


@dataclass(frozen=True)
class ReferenceCurve:
    """A published curve at T points."""

    label: str
    """label: its source, its agent, and the number of runs"""
    steps: Scores
    """[T], agent steps of training"""
    center: Scores
    """[T], mean over the runs"""
    interval: Scores
    """[2, T], the smallest and the largest run"""


def reference_curve(name: str, game: Game) -> ReferenceCurve | None:
    """The curve of the reference `name` (a key of :data:`~wn_dqn.analysis.choices.REFERENCES`); None if it has none."""
    agent, label = REFERENCES[name]
    points = _dopamine().get((agent, game.rom_id.replace("_", "")))
    if points is None:
        return None
    frames, center, low, high = np.array(points).T
    return ReferenceCurve(label, frames * 1e6 / game.frames_per_step, center, np.stack([low, high]))


@cache
def _dopamine() -> dict[tuple[str, str], list[tuple[float, ...]]]:
    """Million frames, mean, minimum and maximum, by agent and game."""
    curves: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    data = files(__package__) / "data" / "dopamine_dqn.csv.gz"
    with data.open("rb") as packed, gzip.open(packed, "rt", newline="") as file:
        for row in csv.DictReader(file):
            numbers = tuple(float(row[key]) for key in ("million_frames", "mean", "min", "max"))
            curves.setdefault((row["agent"], row["game"]), []).append(numbers)
    return curves
