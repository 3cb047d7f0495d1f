"""The state of the training loop, as a checkpoint saves it."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.envs.frame_stack import FrameStack
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import EnvStep
from wn_dqn.seeding import numpy_generator
from wn_dqn.training.agent import UpdateMetrics
from wn_dqn.training.plan import TrainingPlan
from wn_dqn.training.running_statistics import RunningStatistics


@dataclass
class PeriodStatistics:
    """Sums over the period since the last row of metrics. They are saved, so that a resumed run writes the same row."""

    returns: list[float] = field(default_factory=list)
    game_steps: list[int] = field(default_factory=list)
    steps: int = 0
    updates: int = 0
    train_s: float = 0.0
    loss_sum: Tensor | None = None
    q_sum: Tensor | None = None

    def add_update(self, metrics: UpdateMetrics) -> None:
        """Add an update's metrics. The sums stay tensors until the row is written, to avoid waiting for the device."""
        self.updates += 1
        self.loss_sum = metrics.loss.double() if self.loss_sum is None else self.loss_sum + metrics.loss
        self.q_sum = metrics.mean_q.double() if self.q_sum is None else self.q_sum + metrics.mean_q

    def metrics(self) -> dict[str, float]:
        """Means over the period; NaN if there was no update or no game."""
        return {
            "train/episode_return": _mean(self.returns),
            "train/episode_steps": _mean(self.game_steps),
            "train/games": len(self.returns),
            "train/loss": math.nan if self.loss_sum is None else self.loss_sum.item() / self.updates,
            "train/mean_q": math.nan if self.q_sum is None else self.q_sum.item() / self.updates,
            "speed/steps_per_s": self.steps / self.train_s,
            "speed/updates_per_s": self.updates / self.train_s,
        }


