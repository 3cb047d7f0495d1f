"""Checks whether the arms of a comparison started as the same function, from the saved starts of the runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wn_dqn.analysis.read_runs import Group
from wn_dqn.analysis.report_tables import TextTable
from wn_dqn.runs.start import NUM_STATES, Start, read_start

SAME_WITHIN = 5e-6
"""tolerance for Q-values whose spread is about 1: different formulas for float32 parameters differ by up to 3.3e-6"""


def starts_table(groups: Sequence[Group]) -> TextTable:
    """A row for each group: the difference of its initial Q-values from those of its game's first group, by seed."""
    first: dict[str, Group] = {}
    for group in groups:
        first.setdefault(group.game.name, group)
    rows = [
        [group.game.name, group.label, *_cells(group, first[group.game.name])]
        for group in groups
        if group is not first[group.game.name]
    ]
    caption = (
        f"Initial Q-values of the networks, on {NUM_STATES} states of a random policy, compared with those of the "
        f"game's first group with the same seed. A difference of at most {SAME_WITHIN:g} means the same function."
    )
    return TextTable(caption, ["Game", "Arm", "Beside", "Seeds compared", "Largest difference", "Start"], rows)


def _cells(group: Group, reference: Group) -> list[str]:
    theirs = {run.settings.seed: read_start(run.path) for run in reference.runs}
    pairs = [(read_start(run.path), theirs.get(run.settings.seed)) for run in group.runs]
    known = [(ours, other) for ours, other in pairs if ours is not None and other is not None]
    if not known:
        return [reference.label, "0", "-", "unknown: no common seed with a saved start"]
    differences = [difference(ours, other) for ours, other in known]
    if None in differences:
        return [reference.label, f"{len(known)}", "-", "not comparable: the states differ"]
    largest = max(each for each in differences if each is not None)
    verdict = "the same function" if largest <= SAME_WITHIN else "a different function"
    return [reference.label, f"{len(known)}", f"{largest:.2g}", verdict]


def difference(ours: Start, other: Start) -> float | None:
    """The largest difference between the Q-values of two starts; None if their states or shapes differ."""
    a, b = np.array(ours.q_values), np.array(other.q_values)
    return float(np.abs(a - b).max()) if ours.states == other.states and a.shape == b.shape and a.size else None
