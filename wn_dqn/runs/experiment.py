"""The experiment: the parts of a run, and how it is saved, restored and reported."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wn_dqn.config.files import differences, stored_settings
from wn_dqn.config.games import Game, game_of
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import make_env, single_game
from wn_dqn.envs.rules import training_rules
from wn_dqn.envs.vector_env import VectorEnv
from wn_dqn.errors import RunError, UsageError, first_line
from wn_dqn.evaluation.diagnostics import VisitedStates
from wn_dqn.evaluation.protocols import training_protocol
from wn_dqn.evaluation.rollout import Evaluation, evaluate
from wn_dqn.render.play import Painter, play
from wn_dqn.render.q_panel import QPanel
from wn_dqn.render.video import FRAMES_PER_S, Frame, write_gif
from wn_dqn.replay.buffer import Sampler
from wn_dqn.runs.callback import CallbackList, Event, MetricsWithCallbacks, View
from wn_dqn.runs.checkpoint import (
    CheckpointError,
    VerifiedFile,
    list_checkpoints,
    prune_checkpoints,
    require_verified,
    restore_newest,
    save_checkpoint,
)
from wn_dqn.runs.identity import changed_settings, require_accepted
from wn_dqn.runs.metrics_writer import MetricsWriter
from wn_dqn.runs.parts import make_agent, make_plan, make_sampler
from wn_dqn.runs.policy import Player, load_policy
from wn_dqn.runs.replay_files import ReplayStore, read_arrays, write_arrays
from wn_dqn.runs.replay_memory import MemoryWatch
from wn_dqn.runs.run_directory import RunDirectory, arithmetic
from wn_dqn.runs.snapshot import MISFITS, Snapshot, load_snapshot, replay_index
from wn_dqn.runs.start import NUM_STATES, START, start_of, write_start
from wn_dqn.runs.status import SAVED_STEPS
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.runs.story import details
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.system.durable import remove_leftovers
from wn_dqn.system.progress import ProgressReporter, ProgressTask
from wn_dqn.system.text import score_text
from wn_dqn.training.agent import Agent
from wn_dqn.training.loop import begin_games, games_in_progress, restore_games, train
from wn_dqn.training.plan import TrainingPlan
from wn_dqn.training.state import TrainingState, new_state

_STATUS_PERIOD_S = 30.0
_CLIP_FRAMES = 10 * FRAMES_PER_S


@dataclass
class Experiment:
    """All parts of one run. Implements :class:`wn_dqn.training.host.Host`."""

    settings: Settings
    directory: RunDirectory
    game: Game
    plan: TrainingPlan
    env: VectorEnv
    agent: Agent
    sampler: Sampler
    store: ReplayStore | None
    metrics: MetricsWriter
    state: TrainingState
    stop: StopRequest
    reporter: ProgressReporter
    memory: MemoryWatch
    task: ProgressTask | None = None
    held_out_file: VerifiedFile | None = None
    test_env: VectorEnv | None = None
    scores: list[tuple[int, float]] = field(default_factory=list)
    """steps and mean return of each evaluation so far"""
    callbacks: CallbackList = field(default_factory=lambda: CallbackList((), StopRequest()))
    unsaved: OSError | None = None
    saved_steps: int | None = None
    accepted: list[str] = field(default_factory=list)
    """differences from the saved run that the user has accepted"""
    _unwritten: OSError | None = None
    _status_s: float = 0.0
    _status: str = ""
    _newest: dict[Event, Mapping[str, float]] = field(default_factory=dict)
    """rows of the tables"""
    _checkpoint: Path | None = None

    @property
    def steps(self) -> int:
        """Agent steps done."""
        return self.state.steps

    def run(self) -> None:
        """Train to the end; see :func:`wn_dqn.training.loop.train`."""
        total = self.settings.learning.total_steps
        with self.reporter.task("training", total, self.state.steps) as self.task:
            self.task.show_curve([score for _, score in self.scores])
            metrics = MetricsWithCallbacks(self.metrics, self._notify_row)
            train(self.plan, self.env, self.agent, self.sampler, metrics, self, self.state)

    def _notify_row(self, event: Event, row: Mapping[str, float]) -> None:
        self._newest[event] = MappingProxyType(dict(row))
        self.callbacks.notify(event, self.view)

    @functools.cached_property
    def _settings_to_show(self) -> Settings:
        return self.settings.model_copy(deep=True)

    def view(self) -> View:
        """A snapshot of the run for callbacks. It contains only copies and immutable values."""
        nothing: Mapping[str, float] = MappingProxyType({})
        return View(
            settings=self._settings_to_show,
            run_directory=self.directory.path,
            status=self._status,
            steps=self.state.steps,
            updates=self.state.updates,
            epsilon=self.plan.epsilon(self.state.steps),
            metrics=self._newest.get("on_metrics", nothing),
            evaluation=self._newest.get("on_evaluation", nothing),
            checkpoint=self._checkpoint,
            message=self.reporter.message,
        )

    def evaluate(self, steps: int) -> Evaluation:
        protocol = training_protocol(self.settings.environment, self.settings.evaluation)
        if self.test_env is None:  # created once: an emulator never frees its threads
            on_hang = _end_because_emulator_hangs(self.directory, self.reporter)
            rules = training_rules(self.settings.environment)
            self.test_env = make_env(self.game, self.settings.evaluation.num_envs, rules, on_hang)
        seed, num_envs = self.settings.seed, self.settings.evaluation.num_envs
        visited = VisitedStates(self.settings.learning.discount, clip_rewards=self.env.spec.clip_rewards)
        with self.reporter.task("evaluating", self.settings.evaluation.steps) as task:

            def on_step(done: int) -> None:
                self.stop.check()
                task.update(done)
                self._refresh_status()

            result = evaluate(
                self.agent.q_values,
                self.test_env,
                protocol,
                env_seeds(seed, "evaluation", steps, 0, num_envs=num_envs),
                numpy_generator(seed, "evaluation", steps, 1),
                on_step,
                visited,
            )
        self.directory.require_in_place()
        self.scores.append((steps, result.mean))
        if self.task is not None:
            self.task.show_curve([score for _, score in self.scores])
        self.reporter.message(
            f"step {steps:,}: mean score {score_text(result.mean)}, median {score_text(result.median)}, "
            f"{len(result.games)} games (training protocol)"
        )
        period_epochs = self.settings.output.video_period_epochs
        epoch = round(steps / self.settings.evaluation.epoch_steps)
        if period_epochs and epoch % period_epochs == 0:
            self._write_clip(steps, result.mean)
        return result

    def _write_clip(self, steps: int, score: float) -> None:
        """Write ten seconds of the best network so far for TensorBoard: the current one, or the best that was saved."""
        agent: Player = self.agent
        trained_steps = steps
        best = self.directory.best_checkpoint()
        if best is not None and (best.score or 0.0) >= score:
            with contextlib.suppress(UsageError):  # restoring reports an unreadable checkpoint
                agent = load_policy(best.path, "", torch.device("cpu"), trust=True).agent
                trained_steps = best.steps
        protocol = training_protocol(self.settings.environment, self.settings.evaluation)
        env = single_game(self.game, protocol.env_rules)
        panel = QPanel(self.game.short_name, f"{self.settings.param}, step {trained_steps:,}", env.spec.action_names)
        painter = Painter(panel)
        with self.reporter.task("recording a clip", _CLIP_FRAMES) as task:

            def frames() -> Iterator[Frame]:
                for done, step in enumerate(play(agent.q_values, env, protocol, 1, self.settings.seed)):
                    self.stop.check()
                    task.update(done * env.spec.frames_per_step)
                    yield from painter.paint(step)

            file = io.BytesIO()
            write_gif(file, itertools.islice(frames(), _CLIP_FRAMES))
        self.metrics.write_clip(steps, "evaluation/best_network", file.getvalue(), painter.size)

    def on_initialized(self, outcome: Mapping[str, int]) -> None:
        counts = "".join(f", {name.replace('_', ' ')} {value:,}" for name, value in outcome.items())
        init = self.settings.network.init
        self.reporter.message(f"step {self.state.steps:,}: network initialized (init {init}{counts})")
        assert self.state.held_out is not None
        try:
            write_start(self.directory.path, start_of(self.agent.online, self.state.held_out[:NUM_STATES]))
        except OSError as error:
            self.reporter.message(f"{START} is not written: {error.strerror}")

    def after_step(self, state: TrainingState) -> None:
        self.directory.require_in_place()
        if self.store is not None:
            self.store.write_behind()
        assert self.task is not None
        period = state.period
        steps_per_s = period.steps / period.train_s if period.train_s > 0 else None
        self.task.update(state.steps, details(steps_per_s, self.plan.epsilon(state.steps), self.scores))
        self._report_waiting_rows()
        self._refresh_status()
        if self.callbacks.needs_steps:
            self.callbacks.notify("on_step", self.view)

    def _refresh_status(self) -> None:
        now_s = time.monotonic()
        if now_s - self._status_s > _STATUS_PERIOD_S:
            self._status_s = now_s
            self.write_status("running")
            self.memory.look()

    def _report_waiting_rows(self) -> None:
        before, self._unwritten = self._unwritten, self.metrics.unwritten
        if self._unwritten is not None and before is None:
            self.reporter.message(f"rows of the tables wait in memory: {self._unwritten}")
        if (self._unwritten is None) != (before is None):
            self.write_status("running")

    def check_stop(self) -> None:
        self.stop.check()

    def save(self, state: TrainingState, score: float | None) -> None:
        """Save a checkpoint. If the disk refuses it, training continues and the next save tries again."""
        self.directory.require_in_place()
        self.directory.require_own_folders()
        self.agent.check_finite()
        try:
            if state.held_out is not None and self.held_out_file is None:
                held_out = {"obs": state.held_out.numpy()}
                self.directory.replay.mkdir(exist_ok=True)  # it does not exist yet if the replay is not saved
                self.held_out_file = write_arrays(self.directory.replay / "held_out.arrays", held_out)
            snapshot = Snapshot(
                settings=self.settings.model_dump(),
                arithmetic=arithmetic(self.sampler.replay.device),
                training=state.state_dict(),
                agent=self.agent.state_dict(),
                metrics=self.metrics.state_dict(),
                replay=None if self.store is None else self.store.save(),
                priorities={} if self.store is None else self.sampler.replay.state_dict(),
                held_out=self.held_out_file,
            )
            self._checkpoint = save_checkpoint(self.directory.checkpoints, state.steps, snapshot.content(), score)
            self.saved_steps = state.steps
            keep = self.settings.output.keep_checkpoints
            # A later resume with more steps may turn this end into the middle of an epoch, which does not count. So the
            # best checkpoint of the epochs is kept, too.
            rules = self.settings.counts_test_at, self.settings.ends_epoch
            prune_checkpoints(self.directory.checkpoints, keep, *rules)
            if self.store is not None:
                newest = list_checkpoints(self.directory.checkpoints)[-keep:]
                self.store.prune([replay_index(checkpoint.path) for checkpoint in newest])
            if self.unsaved is not None:
                self.reporter.message(f"checkpoint at step {state.steps:,} saved: the disk accepts checkpoints again")
            self.unsaved = None
        except OSError as error:
            self.unsaved = error
            self.reporter.message(f"checkpoint at step {state.steps:,} failed: {error}; the previous one is kept")
        self.write_status("running")
        if self.unsaved is None:
            self.callbacks.notify("on_checkpoint", self.view)

    def restore(self, *, accept_changes: bool = False) -> str | None:
        """Continue from the newest complete checkpoint. Returns a message, or None if there is no checkpoint.

        Raises RunError if there are checkpoints but none is readable, or if checkpoints have disappeared. Unless
        `accept_changes`, raises RunError if a table has changed, and UsageError if settings have. Raises Stop on
        request.
        """
        path = restore_newest(
            self.directory.checkpoints,
            lambda path: self._restore_from(path, accept_changes=accept_changes),
            self.reporter.message,
        )
        if path is None:
            self.directory.require_known_beginning()
            self._remove_leftovers()
            self.metrics.load_state_dict({})
            return None
        self._remove_leftovers()
        lost = max(int(self.directory.read_status().get("steps", 0)) - self.state.steps, 0)
        return f"resumed from {path.name}: step {self.state.steps:,}" + (f", {lost:,} steps lost" if lost else "")

    def _remove_leftovers(self) -> None:
        remove_leftovers(self.directory.checkpoints)
        remove_leftovers(self.directory.replay)

    def _restore_from(self, path: Path, *, accept_changes: bool) -> None:
        snapshot, replay = load_snapshot(path), self.sampler.replay
        try:
            old_settings = stored_settings(snapshot.settings)
        except UsageError as error:
            raise CheckpointError(f"{path}: does not fit this run: {first_line(error)}") from None
        changes = changed_settings(old_settings.model_dump(), self.settings.model_dump())
        require_accepted(changes, f"{path} was saved", accept=accept_changes)
        damages = self.metrics.problems(snapshot.metrics)
        if damages and not accept_changes:
            raise RunError(
                f"{damages[0]}: put it back, or go on with the rows that are left by --accept-changes, which records it"
            )
        try:
            self.held_out_file = snapshot.held_out
            self.state.held_out = self._read_held_out(snapshot.held_out)
            self.state.load_state_dict(snapshot.training)
            self.agent.load_state_dict(snapshot.agent)
            if snapshot.replay is not None and self.store is not None:
                self.store.load(snapshot.replay)
                replay.load_state_dict(snapshot.priorities)
            self.agent.check_finite()
        except (*MISFITS, RunError) as error:
            raise CheckpointError(f"{path}: does not fit this run: {first_line(error)}") from None
        if games_in_progress(self.plan, self.state):
            self._restore_games()
        if self.state.steps > 0 and (snapshot.replay is None or self.store is None):
            self.reporter.message("the replay was not saved: learning goes on once it has filled again")
            self.state.learning_from_steps = self.state.steps + self.plan.start_steps
        self.metrics.load_state_dict(self.metrics.mended(snapshot.metrics, self.state.steps))
        self.scores = self.metrics.scores()
        self.accepted, self.saved_steps = changes + damages, self.state.steps
        here = arithmetic(replay.device)
        changed = differences(snapshot.arithmetic or here, here)
        if changed:
            self.reporter.message(f"other arithmetic than before ({'; '.join(changed)}): the last bits may differ")

    def _read_held_out(self, file: VerifiedFile | None) -> Tensor | None:
        """Read the held-out states [B, *obs_shape]; None if there were none yet."""
        if file is None:
            return None
        spec = self.env.spec
        like = {"obs": np.empty((self.plan.held_out_states, *spec.obs_shape), spec.dtype)}
        return torch.from_numpy(read_arrays(self.directory.replay, file, like)["obs"])

    def _restore_games(self) -> None:
        if not self.env.spec.repeats:
            self.reporter.message(f"{self.game.name} does not repeat itself: new games begin")
            begin_games(self.plan, self.env, self.sampler.replay, self.state)
            return
        with self.reporter.task("restoring the games", len(self.state.epoch_actions)) as task:

            def on_step(done: int) -> None:
                self.stop.check()
                task.update(done)

            restore_games(self.plan, self.env, self.state, on_step)
        assert self.state.observed is not None
        if self.sampler.replay.num_appended == 0:
            self.sampler.replay.begin(self.state.observed.newest)

    def write_status(self, status: str, **details: Any) -> None:
        """Write the run's status for other programs."""
        if not self.directory.in_place:  # another process may have created a new run there
            return
        error = self.unsaved or self.metrics.unwritten
        if error is not None:
            status, details = "degraded", {"error": str(error), **details}
        self._status = status
        with contextlib.suppress(OSError):  # a full disk is reported on the console; the next status is enough
            saved = {SAVED_STEPS: self.saved_steps}
            self.directory.write_status(status, steps=self.state.steps, **saved, **details)


