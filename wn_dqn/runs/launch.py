"""Starts and ends a run: from settings, or from a network that was trained elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wn_dqn.config.games import OutsideGame, game_of
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.twin import first_difference
from wn_dqn.envs.vector_env import EnvironmentFailure
from wn_dqn.errors import FINISHED, UsageError
from wn_dqn.nn.kernels import SWITCHED_OFF, find_kernels
from wn_dqn.runs.bench import precision_advice
from wn_dqn.runs.callback import Callback, CallbackList
from wn_dqn.runs.checkpoint import list_checkpoints
from wn_dqn.runs.ending import train_to_an_end
from wn_dqn.runs.experiment import Experiment, build_experiment
from wn_dqn.runs.identity import changed_settings, require_accepted
from wn_dqn.runs.replay_memory import expected_bytes, is_compressed, plain_bytes
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.runs.story import opening
from wn_dqn.system.hardware import GIB, available_memory_bytes, prepare_torch, require_memory
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.host import Stop

_OTHER_BYTES = 1 * GIB  # for torch, the networks and their activations, the emulators


def train_run(
    settings: Settings,
    run_dir: Path,
    device: torch.device,
    reporter: ProgressReporter,
    *,
    resume: bool = True,
    accept_changes: bool = False,
    stop: StopRequest | None = None,
    on_finished: Callable[[Path], None] = lambda _run_dir: None,
    callbacks: Sequence[Callback] = (),
) -> int:
    """Start, resume or extend the run in `run_dir`. Returns the exit status.

    `stop` ends the run early: it is saved, and continues when it is trained again. Threads, allocator and determinism
    are set for the whole process (:func:`wn_dqn.system.hardware.prepare_torch`). No signal is handled.
    `on_finished` is called with the run's folder when the run is finished, while it is still locked.
    `accept_changes` resumes the run although settings differ from those of the run and its checkpoint, or tables were
    damaged. The differences are recorded in ``provenance.json``. `callbacks` are notified of events; see
    :class:`wn_dqn.runs.callback.Callback`.

    Raises UsageError if the settings do not fit the existing run or the machine. Raises RunError if the run cannot
    continue.
    """
    stop = stop or StopRequest()
    callback_list = CallbackList(callbacks, stop)
    prepare_torch(device, settings.learning.precision, deterministic=settings.learning.deterministic)
    if device.type == "cpu" and (why_not := find_kernels().why_not) not in ("", SWITCHED_OFF):
        reporter.message(f"no kernels, training is slower: {why_not}")
    directory = RunDirectory(run_dir)
    spec = spec_of(game_of(settings), training_rules(settings.environment))
    settings = _knowing_whether_it_repeats(settings, directory, reporter)
    compressed = is_compressed(settings, spec, device)
    if settings.replay.compression == "zstd" and not compressed:
        raise UsageError(f"a replay on {device} is not compressed: leave out replay.compression")
    if not directory.exists:
        _require_memory(settings, spec, device, compressed=compressed)  # before anything is written
    directory.create()
    with directory.locked():
        changes: list[str] = []
        if directory.exists:
            if not resume:
                raise UsageError(
                    f"{run_dir} holds a run already; choose another --run-dir, or leave out --resume never"
                )
            changes = changed_settings(directory.read_settings().model_dump(), settings.model_dump())
            require_accepted(changes, f"{run_dir} holds a run", accept=accept_changes)
            if _is_finished(directory, settings.learning.total_steps):
                steps = directory.read_status()["steps"]
                reporter.message(f"{run_dir} is finished: {steps:,} steps; raise --steps to go on")
                return 0
            _require_memory(settings, spec, device, compressed=compressed)
        directory.require_own_folders()
        for line in opening(settings, spec, run_dir, device):
            reporter.message(line)
        if compressed:
            plain, available = plain_bytes(settings, spec) / GIB, (available_memory_bytes() or 0) / GIB
            reporter.message(
                f"frames of the replay are compressed: as they are they take {plain:.1f} GiB, {available:.1f} are free"
            )
        if (advice := precision_advice(settings, device)) is not None:
            reporter.message(advice)
        experiment = build_experiment(settings, directory, device, reporter, stop)
        experiment.callbacks = callback_list
        try:
            # Nothing is written before the run is known to be resumable.
            restored = experiment.restore(accept_changes=accept_changes)
            directory.write_settings(settings.model_dump())
            directory.add_provenance(device, list(dict.fromkeys([*changes, *experiment.accepted])))
            if restored is not None:
                reporter.message(restored)
            experiment.write_status("running")
            return _run(experiment, on_finished)
        except Stop as asked:
            reason, exit_status = asked.args
            reporter.message(f"stopped before it went on ({reason}): nothing has changed; the same command goes on")
            return int(exit_status)
        finally:
            if experiment.store is not None:
                experiment.store.close()


def _knowing_whether_it_repeats(settings: Settings, directory: RunDirectory, reporter: ProgressReporter) -> Settings:
    """`settings` with a value for `environment.repeats`, if the environment is an external one.

    The value is that of an existing run. For a new run, the environment is tried out.
    """
    game = game_of(settings)
    if not isinstance(game, OutsideGame) or settings.environment.repeats is not None:
        return settings
    repeats = directory.read_settings().environment.repeats if directory.exists else None
    if repeats is None:
        different = first_difference(game, training_rules(settings.environment))
        repeats = different is None
        if not repeats:
            reporter.message(
                f"{game.name} does not repeat itself: begun twice with the same seeds and actions, it differs "
                f"{'at once' if different == 0 else f'after {different} steps'}. If this run is stopped, it goes on "
                "with new games, not exactly as if it had not been"
            )
    environment = settings.environment.model_copy(update={"repeats": repeats})
    return settings.model_copy(update={"environment": environment})


def _run(experiment: Experiment, on_finished: Callable[[Path], None]) -> int:
    """Train to the end, or to a stop. Returns the exit status. Callbacks are notified of the end in any case."""
    try:
        return _train(experiment, on_finished)
    finally:
        experiment.callbacks.notify_end(experiment.view)


def _train(experiment: Experiment, on_finished: Callable[[Path], None]) -> int:
    def train() -> None:
        experiment.callbacks.notify("on_start", experiment.view)
        experiment.run()

    try:
        status = train_to_an_end(experiment, train)
    except EnvironmentFailure as error:
        saved = "" if experiment.unsaved else f"; the run is saved at step {experiment.saved_steps:,}"
        raise EnvironmentFailure(f"{error}{saved}; the same command goes on from there") from None
    if status == FINISHED:
        on_finished(experiment.directory.path)
    return status


def _is_finished(directory: RunDirectory, total_steps: int) -> bool:
    """Whether the run is finished. A status that contradicts the newest checkpoint is ignored."""
    status, checkpoints = directory.read_status(), list_checkpoints(directory.checkpoints)
    steps = min([status.get("steps", 0), *(checkpoint.steps for checkpoint in checkpoints[-1:])])
    return status.get("status") == "finished" and steps >= total_steps


def memory_needs(settings: Settings, spec: EnvSpec, *, compressed: bool) -> tuple[int, int]:
    """The bytes of the full replay, and of everything else. Training is refused if they are not available."""
    held_out_bytes = 2 * settings.evaluation.held_out_states * spec.stack * spec.frame_bytes  # twice during a save
    return expected_bytes(settings, spec, compressed=compressed), _OTHER_BYTES + held_out_bytes


def _require_memory(settings: Settings, spec: EnvSpec, device: torch.device, *, compressed: bool) -> None:
    replay_bytes, other_bytes = memory_needs(settings, spec, compressed=compressed)
    require_memory(replay_bytes, other_bytes, replay_bytes // settings.replay.capacity + 1, device)
