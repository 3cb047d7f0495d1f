"""Trackers: callbacks that send a run's metrics to other programs, and never end or slow down the run.

A tracker works in its own thread, and receives rows through a queue. If it fails, the run prints one line and goes on
without it. If it is slower than the run, rows are left out when the queue is full.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import queue
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from wn_dqn.errors import UsageError, first_line
from wn_dqn.runs.callback import Callback, StopTraining, View
from wn_dqn.runs.metrics_writer import flatten
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.runs.tensorboard_events import evaluation_tag, first_record, record, scalars

_QUEUE_ROWS = 1_000


class Tracker(Callback, ABC):
    """The base class of trackers. Override `open`, `log` and `close`, which run in the tracker's thread."""

    package: ClassVar[str] = ""
    """the package that must be installed; the extra has the same name"""

    def __init__(self, patience_s: float = 30.0) -> None:
        """At its end, a run waits up to `patience_s` for rows that have not been sent.

        Raises UsageError if the required package is not installed.
        """
        if self.package and importlib.util.find_spec(self.package) is None:
            name = type(self).__name__
            raise UsageError(f"{name} needs {self.package}: pip install 'wn-dqn[{self.package}]'")
        self._patience_s = patience_s
        self._thread: threading.Thread | None = None

    @abstractmethod
    def open(self, view: View) -> None:
        """The run starts, or resumes."""

    @abstractmethod
    def log(self, steps: int, row: Mapping[str, float]) -> None:
        """Send finite numbers, by tag."""

    @abstractmethod
    def close(self, status: str) -> None:
        """The run ends as paused, finished or failed."""

    def on_start(self, view: View) -> None:
        """Begin the thread."""
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_QUEUE_ROWS)
        self._left_out = 0
        self._thread = threading.Thread(target=self._work, args=(view,), name=type(self).__name__, daemon=True)
        self._thread.start()

    def on_metrics(self, view: View) -> None:
        """Queue the row."""
        self._queue(view.steps, view.metrics)

    def on_evaluation(self, view: View) -> None:
        """Queue the row."""
        self._queue(view.steps, {evaluation_tag(name): value for name, value in view.evaluation.items()})

    def on_end(self, view: View) -> None:
        """Wait for the thread, at most `patience_s`."""
        if self._thread is None or not self._thread.is_alive():
            return
        try:
            self._calls.put(lambda: self.close(view.status), timeout=self._patience_s)
            self._calls.put(None, timeout=self._patience_s)
        except queue.Full:
            pass  # the queue is full because the thread is stuck
        else:
            self._thread.join(self._patience_s)
        name = type(self).__name__
        if self._thread.is_alive():
            view.message(f"{name} does not answer: it loses its pending rows, the run loses nothing")
        elif self._left_out:
            view.message(f"{name} was slower than the run: {self._left_out:,} rows were left out")

    def _queue(self, steps: int, row: Mapping[str, float]) -> None:
        if self._thread is None or not self._thread.is_alive():
            return
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        try:
            self._calls.put_nowait(lambda: self.log(steps, finite))
        except queue.Full:
            self._left_out += 1

    def _work(self, view: View) -> None:
        try:
            self.open(view)
            while (call := self._calls.get()) is not None:
                call()
        except Exception as error:  # noqa: BLE001 - another program may raise anything
            reason = f"{type(error).__name__}: {first_line(error)}"
            view.message(f"{type(self).__name__} failed, and the run goes on without it: {reason}")


