"""Trained networks: where they are, and the games that they play."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wn_dqn.config.files import stored_settings
from wn_dqn.config.games import Game, game_of
from wn_dqn.config.schema import Settings
from wn_dqn.config.trust import require_trust
from wn_dqn.envs.factory import make_env, spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.errors import RunError, UsageError, first_line
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.evaluation.rollout import Evaluation, evaluate
from wn_dqn.runs.checkpoint import CheckpointError
from wn_dqn.runs.parts import make_agent
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.runs.snapshot import MISFITS, load_snapshot
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.system.hardware import computing_on
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.agent import Agent


@dataclass(frozen=True)
class Policy:
    """A trained network, ready to be tested."""

    agent: Agent
    settings: Settings
    steps: int
    path: Path
    device: torch.device

    def q_values(self, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A] of observations uint8 [B, 4, 84, 84], with the precision of the training."""
        with computing_on(self.device, self.settings.learning.precision):
            return self.agent.q_values(obs)


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


def load_policy(
    path: Path, which: str, device: torch.device, named: Collection[str] = (), trust: bool = False
) -> Policy:
    """The agent in a checkpoint, or in the `which` (best, last, or steps) checkpoint of a run directory.

    Nothing of the process changes: threads, allocator, determinism and the arithmetic of others stay as they are.
    Raises UsageError if there is none or it cannot be read, or if it names code from outside that is not among `named`,
    unless `trust`. The replay is not opened.
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

    UsageError if the network has fewer outputs than the protocol has actions.
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
