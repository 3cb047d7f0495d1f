"""Where the training loop is: everything of it that a checkpoint holds."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.config.schema import Settings
from wn_dqn.seeding import numpy_generator
from wn_dqn.training.agent import UpdateMetrics


@dataclass
class PeriodStatistics:
    """What happened since the last row of metrics: sums, so that a resumed run ends in the same row."""

    returns: list[float] = field(default_factory=list)
    game_steps: list[int] = field(default_factory=list)
    steps: int = 0
    updates: int = 0
    train_s: float = 0.0
    loss_sum: Tensor | None = None
    q_sum: Tensor | None = None

    def add_update(self, metrics: UpdateMetrics) -> None:
        """Nobody waits for the device here: sums stay tensors until the row is written."""
        self.loss_sum = metrics.loss.double() if self.loss_sum is None else self.loss_sum + metrics.loss
        self.q_sum = metrics.mean_q.double() if self.q_sum is None else self.q_sum + metrics.mean_q

    def metrics(self) -> dict[str, float]:
        """Means over the period; NaN where nothing happened."""
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
    """Where the loop is. With the agent, the replay and the metrics, this is all that a continuation needs."""

    num_envs: int
    replay_generator: np.random.Generator
    obs: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """the newest observations, as the environment gave them"""
    saved_obs_crc32: int = 0
    """of the observations that were saved: where games begin anew with an epoch, they are not brought back"""
    steps: int = 0
    updates: int = 0
    learning_from_steps: int = 0
    """the step that updates are counted from"""
    initialized: bool = False
    """whether the network is more than random numbers: initialized from data, or imported"""
    evaluated_at: int = 0
    epoch_began_at: int = -1
    epoch_actions: list[NDArray[np.uint8]] = field(default_factory=list)
    """every action since the games were reset: stepping them again restores the emulators, which save no state"""
    game_return: NDArray[np.float64] = field(init=False)
    game_steps: NDArray[np.int64] = field(init=False)
    period: PeriodStatistics = field(default_factory=PeriodStatistics)
    train_s: float = 0.0
    """seconds spent in training, evaluations not counted"""
    held_out: Tensor | None = None

    def __post_init__(self) -> None:
        self.game_return = np.zeros(self.num_envs)
        self.game_steps = np.zeros(self.num_envs, np.int64)

    def add_time(self, seconds: float) -> None:
        """Count seconds spent in training."""
        self.train_s += seconds
        self.period.train_s += seconds

    def state_dict(self) -> dict[str, Any]:
        """Everything but the held-out states, which never change and are saved once."""
        actions = np.stack(self.epoch_actions) if self.epoch_actions else np.zeros((0, self.num_envs), np.uint8)
        return {
            "steps": self.steps,
            "updates": self.updates,
            "learning_from_steps": self.learning_from_steps,
            "initialized": self.initialized,
            "evaluated_at": self.evaluated_at,
            "epoch_began_at": self.epoch_began_at,
            "epoch_actions": actions,
            "obs_crc32": zlib.crc32(self.obs.tobytes()) if self.obs.size else self.saved_obs_crc32,
            "train_s": self.train_s,
            "game_return": self.game_return,
            "game_steps": self.game_steps,
            "period": {key: value for key, value in vars(self.period).items() if value is not None},
            "replay_generator": self.replay_generator.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.steps, self.updates, self.train_s = state["steps"], state["updates"], state["train_s"]
        self.learning_from_steps, self.initialized = state["learning_from_steps"], state["initialized"]
        self.evaluated_at, self.epoch_began_at = state["evaluated_at"], state["epoch_began_at"]
        self.epoch_actions = list(state["epoch_actions"].numpy())
        self.game_return = state["game_return"].numpy().copy()
        self.game_steps = state["game_steps"].numpy().copy()
        self.period = PeriodStatistics(**state["period"])
        self.saved_obs_crc32 = state["obs_crc32"]
        self.replay_generator.bit_generator.state = state["replay_generator"]


def new_state(settings: Settings) -> TrainingState:
    """The state of a run that has not begun."""
    return TrainingState(
        settings.environment.num_envs,
        numpy_generator(settings.seed, "replay"),
        learning_from_steps=settings.learning.start_steps,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
