"""From settings to a running experiment: what a command builds, and how it ends."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from wn_dqn import training
from wn_dqn.atari.games import Game, find_game
from wn_dqn.atari.vector_env import AtariEnv
from wn_dqn.catch import Catch
from wn_dqn.checkpoint import (
    CheckpointError,
    NewerFormatError,
    VerifiedFile,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    read_state_json,
    read_verified,
    remove_leftovers,
    save_checkpoint,
    set_aside,
)
from wn_dqn.config import Settings, differences, dump_yaml, make_settings, merge
from wn_dqn.environment import VectorEnv
from wn_dqn.errors import RunError, UsageError
from wn_dqn.evaluation import FRAMES_PER_STEP, Evaluation, Protocol, evaluate
from wn_dqn.instruments import VisitedStates
from wn_dqn.machine import GIB, num_cores, prepare_torch, require_memory
from wn_dqn.metrics import MetricsWriter
from wn_dqn.model_card import write_finished_card
from wn_dqn.nature_weights import assign
from wn_dqn.nn.q_network import QNetwork
from wn_dqn.panel import Panel
from wn_dqn.play import Painter, play, single_game
from wn_dqn.prioritized_replay import make_replay
from wn_dqn.progress import ProgressReporter, ProgressTask
from wn_dqn.replay import FRAME_BYTES, STACK, ReplayBuffer
from wn_dqn.replay_store import ReplayIndex, ReplayStore, read_arrays, write_arrays
from wn_dqn.run_directory import RunDirectory, arithmetic
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.training import Stop, TrainingState
from wn_dqn.video import FRAMES_PER_S, Frame, write_gif
from wn_dqn_agents import AGENTS, DQN

_CATCH = Game("catch", "Catch", random=None, human=None, paper=None)
_OTHER_BYTES = 1 * GIB  # torch, the networks and their activations, the emulators
_STATUS_PERIOD_S = 30.0
_CLIP_FRAMES = 10 * FRAMES_PER_S
# Settings that may change when a run goes on: they say how long it runs and what is written.
_CHANGEABLE = ("learning.total_steps", "output.")


def find_any_game(name: str) -> Game:
    """The Atari game, or Catch, that `name` means; UsageError with the closest names if there is none."""
    return _CATCH if name.strip().lower() == "catch" else find_game(name)


def make_env(game: Game, num_envs: int, protocol: Protocol, on_hang: Callable[[], None] | None = None) -> VectorEnv:
    """`num_envs` games played under `protocol`; see :class:`AtariEnv` for `on_hang`."""
    if game is _CATCH:
        return Catch(num_envs)
    return AtariEnv(
        game.rom_id,
        num_envs,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_set=protocol.full_action_set,
        max_noop_frames=protocol.max_noop_frames,
        max_game_frames=protocol.max_game_frames,
        num_threads=min(num_cores(), num_envs),
        on_hang=on_hang,
    )


def training_protocol(settings: Settings) -> Protocol:
    """The rules of the training games, with the test policy and length of the evaluations after each epoch."""
    environment = settings.environment
    return Protocol(
        "training",
        epsilon=settings.evaluation.epsilon,
        steps=settings.evaluation.steps,
        max_game_frames=environment.max_game_frames,
        repeat_action_probability=environment.repeat_action_probability,
        full_action_set=environment.full_action_set,
        max_noop_frames=environment.max_noop_frames,
    )


class StopRequest:
    """Signals and a time budget, turned into a Stop that the loop raises when a step is complete."""

    def __init__(self, stop_after_s: float | None) -> None:
        self._deadline_s = None if stop_after_s is None else time.monotonic() + stop_after_s
        self._requested: tuple[str, int] | None = None

    def request(self, reason: str, exit_status: int) -> None:
        """Ask the loop to save and stop once its step is complete."""
        self._requested = (reason, exit_status)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM. The second one ends the process at once."""
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name, 128 + number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    def check(self) -> None:
        """Raise Stop(reason, exit status) if it is time to."""
        if self._requested is not None:
            raise Stop(*self._requested)
        if self._deadline_s is not None and time.monotonic() >= self._deadline_s:
            raise Stop("time budget used up", 0)


