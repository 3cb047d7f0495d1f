"""Trained networks: where they are, and the games that they play."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from wn_dqn.config.files import make_settings
from wn_dqn.config.schema import Settings
from wn_dqn.envs.atari_games import Game
from wn_dqn.envs.registry import make_env
from wn_dqn.errors import UsageError, first_line
from wn_dqn.evaluation.protocols import FRAMES_PER_STEP, EvaluationProtocol
from wn_dqn.evaluation.rollout import Evaluation, evaluate
from wn_dqn.runs.checkpoint import CheckpointError, load_checkpoint
from wn_dqn.runs.make_agent import ATARI_OBS_SHAPE, make_agent
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.system.hardware import prepare_torch
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.agent import Agent


@dataclass(frozen=True)
class Policy:
    """A trained network, ready to be tested."""

    agent: Agent
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
        agent = make_agent(settings, ATARI_OBS_SHAPE, "uint8", int(content["agent"]["num_actions"]), device)
        agent.load_state_dict(content["agent"])
        return Policy(agent, settings, int(content["training"]["steps"]), path)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
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
