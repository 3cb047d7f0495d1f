"""Callbacks: how a user's program follows a run, and the view of the run that they receive.

A callback receives copies and returns nothing, so it cannot change what the agent learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from wn_dqn.config.schema import Settings
from wn_dqn.errors import RunError, UsageError, first_line
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.training.metrics import Metrics

Event = Literal["on_start", "on_step", "on_metrics", "on_evaluation", "on_checkpoint", "on_end"]


class StopTraining(Exception):  # noqa: N818 - a callback's request, not an error
    """Raised by a callback to end training. The step is completed, and the run is saved and can be resumed later.

    >>> class Once(wn_dqn.Callback):
    ...     def on_metrics(self, view):
    ...         raise wn_dqn.StopTraining("one row is enough")
    >>> run = wn_dqn.train("runs/Catch/config.yaml", run_dir="runs/stopped", callbacks=[Once()], progress=False)
    >>> run.status, run.steps
    ('paused', 24)
    """


@dataclass(frozen=True)
class View:
    """A snapshot of a run. All arrays in it are copies.

    >>> class Watch(wn_dqn.Callback):
    ...     def on_evaluation(self, view):
    ...         print(view.steps, len(view.evaluation) > 5, view.run_directory)
    >>> run = wn_dqn.train("runs/Catch/config.yaml", run_dir="runs/seen", callbacks=[Watch()], progress=False)
    120 True runs/seen
    240 True runs/seen
    320 True runs/seen
    """

    settings: Settings
    run_directory: Path
    status: str
    """running, degraded, paused, finished or failed; or empty before the first step"""
    steps: int
    """agent steps done, summed over all environments"""
    updates: int
    epsilon: float
    """of the next step"""
    metrics: Mapping[str, float]
    """the newest row of metrics.csv without its steps; empty before the first"""
    evaluation: Mapping[str, float]
    """the newest row of evaluations.csv without its steps; empty before the first"""
    checkpoint: Path | None
    """the newest checkpoint that this process saved"""
    message: Callable[[str], None]
    """prints a line beside the progress of the run"""


class Callback:
    """The base class of callbacks. Override the methods that you need.

    An exception ends the run with the status failed; its checkpoints stay intact. :class:`wn_dqn.StopTraining` saves
    the run and ends it with the status paused. `on_step` is called after every step of all environments, so it must be
    fast.

    >>> class Count(wn_dqn.Callback):
    ...     rows = 0
    ...     def on_metrics(self, view):
    ...         self.rows += 1
    >>> count = Count()
    >>> run = wn_dqn.train("runs/Catch/config.yaml", run_dir="runs/counted", callbacks=[count], progress=False)
    >>> count.rows == len(run.metrics["steps"])
    True
    """

    def on_start(self, view: View) -> None:
        """The run is about to start, or to resume."""

    def on_step(self, view: View) -> None:
        """All environments have made a step."""

    def on_metrics(self, view: View) -> None:
        """A log period is over; `view.metrics` has been updated."""

    def on_evaluation(self, view: View) -> None:
        """The agent was evaluated; `view.evaluation` has been updated."""

    def on_checkpoint(self, view: View) -> None:
        """The run was saved in `view.checkpoint`."""

    def on_end(self, view: View) -> None:
        """The run ends with `view.status`. Called once, also after an error. An exception raised here is passed on."""


class CallbackList:
    """The callbacks of a run, called in their order."""

    def __init__(self, callbacks: Sequence[Callback], stop: StopRequest) -> None:
        """`stop` receives the request of a :class:`StopTraining`. Raises UsageError for an object of another class."""
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise UsageError(f"callbacks must be instances of wn_dqn.Callback; {callback!r} is not")
        self._callbacks, self._stop = tuple(callbacks), stop
        self.needs_steps = any(type(callback).on_step is not Callback.on_step for callback in callbacks)
        """whether `on_step` needs to be called at all"""

    def notify(self, event: Event, view: Callable[[], View]) -> None:
        """Notify all callbacks of an event that `view` shows. Raises RunError, with its cause, if a callback fails."""
        for callback in self._callbacks:
            try:
                getattr(callback, event)(view())
            except StopTraining as stop:
                self._stop.request(str(stop) or type(callback).__name__, 0)
            except Exception as error:
                name = type(callback).__name__
                raise RunError(f"{name}.{event} failed: {type(error).__name__}: {first_line(error)}") from error

    def notify_end(self, view: Callable[[], View]) -> None:
        """Notify all callbacks that the run is over. The first exception is raised after all have been called."""
        failures: list[Exception] = []
        for callback in self._callbacks:
            try:
                callback.on_end(view())
            except StopTraining:
                pass
            except Exception as error:  # noqa: BLE001 - it is raised below
                failures.append(error)
        if failures:
            raise failures[0]


class MetricsWithCallbacks:
    """Writes metrics, then notifies callbacks. Implements :class:`wn_dqn.training.metrics.Metrics`."""

    def __init__(self, metrics: Metrics, notify: Callable[[Event, Mapping[str, float]], None]) -> None:
        self._metrics, self._notify = metrics, notify

    def write(self, steps: int, row: Mapping[str, float]) -> None:
        """See :class:`wn_dqn.training.metrics.Metrics`."""
        self._metrics.write(steps, row)
        self._notify("on_metrics", row)

    def write_evaluation(self, steps: int, row: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """See :class:`wn_dqn.training.metrics.Metrics`."""
        self._metrics.write_evaluation(steps, row, histograms)
        self._notify("on_evaluation", row)