@dataclass
class Experiment:
    """Everything that one run is made of. Implements :class:`wn_dqn.training.Callbacks`."""

    settings: Settings
    directory: RunDirectory
    game: Game
    env: VectorEnv
    agent: DQN
    replay: ReplayBuffer
    store: ReplayStore | None
    metrics: MetricsWriter
    state: TrainingState
    stop: StopRequest
    reporter: ProgressReporter
    task: ProgressTask | None = None
    held_out_file: VerifiedFile | None = None
    test_env: VectorEnv | None = None
    last_evaluation: str = ""
    unsaved: OSError | None = None
    _unwritten: OSError | None = None
    _status_s: float = 0.0

    def run(self) -> None:
        """Train to the end; see :func:`wn_dqn.training.train`."""
        total = self.settings.learning.total_steps
        with self.stop.listening(), self.reporter.task("training", total, self.state.steps) as self.task:
            training.train(self.settings, self.env, self.agent, self.replay, self.metrics, self, self.state)

    def evaluate(self, steps: int) -> Evaluation:
        protocol = training_protocol(self.settings)
        if self.test_env is None:  # kept: an emulator's threads are never given back
            on_hang = _end_because_emulator_hangs(self.directory, self.reporter)
            self.test_env = make_env(self.game, self.settings.evaluation.num_envs, protocol, on_hang)
        seed, num_envs = self.settings.seed, self.settings.evaluation.num_envs
        visited = VisitedStates(
            self.settings.learning.discount,
            terminal_on_life_loss=self.settings.environment.terminal_on_life_loss,
        )
        with self.reporter.task("evaluating", self.settings.evaluation.steps) as task:

            def on_step(done: int) -> None:
                self.stop.check()
                task.update(done)

            result = evaluate(
                self.agent.q_values,
                self.test_env,
                protocol,
                env_seeds(seed, "evaluation", steps, 0, num_envs=num_envs),
                numpy_generator(seed, "evaluation", steps, 1),
                on_step,
                visited,
            )
        self.last_evaluation = f"evaluation {result.mean:,.1f}"
        self.reporter.message(
            f"step {steps:,}: mean score {result.mean:,.1f}, median {result.median:,.1f}, "
            f"{len(result.games)} games (training protocol)"
        )
        period_epochs = self.settings.output.video_period_epochs
        epoch = round(steps / self.settings.evaluation.epoch_steps)
        if period_epochs and epoch % period_epochs == 0:
            self._write_clip(steps, result.mean)
        return result

    def _write_clip(self, steps: int, score: float) -> None:
        """Ten seconds of the best network so far, this one or the best that was saved, for TensorBoard."""
        agent, trained_steps = self.agent, steps
        best = best_checkpoint(list_checkpoints(self.directory.checkpoints))
        if best is not None and (best.score or 0.0) >= score:
            with contextlib.suppress(UsageError):  # one that cannot be read is told elsewhere
                agent, trained_steps = load_policy(best.path, "", torch.device("cpu")).agent, best.steps
        protocol = training_protocol(self.settings)
        env = single_game(self.game, protocol)
        panel = Panel(self.game.name, f"{self.settings.param}, step {trained_steps:,}", env.action_names)
        painter = Painter(panel)
        with self.reporter.task("recording a clip", _CLIP_FRAMES) as task:

            def frames() -> Iterator[Frame]:
                for done, step in enumerate(play(agent.q_values, env, protocol, 1, self.settings.seed)):
                    self.stop.check()
                    task.update(done * FRAMES_PER_STEP)
                    yield from painter.paint(step)

            file = io.BytesIO()
            write_gif(file, itertools.islice(frames(), _CLIP_FRAMES))
        self.metrics.write_clip(steps, "evaluation/best_network", file.getvalue(), painter.size)

    def on_initialized(self, figures: Mapping[str, int]) -> None:
        told = "".join(f", {name.replace('_', ' ')} {value:,}" for name, value in figures.items())
        init = self.settings.network.init
        self.reporter.message(f"step {self.state.steps:,}: network initialized (init {init}{told})")

    def after_step(self, state: TrainingState) -> None:
        if self.store is not None:
            self.store.write_behind()
        assert self.task is not None
        period = state.period
        speed = f"{period.steps / period.train_s:,.0f} steps/s" if period.train_s > 0 else ""
        self.task.update(state.steps, ", ".join(filter(None, (speed, self.last_evaluation))))
        self._tell_whether_rows_wait()
        now_s = time.monotonic()
        if now_s - self._status_s > _STATUS_PERIOD_S:
            self._status_s = now_s
            self.write_status("running")

    def _tell_whether_rows_wait(self) -> None:
        before, self._unwritten = self._unwritten, self.metrics.unwritten
        if self._unwritten is not None and before is None:
            self.reporter.message(f"rows of the tables wait in memory: {self._unwritten}")
        if (self._unwritten is None) != (before is None):
            self.write_status("running")

    def check_stop(self) -> None:
        self.stop.check()

    def save(self, state: TrainingState, score: float | None) -> None:
        """Save a checkpoint. If the disk refuses, training goes on and the next save tries again."""
        self.agent.check_finite()
        try:
            if state.held_out is not None and self.held_out_file is None:
                held_out = {"obs": state.held_out.numpy()}
                self.held_out_file = write_arrays(self.directory.replay / "held_out.arrays", held_out)
            content = {
                "settings": self.settings.model_dump(),
                "arithmetic": arithmetic(self.replay.device),
                "training": state.state_dict(),
                "agent": self.agent.state_dict(),
                "metrics": self.metrics.state_dict(),
                "replay": None if self.store is None else self.store.save(),
                "priorities": {} if self.store is None else self.replay.state_dict(),
                "held_out": self.held_out_file,
            }
            save_checkpoint(self.directory.checkpoints, state.steps, content, score)
            keep = self.settings.output.keep_checkpoints
            prune_checkpoints(self.directory.checkpoints, keep)
            if self.store is not None:
                newest = list_checkpoints(self.directory.checkpoints)[-keep:]
                self.store.prune([_replay_index(checkpoint.path) for checkpoint in newest])
            if self.unsaved is not None:
                self.reporter.message(f"checkpoint at step {state.steps:,} saved: the disk takes them again")
            self.unsaved = None
        except OSError as error:
            self.unsaved = error
            self.reporter.message(f"checkpoint at step {state.steps:,} failed: {error}; the last good one stays")
        self.write_status("running")

    def restore(self) -> str | None:
        """Continue from the newest checkpoint that is whole; returns what was restored, None if there is none.

        RunError if there are checkpoints, but none that can be read.
        """
        remove_leftovers(self.directory.checkpoints)
        remove_leftovers(self.directory.replay)
        paths = sorted(self.directory.checkpoints.glob("step-*"), reverse=True)
        reasons = []
        for path in paths:
            try:
                self._restore_from(path)
            except NewerFormatError as error:  # not damaged: to go on from an older one would throw it away
                raise RunError(str(error)) from None
            except CheckpointError as error:
                reasons.append(str(error))
                self.reporter.message(f"skipping a checkpoint: {error}")
                continue
            for skipped in paths[: len(reasons)]:
                set_aside(skipped)
            lost = max(int(self.directory.read_status().get("steps", 0)) - self.state.steps, 0)
            return f"resumed from {path.name}: step {self.state.steps:,}" + (f", {lost:,} steps lost" if lost else "")
        if reasons:
            raise RunError(
                f"no checkpoint in {self.directory.path} can be read: {reasons[0]}; start anew with another --run-dir"
            )
        self.metrics.load_state_dict({})
        return None

    def _restore_from(self, path: Path) -> None:
        content = load_checkpoint(path)
        try:
            self.held_out_file, self.state.held_out = content["held_out"], None
            if content["held_out"] is not None:
                shape = (self.settings.evaluation.held_out_states, STACK, 84, 84)
                like = {"obs": np.empty(shape, np.uint8)}
                self.state.held_out = torch.from_numpy(
                    read_arrays(self.directory.replay, content["held_out"], like)["obs"]
                )
            self.state.load_state_dict(content["training"])
            self.agent.load_state_dict(content["agent"])
            if content["replay"] is not None and self.store is not None:
                self.store.load(content["replay"])
                self.replay.load_state_dict(content.get("priorities", {}))  # older ones have none
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: does not fit this run: {_first_line(error)}") from None
        if training.games_in_progress(self.settings, self.state):
            with self.reporter.task("restoring the games", len(self.state.epoch_actions)) as task:
                crc = content["training"]["obs_crc32"]
                training.restore_games(self.settings, self.env, self.state, crc, task.update)
            if self.replay.num_appended == 0:
                self.replay.begin(self.state.obs[:, -1])
        if self.state.steps > 0 and (content["replay"] is None or self.store is None):
            self.reporter.message("the replay was not saved: learning goes on once it has filled again")
            self.state.learning_from_steps = self.state.steps + self.settings.learning.start_steps
        self.metrics.load_state_dict(content["metrics"])
        here = arithmetic(self.replay.device)
        changed = differences(content.get("arithmetic", here), here)
        if changed:
            self.reporter.message(f"other arithmetic than before ({'; '.join(changed)}): the last bits may differ")

    def write_status(self, status: str, **details: Any) -> None:
        """Tell other programs how the run is."""
        error = self.unsaved or self.metrics.unwritten
        if error is not None:
            status, details = "degraded", {"error": str(error), **details}
        with contextlib.suppress(OSError):  # a full disk is told on the console; the status can wait
            self.directory.write_status(status, steps=self.state.steps, **details)