def identity_of(view: View) -> str:
    """An identifier of the run, 16 characters, which stays the same after a resume or a move of its folder."""
    beginning = RunDirectory(view.run_directory).read_provenance()[:1]
    text = json.dumps([view.run_directory.name, beginning], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class TensorBoard(Tracker):
    """Writes the curves of a run to a second folder for TensorBoard, for instance one that many runs share.

    Each run also writes event files into its own directory. A resumed run truncates those to its checkpoint; to these
    it only appends.

    >>> tensorboard = wn_dqn.TensorBoard("all_curves")
    >>> run = wn_dqn.train("runs/Catch/config.yaml", run_dir="runs/a", callbacks=[tensorboard], progress=False)
    >>> [path.name for path in Path("all_curves").iterdir()]
    ['a']
    """

    def __init__(self, folder: str | os.PathLike[str], patience_s: float = 30.0) -> None:
        """Each run gets a folder with its name in `folder`."""
        super().__init__(patience_s)
        self._folder = Path(folder)

    def open(self, view: View) -> None:
        """Begin an event file."""
        folder = self._folder / view.run_directory.resolve().name
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._file.write(first_record())

    def log(self, steps: int, row: Mapping[str, float]) -> None:
        """Write one event."""
        self._file.write(record(steps, scalars(row)))
        self._file.flush()

    def close(self, status: str) -> None:
        """Close the file."""
        self._file.close()


class WandbTracker(Tracker):
    """Weights & Biases: settings, metrics and evaluations by tag, over agent steps.

    A resumed run continues the same run there. Its files are in the run directory. ``WANDB_MODE=offline`` needs no
    account: `wandb sync` sends them later.

    >>> tracker = wn_dqn.WandbTracker(project="catch", mode="offline")
    >>> run = wn_dqn.train("runs/Catch/config.yaml", run_dir="runs/a", callbacks=[tracker], progress=False)
    >>> len(list(Path("runs/a/wandb").glob("offline-run-*")))
    1
    """

    package = "wandb"

    def __init__(self, project: str = "wn_dqn", *, patience_s: float = 60.0, **options: Any) -> None:
        """`options` go to ``wandb.init``."""
        super().__init__(patience_s)
        self._options = {"project": project, **options}

    def open(self, view: View) -> None:
        """Start the run, or resume it."""
        wandb = importlib.import_module("wandb")
        mode = self._options.get("mode", os.environ.get("WANDB_MODE"))
        defaults = {
            "id": identity_of(view),
            "mode": mode,  # explicit, because wandb reads the variable only once in a process
            "resume": None if mode == "offline" else "allow",
            "name": view.run_directory.resolve().name,
            "dir": str(view.run_directory.resolve()),  # its service may have started in another folder
            "config": view.settings.model_dump(),
            "settings": wandb.Settings(console="off", silent=True),
        }
        self._run = wandb.init(**{**defaults, **self._options})

    def log(self, steps: int, row: Mapping[str, float]) -> None:
        """Log one row."""
        self._run.log(dict(row), step=steps)

    def close(self, status: str) -> None:
        """Finish the run."""
        self._run.finish(exit_code=int(status == "failed"))


class MLflowTracker(Tracker):
    """MLflow: settings as parameters, metrics and evaluations by tag, over agent steps.

    A resumed run continues the same run there. MLflow's global state in this process does not change.

    >>> tracker = wn_dqn.MLflowTracker("catch", tracking_uri="sqlite:///mlflow.db")
    >>> run = wn_dqn.train("runs/Catch/config.yaml", run_dir="runs/a", callbacks=[tracker], progress=False)
    >>> Path("mlflow.db").exists()
    True
    """

    package = "mlflow"

    def __init__(
        self, experiment: str = "wn_dqn", *, tracking_uri: str | None = None, patience_s: float = 60.0
    ) -> None:
        """The default of `tracking_uri` is MLflow's own, which ``MLFLOW_TRACKING_URI`` can set."""
        super().__init__(patience_s)
        self._experiment, self._uri = experiment, tracking_uri

    def open(self, view: View) -> None:
        """Start the run, or resume it."""
        tracking = importlib.import_module("mlflow.tracking")
        self._entities = importlib.import_module("mlflow.entities")
        self._client = tracking.MlflowClient(self._uri)
        known = self._client.get_experiment_by_name(self._experiment)
        experiment = self._client.create_experiment(self._experiment) if known is None else known.experiment_id
        identity = identity_of(view)
        found = self._client.search_runs([experiment], f"tags.wn_dqn_run = '{identity}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        name = view.run_directory.resolve().name
        self._id = self._client.create_run(experiment, tags={"wn_dqn_run": identity}, run_name=name).info.run_id
        settings = flatten(view.settings.model_dump())
        parameters = [self._entities.Param(name, str(value)) for name, value in settings.items()]
        self._client.log_batch(self._id, params=parameters)

    def log(self, steps: int, row: Mapping[str, float]) -> None:
        """Log one row."""
        now_ms = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now_ms, steps) for name, value in row.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, status: str) -> None:
        """Set the final status of the run."""
        statuses = {"finished": "FINISHED", "paused": "KILLED"}
        self._client.set_terminated(self._id, statuses.get(status, "FAILED"))


class OptunaPruning(Callback):
    """Reports each evaluation to an Optuna trial, and ends the run if the study prunes it.

    The run is saved, and :func:`wn_dqn.train` raises ``optuna.TrialPruned``, as a study's objective requires.

    >>> import optuna
    >>> def objective(trial):
    ...     rate = trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
    ...     run = wn_dqn.train("runs/Catch/config.yaml", **{"optimizer.learning_rate": rate}, progress=False,
    ...                        run_dir=f"runs/trial{trial.number}", callbacks=[wn_dqn.OptunaPruning(trial)])
    ...     return run.evaluations["mean_return"][-1]
    >>> optuna.logging.disable_default_handler()
    >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    >>> study.optimize(objective, n_trials=1)
    >>> study.trials[0].intermediate_values.keys()
    dict_keys([120, 240, 320])
    """

    def __init__(self, trial: Any, column: str = "mean_return") -> None:
        """`trial` is an ``optuna.Trial``. `column` is the column of evaluations.csv that is reported."""
        self._trial, self._column, self._pruned = trial, column, False

    def on_evaluation(self, view: View) -> None:
        """Report the evaluation, and stop if the study prunes the trial."""
        self._trial.report(view.evaluation[self._column], view.steps)
        if self._trial.should_prune():
            self._pruned = True
            raise StopTraining("pruned by Optuna")

    def on_end(self, view: View) -> None:
        """Raise ``optuna.TrialPruned`` if the run was pruned."""
        if self._pruned:
            raise importlib.import_module("optuna").TrialPruned
