"""Evaluates trained networks in new games, one or many in parallel, and records the outcomes in their runs."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from wn_dqn import __version__
from wn_dqn.config.games import Game, game_of
from wn_dqn.config.plugins import import_plugins
from wn_dqn.errors import RunError
from wn_dqn.evaluation.protocols import EvaluationProtocol, bounded
from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.runs.checkpoint import list_checkpoints
from wn_dqn.runs.policy import Policy, find_checkpoint, load_policy, play_games, plugins_of_run
from wn_dqn.runs.records import read_reevaluations
from wn_dqn.runs.run_directory import REEVALUATIONS, RunDirectory
from wn_dqn.system.durable import append_line
from wn_dqn.system.hardware import prepare_torch
from wn_dqn.system.progress import ProgressReporter


@dataclass(frozen=True)
class Report:
    """The outcome of one test."""

    game: Game
    checkpoint: Path | None
    """None: a random policy"""
    param: str | None
    trained_steps: int | None
    protocol: EvaluationProtocol
    seed: int
    result: Evaluation

    def as_json(self) -> dict[str, Any]:
        """The content that ``wn-dqn evaluate --json`` prints."""
        return _without_nan(
            {
                "game": self.game.name,
                "policy": "random" if self.checkpoint is None else str(self.checkpoint),
                "param": self.param,
                "trained_steps": self.trained_steps,
                "protocol": self.protocol.name,
                "protocol_settings": self.protocol.rules(),
                "seed": self.seed,
                **self.result.metrics(),
                "scores": self.result.scores,
            }
        )

    def as_record(self) -> dict[str, Any]:
        """The content of its line in the run's ``reevaluations.jsonl``."""
        assert self.checkpoint is not None
        return _without_nan(
            {
                "checkpoint": self.checkpoint.name,
                "steps": self.trained_steps,
                "protocol": self.protocol.name,
                "protocol_settings": self.protocol.rules(),
                "games": len(self.result.games),
                "mean": self.result.mean,
                "std": self.result.std,
                "median": self.result.median,
                "seed": self.seed,
                "returns": self.result.scores,
                "wn_dqn_version": __version__,
                "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN by None, because JSON has no NaN. The standard deviation of one game is NaN, for instance."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def checkpoint_paths(arguments: Sequence[Path], which: str, *, all_of_a_run: bool) -> list[Path]:
    """The paths of the checkpoints in `arguments`, each of which is a checkpoint or a run.

    Of a run, `which` selects one checkpoint; `all_of_a_run` selects all of them. Raises UsageError if an argument is
    neither, or if a run has no such checkpoint.
    """
    paths = []
    for argument in arguments:
        run = RunDirectory(argument)
        if all_of_a_run and run.exists:
            paths += [info.path for info in list_checkpoints(run.checkpoints)] or [find_checkpoint(argument, which)]
        else:
            paths.append(find_checkpoint(argument, which))
    return list(dict.fromkeys(paths))


def evaluate_policy(
    policy: Policy | None,
    game: Game,
    protocol: EvaluationProtocol,
    num_envs: int,
    seed: int,
    reporter: ProgressReporter,
) -> Report:
    """Play one evaluation, with a uniformly random policy if `policy` is None.

    If the protocol is a number of games without a time limit, a time limit is added.
    """
    protocol = bounded(protocol)
    result = play_games(policy, game, protocol, num_envs, seed, reporter)
    if policy is None:
        return Report(game, None, None, None, protocol, seed, result)
    return Report(game, policy.path, policy.settings.param, policy.steps, protocol, seed, result)


def evaluate_checkpoints(
    paths: Sequence[Path],
    protocol: EvaluationProtocol,
    num_envs: int,
    seed: int,
    device: torch.device,
    jobs: int,
    reporter: ProgressReporter,
    on_report: Callable[[Report], None],
    named: Sequence[str] = (),
) -> list[Report]:
    """Evaluate each checkpoint, `jobs` at a time. Returns the reports in order. `on_report` receives each when done.

    `named` lists the external code that is allowed, see :func:`wn_dqn.runs.policy.load_policy`.

    Every evaluation uses the same seed. If there are several, each computes with one thread, so that no result depends
    on `jobs`. Raises UsageError for the first checkpoint that cannot be evaluated; `on_report` has received the reports
    of those before it.
    """
    if sys.platform == "win32":
        jobs = min(jobs, 61)  # the limit of a process pool on Windows
    plugins = tuple({name for path in paths for name in plugins_of_run(path)} & sys.modules.keys())
    task = _Task(protocol, num_envs, seed, str(device), one_thread=len(paths) > 1, named=tuple(named), plugins=plugins)

    reports: dict[Path, Report] = {}
    with reporter.task("testing checkpoints", len(paths)) if len(paths) > 1 else contextlib.nullcontext() as progress:
        for path, report in _outcomes(task, paths, min(jobs, len(paths)), reporter):
            reports[path] = report
            on_report(report)
            if progress is not None:
                progress.update(len(reports))
    return [reports[path] for path in paths]


@dataclass(frozen=True)
class _Task:
    """The arguments that are the same for every checkpoint. It is pickled for the workers."""

    protocol: EvaluationProtocol
    num_envs: int
    seed: int
    device: str
    one_thread: bool
    named: tuple[str, ...]
    plugins: tuple[str, ...]
    """modules that this process has imported, and that a worker must import, too"""

    def __call__(self, path: Path, reporter: ProgressReporter | None = None) -> Report:
        threads = torch.get_num_threads()
        if self.one_thread:
            torch.set_num_threads(1)
        try:
            import_plugins(self.plugins)
            policy = load_policy(path, "", torch.device(self.device), self.named)
            game = game_of(policy.settings)
            silent = ProgressReporter(Console(quiet=True))
            return evaluate_policy(policy, game, self.protocol, self.num_envs, self.seed, reporter or silent)
        finally:
            torch.set_num_threads(threads)


def _outcomes(
    task: _Task, paths: Sequence[Path], jobs: int, reporter: ProgressReporter
) -> Iterator[tuple[Path, Report]]:
    if jobs <= 1:
        for path in paths:
            yield path, task(path, reporter)
        return
    context = multiprocessing.get_context("spawn")  # an emulator hangs after a fork
    with ProcessPoolExecutor(jobs, context, initializer=_begin_worker, initargs=(task.device,)) as executor:
        futures: dict[Future[Report], Path] = {executor.submit(task, path): path for path in paths}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise RunError("a process that tested checkpoints died; with fewer --jobs there is more memory") from None
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _begin_worker(device: str) -> None:
    """Set up a worker process. It computes as the command does, and ends on an interrupt or when its parent ends."""
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    prepare_torch(torch.device(device), "float32")


def _end_with_parent() -> None:
    """Wait until the parent process has ended for any reason, and end this one: nobody would receive its results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_of(checkpoint: Path) -> RunDirectory | None:
    """The run that contains a checkpoint, if there is one."""
    folder = checkpoint.resolve().parent
    run = RunDirectory(folder.parent)
    return run if folder == run.checkpoints and run.exists else None


def read_records(checkpoint: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The re-evaluations in the run of a checkpoint, oldest first, and a message about each damaged line."""
    run = _run_of(checkpoint)
    if run is None:
        return [], []
    found, problems = read_reevaluations(run.path)
    records = [reevaluation.record for reevaluation in found]
    return [record for record in records if record.get("checkpoint") == checkpoint.name], problems


def append_to_run(report: Report) -> str | None:
    """Append the report to ``reevaluations.jsonl`` of the run that contains its checkpoint, if there is one.

    If that fails, the reason is returned as one line, and not raised: the scores must still be printed.
    """
    run = None if report.checkpoint is None else _run_of(report.checkpoint)
    if run is None:
        return None
    try:
        append_line(run.path / REEVALUATIONS, json.dumps(report.as_record()))
    except OSError as error:
        return f"this outcome is not kept in {run.path / REEVALUATIONS}: {error.strerror}"
    return None