def train_run(
    settings: Settings,
    run_dir: Path,
    device: torch.device,
    reporter: ProgressReporter,
    *,
    resume: bool = True,
    stop_after_s: float | None = None,
) -> int:
    """Begin, continue or extend the run in `run_dir`; returns the exit status.

    Raises UsageError if the settings do not fit the run that is there, or the machine; RunError if it could not go on.
    """
    prepare_torch(device, settings.learning.precision, deterministic=settings.learning.deterministic)
    directory = RunDirectory(run_dir)
    if not directory.exists:
        _require_memory(settings, device)  # before anything is written
    directory.create()
    with directory.locked():
        if directory.exists:
            if not resume:
                raise UsageError(
                    f"{run_dir} holds a run already; choose another --run-dir, or leave out --resume never"
                )
            old = directory.read_settings()
            _require_same_experiment(old, settings, run_dir)
            done = directory.read_status()
            if done.get("status") == "finished" and done.get("steps", 0) >= settings.learning.total_steps:
                reporter.message(f"{run_dir} is finished: {done['steps']:,} steps; raise --steps to go on")
                return 0
            _require_memory(settings, device)
        reporter.message(dump_yaml(settings.model_dump()).rstrip())
        directory.write_settings(settings)
        directory.add_provenance(device)
        experiment = _build(settings, directory, device, reporter, StopRequest(stop_after_s))
        try:
            return _run(experiment)
        finally:
            if experiment.store is not None:
                experiment.store.close()


