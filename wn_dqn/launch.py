"""How a run begins and ends: trained from settings, or around a network that was trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wn_dqn import training
from wn_dqn.atari.games import Game
from wn_dqn.checkpoint import save_checkpoint
from wn_dqn.config import Settings, differences, dump_yaml, make_settings, merge
from wn_dqn.errors import RunError, UsageError
from wn_dqn.evaluation import Protocol
from wn_dqn.experiment import Experiment, build_experiment
from wn_dqn.games import find_any_game
from wn_dqn.machine import GIB, prepare_torch, require_memory
from wn_dqn.model_card import write_finished_card
from wn_dqn.nature_weights import assign
from wn_dqn.nn.q_network import QNetwork
from wn_dqn.play import single_game
from wn_dqn.progress import ProgressReporter
from wn_dqn.replay import FRAME_BYTES, STACK, ReplayBuffer
from wn_dqn.run_directory import RunDirectory
from wn_dqn.stop_request import StopRequest
from wn_dqn.training import Stop
from wn_dqn_agents import AGENTS

_OTHER_BYTES = 1 * GIB  # torch, the networks and their activations, the emulators
# Settings that may change when a run goes on: they say how long it runs and what is written.
_CHANGEABLE = ("learning.total_steps", "output.")


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
        experiment = build_experiment(settings, directory, device, reporter, StopRequest(stop_after_s))
        try:
            return _run(experiment)
        finally:
            if experiment.store is not None:
                experiment.store.close()


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


def settings_for_network(data: Mapping[str, Any], network: QNetwork) -> Settings:
    """Settings of a run that begins with `network`; all 18 actions are taken if that is what it has outputs for."""
    data = dict(data)
    if isinstance(data.get("game"), str):
        game = find_any_game(data["game"])
        data["game"] = game.name
        full = network.output.get_parameter("bias").numel() != _num_actions(game, full_action_set=False)
        data = merge([{"environment": {"full_action_set": full}}, data])
    settings = make_settings(data)
    if settings.param not in ("standard", "wn"):
        raise UsageError(f"a network is imported as standard or wn, not as {settings.param}")
    if settings.network.dueling:
        raise UsageError("a network is imported without dueling heads: set network.dueling=false")
    return settings


def import_run(settings: Settings, run_dir: Path, network: QNetwork, device: torch.device) -> Path:
    """Begin a run in `run_dir` whose network is given: at step 0, initialized, not yet evaluated.

    Returns its checkpoint. UsageError if there is a run already, or the network does not fit the game.
    """
    game = find_any_game(settings.game)
    outputs = network.output.get_parameter("bias").numel()
    actions = _num_actions(game, full_action_set=settings.environment.full_action_set)
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


def _num_actions(game: Game, *, full_action_set: bool) -> int:
    """How many actions the game has."""
    rules = Protocol("any", epsilon=0.0, games=1, full_action_set=full_action_set)
    return single_game(game, rules).num_actions
