"""Scores and durations of our runs. Published scores are in :mod:`wn_dqn.analysis.published`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from wn_dqn.analysis.read_runs import Group, Run
from wn_dqn.analysis.resampling import Scores, bootstrap_interval, mean
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.runs.records import Reevaluation

LAST_EPOCHS = 5


@dataclass(frozen=True)
class FreshGames:
    """Re-evaluations of the best networks of some runs under one protocol."""

    protocol: str
    means: Scores
    """mean return of each run that has fresh games: [runs]"""
    games: int
    """number of games of all runs together"""


def maximum(run: Run) -> float:
    """The highest mean return of all epochs, as the paper reports it. Biased upward, as a maximum of noisy values."""
    return float(run.scores.max())


def last_epochs(run: Run) -> float:
    """Mean of the last evaluations. It is unbiased, because it selects none of them."""
    return float(run.scores[-LAST_EPOCHS:].mean())


def latest_reevaluations(run: Run) -> dict[str, Reevaluation]:
    """The latest re-evaluation of the run's best network under each protocol."""
    if not len(run.scores):
        return {}
    return {entry.protocol: entry for entry in run.reevaluations if entry.steps == run.best_steps}


def fresh_games(group: Group) -> FreshGames | None:
    """Fresh games of each run's best network, or None if there are none.

    The protocol is the one for which most runs have fresh games; on a tie, the paper's.
    """
    by_protocol: dict[str, list[Reevaluation]] = {}
    for run in group.runs:
        for protocol, entry in latest_reevaluations(run).items():
            by_protocol.setdefault(protocol, []).append(entry)
    if not by_protocol:
        return None
    protocol = max(sorted(by_protocol), key=lambda name: (len(by_protocol[name]), name == "paper"))
    entries = by_protocol[protocol]
    return FreshGames(protocol, np.array([entry.mean for entry in entries]), sum(entry.games for entry in entries))


def mean_and_interval(values: Scores) -> tuple[float, tuple[float, float] | None]:
    """Mean over S seeds of `values` [S], and its 95% bootstrap interval (low, high); None for a single seed."""
    if len(values) < 2:
        return float(values.mean()), None
    low, high = bootstrap_interval([values[:, None]], mean)[:, 0]
    return float(values.mean()), (float(low), float(high))


def protocol_words(protocol: EvaluationProtocol) -> list[str]:
    """A protocol's length, epsilon and rules, a few words each."""
    limit = protocol.max_game_frames
    words = [
        f"{protocol.games:,} games" if protocol.steps is None else f"{protocol.steps:,} steps",
        f"epsilon {protocol.epsilon:g}",
        "no time limit" if limit is None else f"at most {limit:,} frames",
    ]
    if protocol.repeat_action_probability:
        words.append(f"sticky actions {protocol.repeat_action_probability:g}")
    if protocol.full_action_set:
        words.append("all 18 actions")
    return words


def training_hours(run: Run) -> float | None:
    """Hours of training, without evaluations; None if there is no row yet."""
    for table, column in ((run.metrics, "time/train_s"), (run.evaluations, "train_s")):
        if column in table:
            return float(table[column][-1]) / 3600
    return None


def wall_clock_hours(run: Run) -> float | None:
    """Hours from the first start to the last status of the run, including pauses; None if unknown."""
    try:
        began, ended = (
            datetime.strptime(str(entry["time"]), "%Y-%m-%dT%H:%M:%S%z") for entry in (run.provenance[0], run.status)
        )
    except (LookupError, ValueError):
        return None
    hours = (ended - began).total_seconds() / 3600
    return hours if hours >= 0 else None  # negative if the clock was set back