@dataclass
class TrainingState:
    """The state of the loop. An exact resume needs this, the agent, the replay and the metrics."""

    spec: EnvSpec
    num_envs: int
    replay_generator: np.random.Generator
    observed: FrameStack | None = None
    """the newest observations; None before games start, also at an epoch's end, because new games start then"""
    action: NDArray[np.int64] | None = None
    """actions [N] of the step in progress; None after the environment has answered"""
    saved_obs_crc32: int = 0
    """checksum of the saved observations"""
    steps: int = 0
    updates: int = 0
    learning_from_steps: int = 0
    """the step from which updates are counted"""
    initialized: bool = False
    """whether the network has been initialized from data, or was imported"""
    evaluated_at: int = 0
    epoch_began_at: int = -1
    epoch_actions: list[NDArray[np.unsignedinteger[Any]]] = field(default_factory=list)
    """every action since the games were reset; repeating them restores the emulators, which cannot save their state"""
    game_return: NDArray[np.float64] = field(init=False)
    game_steps: NDArray[np.int64] = field(init=False)
    period: PeriodStatistics = field(default_factory=PeriodStatistics)
    train_s: float = 0.0
    """seconds of training, without evaluations"""
    held_out: Tensor | None = None
    statistics: RunningStatistics | None = None
    """statistics of all frames of the training games; None if observations are not normalized"""

    def __post_init__(self) -> None:
        self.game_return = np.zeros(self.num_envs)
        self.game_steps = np.zeros(self.num_envs, np.int64)

    def begin_games(self, frames: NDArray[Any]) -> None:
        """Start new games, whose first frames are `frames` [N, *frame_shape]."""
        self.observed = FrameStack(self.spec, self.num_envs)
        self.observed.begin(frames)

    def observe(self, step: EnvStep) -> None:
        """Update the observations after a step of all games."""
        assert self.observed is not None
        self.observed.push(step.frame, step.new_game)

    def record(self, action: NDArray[np.int64], step: EnvStep) -> None:
        """Count a step of all games that `action` [N] led to."""
        self.observe(step)
        if self.statistics is not None:
            self.statistics.add(step.frame)
        if self.spec.repeats:  # otherwise the actions could not restore the games
            self.epoch_actions.append(action.astype(self._action_dtype))
        self.steps += self.num_envs
        self.period.steps += self.num_envs
        self.game_return += step.reward
        self.game_steps += 1 if step.skipped is None else ~step.skipped
        self.period.returns += self.game_return[step.over].tolist()
        self.period.game_steps += self.game_steps[step.over].tolist()
        self.game_return[step.over] = 0.0
        self.game_steps[step.over] = 0

    def add_update(self, metrics: UpdateMetrics) -> None:
        """Count an update."""
        self.period.add_update(metrics)
        self.updates += 1

    def obs_crc32(self) -> int:
        """A checksum of the newest observations, to verify that games were restored."""
        return self.saved_obs_crc32 if self.observed is None else zlib.crc32(self.observed.obs.tobytes())

    @property
    def _action_dtype(self) -> np.dtype[Any]:
        return np.min_scalar_type(self.spec.num_actions - 1)

    def add_time(self, seconds: float) -> None:
        """Count seconds spent in training."""
        self.train_s += seconds
        self.period.train_s += seconds

    def state_dict(self) -> dict[str, Any]:
        """The state without the held-out states, which never change and are saved once."""
        none = np.zeros((0, self.num_envs), self._action_dtype)
        actions = np.stack(self.epoch_actions) if self.epoch_actions else none
        optional: dict[str, Any] = {} if self.action is None else {"action": self.action}
        if self.statistics is not None:
            optional["statistics"] = self.statistics.state_dict()
        return {
            **optional,
            "steps": self.steps,
            "updates": self.updates,
            "learning_from_steps": self.learning_from_steps,
            "initialized": self.initialized,
            "evaluated_at": self.evaluated_at,
            "epoch_began_at": self.epoch_began_at,
            "epoch_actions": actions,
            "obs_crc32": self.obs_crc32(),
            "train_s": self.train_s,
            "game_return": self.game_return,
            "game_steps": self.game_steps,
            "period": {key: value for key, value in vars(self.period).items() if value is not None},
            "replay_generator": self.replay_generator.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`. Raises ValueError if its arrays do not fit these games."""
        actions = torch.as_tensor(state["epoch_actions"]).numpy()
        game_return = torch.as_tensor(state["game_return"]).numpy()
        game_steps = torch.as_tensor(state["game_steps"]).numpy()
        fit = actions.shape == (len(actions), self.num_envs) and actions.dtype == self._action_dtype
        fit = fit and int(actions.max(initial=0)) < self.spec.num_actions
        fit = fit and all(
            array.shape == (self.num_envs,) and array.dtype == like.dtype and np.isfinite(array).all()
            for array, like in ((game_return, self.game_return), (game_steps, self.game_steps))
        )
        action = torch.as_tensor(state["action"]).numpy() if "action" in state else None
        if action is not None:
            fit = fit and action.shape == (self.num_envs,) and action.dtype == np.int64
            fit = fit and bool(((action >= 0) & (action < self.spec.num_actions)).all())
        period = PeriodStatistics(**copy.deepcopy(dict(state["period"])))
        fit = fit and all(each is None or each.shape == () for each in (period.loss_sum, period.q_sum))
        if not fit:
            raise ValueError("its games are not those of these settings")
        if self.statistics is not None:
            self.statistics.load_state_dict(state["statistics"])
        self.steps, self.updates, self.train_s = state["steps"], state["updates"], state["train_s"]
        self.learning_from_steps, self.initialized = state["learning_from_steps"], state["initialized"]
        self.evaluated_at, self.epoch_began_at = state["evaluated_at"], state["epoch_began_at"]
        self.epoch_actions = list(actions)
        self.game_return, self.game_steps, self.period = game_return.copy(), game_steps.copy(), period
        self.action = action
        self.saved_obs_crc32 = state["obs_crc32"]
        self.replay_generator.bit_generator.state = state["replay_generator"]


def new_state(spec: EnvSpec, num_envs: int, plan: TrainingPlan) -> TrainingState:
    """The state of a new run."""
    generator = numpy_generator(plan.seed, "replay")
    statistics = RunningStatistics(*spec.frame_shape) if plan.normalize_observations else None
    return TrainingState(spec, num_envs, generator, learning_from_steps=plan.start_steps, statistics=statistics)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
