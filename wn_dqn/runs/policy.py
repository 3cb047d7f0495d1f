"""Finds and loads trained networks, and plays games with them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from wn_dqn.config.files import read_yaml_mapping, stored_settings
from wn_dqn.config.games import Game, game_of
from wn_dqn.config.plugins import plugins_of
from wn_dqn.config.schema import Settings
from wn_dqn.config.trust import require_trust
from wn_dqn.envs.factory import make_env, spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.errors import RunError, UsageError, first_line
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.evaluation.rollout import Evaluation, evaluate
from wn_dqn.nn.networks import QNetwork
from wn_dqn.runs.checkpoint import CheckpointError, read_state_json
from wn_dqn.runs.parts import make_agent
from wn_dqn.runs.run_directory import CONFIG, RunDirectory
from wn_dqn.runs.snapshot import MISFITS, load_snapshot
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.system.hardware import computing_on
from wn_dqn.system.progress import ProgressReporter


class Player(Protocol):
    """The part of an agent that acting needs."""

    @property
    def num_actions(self) -> int:
        """A: actions are 0..A-1."""

    @property
    def online(self) -> QNetwork:
        """The network that acts."""

    def q_values(self, obs: Tensor) -> Tensor:
        """See :class:`wn_dqn.training.agent.Agent`."""


@dataclass(frozen=True)
class Policy:
    """A trained network, ready to be tested."""

    agent: Player
    settings: Settings
    steps: int
    path: Path
    device: torch.device

    def q_values(self, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A] of observations uint8 [B, 4, 84, 84], with the precision of the training."""
        with computing_on(self.device, self.settings.learning.precision):
            return self.agent.q_values(obs)


def find_checkpoint(path: Path, which: str) -> Path:
    """`path` if it is a checkpoint, else a checkpoint of the run directory `path`: `which` is best, last, or steps.

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


def plugins_of_run(path: Path) -> list[str]:
    """The plugins that a run directory or a checkpoint names; empty if it cannot be read. Loading it reports why."""
    settings: object = None
    with contextlib.suppress(OSError, KeyError, UsageError):
        if os.path.exists(path / "manifest.json"):
            settings = read_state_json(path, dict[str, Any])["settings"]
        else:
            settings = read_yaml_mapping(path / CONFIG, "config")
    return plugins_of(settings) if isinstance(settings, dict) else []


def spec_of_policy(policy: Policy) -> EnvSpec:
    """The spec of the game of its training: observations and actions."""
    return spec_of(game_of(policy.settings), training_rules(policy.settings.environment))


def load_policy(
    path: Path, which: str, device: torch.device, named: Collection[str] = (), trust: bool = False
) -> Policy:
    """Load the agent in a checkpoint, or in a run directory, where `which` is best, last, or a number of steps.

    The process does not change: threads, allocator, determinism and precision stay as they are. The replay is not
    opened. Raises UsageError if there is no checkpoint, or if it cannot be read. Raises it also if the checkpoint
    refers to external code that is not among `named`, unless `trust` is set.
    """
    path = find_checkpoint(path, which)
    try:
        snapshot = load_snapshot(path)
        settings = stored_settings(snapshot.settings)
        require_trust(settings, named, trust)
        spec = spec_of(game_of(settings), training_rules(settings.environment))
        with computing_on(device, settings.learning.precision):
            agent = make_agent(settings, spec, device)
            agent.load_state_dict(snapshot.agent)
            agent.check_finite()
        return Policy(agent, settings, snapshot.training["steps"], path, device)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    except (*MISFITS, RunError) as error:
        raise UsageError(f"{path}: not a checkpoint of this agent: {first_line(error)}") from None


def play_games(
    policy: Policy | None,
    game: Game,
    protocol: EvaluationProtocol,
    num_envs: int,
    seed: int,
    reporter: ProgressReporter,
) -> Evaluation:
    """Play `game` under `protocol`, with a uniformly random policy if `policy` is None.

    Raises UsageError if the network has fewer outputs than the protocol has actions.
    """
    if protocol.games is not None:
        num_envs = min(num_envs, protocol.games)
    env = make_env(game, num_envs, protocol.env_rules)
    if policy is not None and policy.agent.num_actions != env.spec.num_actions:
        raise UsageError(
            f"protocol {protocol.name} plays {game.name} with {env.spec.num_actions} actions, but this network has "
            f"{policy.agent.num_actions} outputs; train with --set environment.full_action_set="
            f"{str(protocol.full_action_set).lower()}, or choose another --protocol"
        )
    total = protocol.steps or num_envs * (protocol.max_game_frames or 0) // env.spec.frames_per_step
    with reporter.task(f"playing {game.name}", total) as task:
        return evaluate(
            None if policy is None else policy.q_values,
            env,
            protocol,
            env_seeds(seed, "evaluation", 0, 0, num_envs=num_envs),
            numpy_generator(seed, "evaluation", 0, 1),
            task.update,
        )