def num_actions_of(game: Game, *, full_action_set: bool) -> int:
    """How many actions the game has."""
    rules = Protocol("any", epsilon=0.0, games=1, full_action_set=full_action_set)
    return single_game(game, rules).num_actions


def settings_for_network(data: Mapping[str, Any], network: QNetwork) -> Settings:
    """Settings of a run that begins with `network`; all 18 actions are taken if that is what it has outputs for."""
    data = dict(data)
    if isinstance(data.get("game"), str):
        game = find_any_game(data["game"])
        data["game"] = game.name
        full = network.output.get_parameter("bias").numel() != num_actions_of(game, full_action_set=False)
        data = merge([{"environment": {"full_action_set": full}}, data])
    settings = make_settings(data)
    if settings.param not in ("standard", "wn"):
        raise UsageError(f"a network is imported as standard or wn, not as {settings.param}")
    return settings


def import_run(settings: Settings, run_dir: Path, network: QNetwork, device: torch.device) -> Path:
    """Begin a run in `run_dir` whose network is given: at step 0, initialized, not yet evaluated.

    Returns its checkpoint. UsageError if there is a run already, or the network does not fit the game.
    """
    game = find_any_game(settings.game)
    outputs = network.output.get_parameter("bias").numel()
    actions = num_actions_of(game, full_action_set=settings.environment.full_action_set)
    if outputs != actions:
        raise UsageError(f"the network has {outputs} outputs, but {game.name} has {actions} actions")
    directory = RunDirectory(run_dir)
    if directory.exists:
        raise UsageError(f"{run_dir} holds a run already; choose another --output")
    agent = AGENTS[settings.agent](settings, actions, device)
    assign(agent.online, network)
    agent.update_target()
    state = training.new_state(settings)
    state.initialized, state.evaluated_at = True, -1  # the first thing that a training does is to test it
    directory.create()
    with directory.locked():
        content = {
            "settings": settings.model_dump(),
            "training": state.state_dict(),
            "agent": agent.state_dict(),
            "metrics": {},
            "replay": None,
            "held_out": None,
        }
        path = save_checkpoint(directory.checkpoints, 0, content, score=None)
        directory.add_provenance(device)
        directory.write_status("paused", steps=0, reason="imported")
        directory.write_settings(settings)  # last: only now it is a run
    return path


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _replay_index(path: Path) -> ReplayIndex | None:
    """What the checkpoint at `path` needs of the replay; None if it says nothing readable."""
    try:
        index: ReplayIndex | None = read_state_json(path)["replay"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return index


def _run(experiment: Experiment) -> int:
    try:
        restored = experiment.restore()
        experiment.reporter.message(restored or f"training in {experiment.directory.path}")
        experiment.run()
        if experiment.unsaved is not None:
            raise RunError(f"the last checkpoint could not be saved: {experiment.unsaved}")
    except Stop as stop:
        reason, exit_status = stop.args
        experiment.write_status("paused", reason=reason)
        experiment.reporter.message(
            f"stopped at step {experiment.state.steps:,} ({reason}); the same command goes on from here"
        )
        if experiment.unsaved is not None:
            raise RunError(f"the last checkpoint could not be saved: {experiment.unsaved}") from None
        return int(exit_status)
    except RunError as error:
        experiment.write_status("failed", error=str(error))
        raise
    experiment.write_status("finished")
    write_finished_card(experiment.directory.path, experiment.reporter.message)
    return 0


def _build(
    settings: Settings, directory: RunDirectory, device: torch.device, reporter: ProgressReporter, stop: StopRequest
) -> Experiment:
    game = find_any_game(settings.game)
    num_envs = settings.environment.num_envs
    on_hang = _end_because_emulator_hangs(directory, reporter)
    env = make_env(game, num_envs, training_protocol(settings), on_hang)
    replay = make_replay(settings, device)
    return Experiment(
        settings=settings,
        directory=directory,
        game=game,
        env=env,
        agent=AGENTS[settings.agent](settings, env.num_actions, device),
        replay=replay,
        store=ReplayStore(directory.replay, replay) if settings.output.save_replay else None,
        metrics=MetricsWriter(directory.path, settings.model_dump()),
        state=training.new_state(settings),
        stop=stop,
        reporter=reporter,
    )


def _end_because_emulator_hangs(directory: RunDirectory, reporter: ProgressReporter) -> Callable[[], None]:
    def end() -> None:
        error = "the emulator has stopped answering; the same command goes on from the last checkpoint"
        reporter.message(f"wn-dqn: {error}")
        with contextlib.suppress(OSError):
            directory.write_status("failed", error=error)
        os._exit(1)  # the main thread waits for the emulator, and always will

    return end


def _require_same_experiment(old: Settings, new: Settings, run_dir: Path) -> None:
    changed = differences(old.model_dump(), new.model_dump())
    refused = [line for line in changed if not line.startswith(_CHANGEABLE)]
    if refused:
        raise UsageError(f"{run_dir} holds a run with other settings ({'; '.join(refused)}); choose another --run-dir")


def _require_memory(settings: Settings, device: torch.device) -> None:
    capacity, num_envs = settings.replay.capacity, settings.environment.num_envs
    replay_bytes = ReplayBuffer.memory_bytes(capacity, num_envs)
    held_out_bytes = 2 * settings.evaluation.held_out_states * STACK * FRAME_BYTES  # once more while it is saved
    require_memory(replay_bytes, _OTHER_BYTES + held_out_bytes, replay_bytes // capacity + 1, device)


def verify_checkpoint(directory: RunDirectory, path: Path, *, resumable: bool) -> None:
    """Read every byte of the checkpoint at `path`; CheckpointError if one is not as it was written.

    `resumable`: the replay and the held-out states, too.
    """
    content = load_checkpoint(path)
    if not resumable:
        return
    try:
        files = [] if content["replay"] is None else list(content["replay"]["segments"])
        for file in [*files, *filter(None, [content["held_out"]])]:
            read_verified(directory.replay, file)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this agent: {error}") from None


@dataclass(frozen=True)
class Policy:
    """A trained network, ready to be tested."""

    agent: DQN
    settings: Settings
    steps: int
    path: Path


def find_checkpoint(path: Path, which: str) -> Path:
    """`path` if it is a checkpoint, else the `which` (best, last, or steps) checkpoint of the run directory `path`.

    Raises UsageError if there is none.
    """
    if os.path.exists(path / "manifest.json"):  # unlike Path.exists, false for a name that is too long
        return path
    run = RunDirectory(path)
    run.read_settings()
    try:
        return run.find_checkpoint(which).path
    except CheckpointError as error:
        raise UsageError(str(error)) from None


def load_policy(path: Path, which: str, device: torch.device) -> Policy:
    """The agent in a checkpoint, or in the `which` (best, last, or steps) checkpoint of a run directory.

    Raises UsageError if there is none or it cannot be read. The replay is not opened.
    """
    path = find_checkpoint(path, which)
    try:
        content = load_checkpoint(path)
        settings = make_settings(content["settings"])
        prepare_torch(device, settings.learning.precision if device.type == "cuda" else "float32")
        agent = AGENTS[settings.agent](settings, int(content["agent"]["num_actions"]), device)
        agent.load_state_dict(content["agent"])
        return Policy(agent, settings, int(content["training"]["steps"]), path)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path}: not a checkpoint of this agent: {_first_line(error)}") from None


def play_games(
    policy: Policy | None,
    game: Game,
    protocol: Protocol,
    num_envs: int,
    seed: int,
    reporter: ProgressReporter,
) -> Evaluation:
    """Play `game` under `protocol`, with a uniformly random policy if `policy` is None.

    UsageError if the network has fewer outputs than the protocol has actions.
    """
    if protocol.games is not None:
        num_envs = min(num_envs, protocol.games)
    env = make_env(game, num_envs, protocol)
    if policy is not None and policy.agent.num_actions != env.num_actions:
        raise UsageError(
            f"protocol {protocol.name} plays {game.name} with {env.num_actions} actions, but this network has "
            f"{policy.agent.num_actions} outputs; train with --set environment.full_action_set="
            f"{str(protocol.full_action_set).lower()}, or choose another --protocol"
        )
    total = protocol.steps or num_envs * (protocol.max_game_frames or 0) // FRAMES_PER_STEP
    with reporter.task(f"playing {game.name}", total) as task:
        return evaluate(
            None if policy is None else policy.agent.q_values,
            env,
            protocol,
            env_seeds(seed, "evaluation", 0, 0, num_envs=num_envs),
            numpy_generator(seed, "evaluation", 0, 1),
            task.update,
        )
