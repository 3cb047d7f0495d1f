"""The text after a finished run: its scores beside a random policy's and a human's, and the next commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wn_dqn.analysis.published import human_normalized, published_scores
from wn_dqn.analysis.read_runs import Run, read_run
from wn_dqn.analysis.scores import training_hours
from wn_dqn.config.trust import code_of
from wn_dqn.errors import UsageError
from wn_dqn.runs.status import portable_name
from wn_dqn.runs.story import pasteable
from wn_dqn.system.text import printable, score_text, time_text


def closing(path: Path) -> list[str]:
    """Lines about the finished run in `path`: its scores, and the next commands.

    If its tables cannot be read, the scores are left out. The run is saved, and this must not end in an error.
    """
    try:
        run = read_run(path)
    except UsageError:
        return next_commands(path, path.name)
    time = time_text(training_hours(run) or 0.0)
    head = f"{printable(str(path))} is finished: {run.steps:,} steps, {time} of training"
    allowed = "".join(f" --env {code}" for code in code_of(run.settings))
    return [head, *score_lines(run), *next_commands(path, run.game.short_name, allowed)]


def score_lines(run: Run) -> list[str]:
    """The first, the last and the best evaluation, and the game's published scores; at most 40 columns wide."""
    if not len(run.scores):
        return []
    steps, best = run.evaluations["steps"], int(run.scores.argmax())
    levels = published_scores(run.game.name)
    scores = [
        (name, f"{int(steps[index]):,}", float(run.scores[index]))
        for name, index in (("first", 0), ("last", -1), ("best", best))
    ]
    known = (("random", levels.random), ("human", levels.human))
    scores += [(name, "", level) for name, level in known if level is not None]
    rows = [("", "step", "score", "" if levels.human is None else "of human")]
    for name, step, score in scores:
        share = human_normalized(run.game.name, score)
        rows.append((name, step, score_text(score), "" if share is None else f"{share:.0%}"))
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line per row, with names aligned to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        numbers = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *numbers]).rstrip())
    return lines


def next_commands(path: Path, game: str, allowed: str = "") -> list[str]:
    """Three commands to paste: play, report, TensorBoard. `allowed` is the option that allows external code."""
    run = pasteable(path)
    return [
        "next:",
        f"  wn-dqn play {run} -o {pasteable(Path(portable_name(game) + '.webm'))}{allowed}",
        f"  wn-dqn report {run}",
        f"  tensorboard --logdir {run}",
    ]
