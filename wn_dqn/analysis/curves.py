"""Learning curves: one quantity over the course of training, aggregated over the seeds of a group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from wn_dqn.analysis.read_runs import Group, Run, Table
from wn_dqn.analysis.resampling import AGGREGATES, Scores, bootstrap_interval, mean
from wn_dqn.errors import UsageError, closest

MAX_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One line of a plot: a quantity over training, aggregated over seeds, at T points."""

    name: str
    """label of its group of runs"""
    param: str
    x: Scores
    """[T], in units of the x axis"""
    center: Scores
    """[T], mean or interquartile mean over seeds"""
    interval: Scores | None
    """95% bootstrap interval of the centre [2, T]; None for a single seed"""
    runs: tuple[Scores, ...]
    """the curve of each seed, [T] each"""

    @property
    def label(self) -> str:
        """The name and the number of seeds."""
        return f"{self.name} ({len(self.runs)} seeds)" if len(self.runs) > 1 else f"{self.name} (1 seed, no band)"


def table_with(run: Run, metric: str) -> Table | None:
    """The table of the run with the column `metric`, which has R rows. The evaluations come before the metrics."""
    return next((table for table in (run.evaluations, run.metrics) if metric in table and metric != "steps"), None)


def metric_names(runs: Iterable[Run]) -> list[str]:
    """Every numeric column of the runs, evaluations first."""
    runs = list(runs)
    tables = [run.evaluations for run in runs] + [run.metrics for run in runs]
    return [name for name in dict.fromkeys(name for table in tables for name in table) if name != "steps"]


def make_curve(
    group: Group,
    metric: str,
    *,
    x_axis: str = "epochs",
    statistic: str = "mean",
    smoothing: int = 1,
    points: int = MAX_POINTS,
) -> tuple[Curve | None, list[str]]:
    """The curve of a group, and notes for the reader. The curve is None if no run has a value.

    The curve ends where its shortest seed ends. Otherwise it could bend where a seed drops out, although no seed's
    curve does. `smoothing` replaces each value by the mean of the last `smoothing` values of its run. A curve with more
    than `points` points is replaced by means over that many intervals of equal length.
    """
    used, series, notes = _series(group, metric, smoothing)
    grid, end = _common_steps([steps for steps, _ in series])
    if any(steps[-1] > end for steps, _ in series):
        notes.append(
            f"{group.game.name}, {group.label}: the curve ends at step {end:,.0f}, where the shortest of "
            f"{len(series)} runs does"
        )
    if not len(grid):
        return None, notes
    values, x = np.stack([np.interp(grid, *each) for each in series]), x_values(used, grid, x_axis)
    if len(grid) > points:
        values, x = stretch_means(values, points), stretch_means(x, points)
    aggregate = AGGREGATES[statistic]
    interval = bootstrap_interval([values], aggregate) if len(series) > 1 else None
    return Curve(group.label, group.param, x, aggregate(values.T), interval, tuple(values)), notes


def _series(group: Group, metric: str, smoothing: int) -> tuple[list[Run], list[tuple[Scores, Scores]], list[str]]:
    """The runs with values of `metric`, their steps and smoothed values, and a note for each run without values."""
    used, series, notes = [], [], []
    for run in group.runs:
        table = table_with(run, metric)
        known = np.zeros(0, bool) if table is None else np.isfinite(table[metric])
        if table is None or not known.any():
            notes.append(f"{run.path} has no {metric} yet ({run.state_text})")
        else:
            used.append(run)
            series.append((table["steps"][known], trailing_mean(table[metric][known], smoothing)))
    return used, series, notes


def _common_steps(steps: Sequence[Scores]) -> tuple[Scores, float]:
    """The steps at which any run has a value, from the latest start to the earliest end of the runs; and that end."""
    if not steps:
        return np.empty(0), 0.0
    begin, end = max(each[0] for each in steps), min(each[-1] for each in steps)
    grid = np.unique(np.concatenate(steps))
    return grid[(grid >= begin) & (grid <= end)], float(end)


def trailing_mean(values: Scores, window: int) -> Scores:
    """The mean of each value and of up to `window` - 1 values before it; [T] as `values`."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - window, 0)
    averaged: Scores = (sums[end] - sums[begin]) / (end - begin)
    return averaged


def stretch_means(values: Scores, count: int) -> Scores:
    """Means over `count` intervals of the last axis, of nearly equal length: [..., T] to [..., count]."""
    edges = np.linspace(0, values.shape[-1], count + 1).astype(int)
    averaged: Scores = np.add.reduceat(values, edges[:-1], axis=-1) / np.diff(edges)
    return averaged


def x_values(runs: Sequence[Run], steps: Scores, x_axis: str) -> Scores:
    """Agent steps [T] of `runs` in units of the x axis [T]."""
    if x_axis == "frames":
        return steps * runs[0].game.frames_per_step
    if x_axis == "epochs":
        return steps / runs[0].settings.evaluation.epoch_steps
    if x_axis == "hours":
        return mean(np.stack([np.interp(steps, *_clock(run)) for run in runs], axis=-1)) / 3600
    return steps


def _clock(run: Run) -> tuple[Scores, Scores]:
    """The agent steps of a run's rows, and the seconds of training until each row."""
    table, column = (run.metrics, "time/train_s") if run.metrics else (run.evaluations, "train_s")
    return table["steps"], table[column]


def x_label(runs: Sequence[Run], x_axis: str) -> str:
    """The title of the x axis: its unit."""
    if x_axis == "hours":
        return "hours of training, mean over seeds (without evaluations)"
    if x_axis == "frames":
        per_step = {run.game.frames_per_step for run in runs}
        return "frames of training" + (f" ({per_step.pop()} per step)" if len(per_step) == 1 else "")
    epochs = {run.settings.evaluation.epoch_steps for run in runs}
    if x_axis == "epochs" and len(epochs) == 1:
        return f"training epochs of {epochs.pop():,} steps"
    return f"training {x_axis}"


def y_label(metric: str, statistic: str, smoothing: int) -> str:
    """The title of the y axis: the quantity, the statistic and the smoothing."""
    name = "test score per game" if metric == "mean_return" else metric
    over = {"mean": "mean over seeds", "iqm": "interquartile mean over seeds"}[statistic]
    return f"{name}\n({over}" + (f"; mean of the last {smoothing} values)" if smoothing > 1 else ")")


def require_metric(runs: Sequence[Run], metric: str) -> None:
    """Raise UsageError, with the closest names, if no run has such a column."""
    names = metric_names(runs)
    if not names:
        raise UsageError("these runs have no evaluations and no metrics yet: " + ", ".join(str(r.path) for r in runs))
    if metric not in names:
        raise UsageError(f"no run has a column {metric!r}; {closest(metric, names)}")