def build_experiment(
    settings: Settings, directory: RunDirectory, device: torch.device, reporter: ProgressReporter, stop: StopRequest
) -> Experiment:
    """A new experiment from `settings`. Nothing in `directory` is read yet."""
    game, plan = game_of(settings), make_plan(settings)
    num_envs = settings.environment.num_envs
    on_hang = _end_because_emulator_hangs(directory, reporter)
    env = make_env(game, num_envs, training_rules(settings.environment), on_hang)
    sampler = make_sampler(settings, env.spec, device)
    return Experiment(
        settings=settings,
        directory=directory,
        game=game,
        plan=plan,
        env=env,
        agent=make_agent(settings, env.spec, device),
        sampler=sampler,
        store=ReplayStore(directory.replay, sampler.replay) if settings.output.save_replay else None,
        metrics=MetricsWriter(directory.path, settings.model_dump()),
        state=new_state(env.spec, num_envs, plan),
        stop=stop,
        reporter=reporter,
        memory=MemoryWatch(sampler.replay, reporter.message, stop),
    )


def _end_because_emulator_hangs(directory: RunDirectory, reporter: ProgressReporter) -> Callable[[], None]:
    def end() -> None:
        error = "the emulator has stopped answering; the same command goes on from the last checkpoint"
        reporter.message(f"wn-dqn: {error}")
        with contextlib.suppress(OSError):
            known = {k: v for k, v in directory.read_status().items() if k in ("steps", SAVED_STEPS)}
            directory.write_status("failed", **known, error=error)
        os._exit(1)  # the main thread waits for the emulator and would never return

    return end


def verify_checkpoint(directory: RunDirectory, path: Path, *, resumable: bool) -> None:
    """Verify every byte of the checkpoint at `path`. Raises CheckpointError if one has changed.

    `resumable` includes the replay and the held-out states.
    """
    snapshot = load_snapshot(path)
    if not resumable:
        return
    files = [] if snapshot.replay is None else list(snapshot.replay["segments"])
    for file in [*files, *filter(None, [snapshot.held_out])]:
        require_verified(directory.replay, file)
