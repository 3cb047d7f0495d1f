"""Successive halving: selects the cells that stop early, by their evaluations at a step."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence

from wn_dqn.sweeps.cells import Cell, mark_stopped_early, scores, stopped_early_at
from wn_dqn.sweeps.parts import Halving


def stop_losers(cells: Sequence[Cell], halving: Halving, at_steps: int) -> list[str]:
    """Mark the cells that lose the comparison at `at_steps`. Returns a message for each losing setting.

    Settings of the same game are compared by the mean over their seeds, and a setting stops with all of its seeds. The
    comparison is deterministic, so that a driver that is started again makes the same decisions.
    """
    contenders: dict[str, dict[tuple[str, ...], list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        before = stopped_early_at(cell)
        if (before is None or before >= at_steps) and _score(cell, halving, at_steps) is not None:
            contenders[_option(cell, "--game", "--env")][_setting(cell)].append(cell)
    return [line for of_game in contenders.values() for line in _stop_worse(list(of_game.values()), halving, at_steps)]


def _stop_worse(settings: Sequence[Sequence[Cell]], halving: Halving, at_steps: int) -> list[str]:
    means = [(statistics.fmean(_score(cell, halving, at_steps) or 0.0 for cell in each), each) for each in settings]
    ranked = sorted(means, key=lambda pair: -pair[0])
    kept = math.ceil(halving.keep * len(ranked))
    lines = []
    for place, (mean, losers) in enumerate(ranked[kept:], start=kept + 1):
        name = halving.metric.partition("/")[2]
        reason = f"place {place} of {len(ranked)} at step {at_steps:,}: {name} {mean:.4g}; {kept} went on"
        lines.append(f"stopped early: {', '.join(cell.name for cell in losers)}: {reason}")
        for cell in losers:
            mark_stopped_early(cell, reason, at_steps)
    return lines


def _score(cell: Cell, halving: Halving, at_steps: int) -> float | None:
    """The score of the first evaluation at `at_steps` or later; None if there is none yet."""
    rows = scores(cell, halving.metric.partition("/")[2])
    return next((score for steps, score in rows if steps >= at_steps and math.isfinite(score)), None)


def _option(cell: Cell, *names: str) -> str:
    words = zip(cell.command, cell.command[1:], strict=False)
    return next((value for option, value in words if option in names), "")


def _setting(cell: Cell) -> tuple[str, ...]:
    """The command without the options that differ between the seeds of one setting."""
    own = {"--seed", "--run-dir"}
    pairs = zip(("", *cell.command), cell.command, strict=False)
    return tuple(word for before, word in pairs if word not in own and before not in own)
