"""Environments from outside, small enough to be trained in a test: what a user might write, good and bad."""

from __future__ import annotations

import itertools
import os
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from wn_dqn.envs.rules import EnvRules

Obs = NDArray[Any]
Info = dict[str, Any]


class Walk(gymnasium.Env[Obs, int]):
    """A walk on a line with a wind: it ends at 3 or -3, or is truncated after `limit` steps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    failures: ClassVar[list[str]] = []
    """what goes wrong next, in any of these environments: a name of :meth:`_go_wrong`, or a number of steps before"""

    def __init__(self, limit: int = 7, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(-10.0, 10.0, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.limit, self.render_mode = limit, render_mode
        self.at, self.count = 0.0, 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Obs, Info]:
        super().reset(seed=seed)
        self.at, self.count = float(self.np_random.normal()), 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[Obs, float, bool, bool, Info]:
        self._fail()
        self.at += (1.0 if action else -1.0) + 0.3 * float(self.np_random.normal())
        self.count += 1
        return self._obs(), self.at, abs(self.at) > 3, self.count >= self.limit, {}

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, round(30 + 5 * max(-5.0, min(5.0, self.at)))] = 255
        return picture

    def _obs(self) -> Obs:
        return np.array([self.at, self.count, 1.0], np.float32)

    def _fail(self) -> None:
        """Go on to what goes wrong next: names come to their turn as the numbers before them have run out."""
        if not Walk.failures:
            return
        first = Walk.failures[0]
        if first.isdigit():
            Walk.failures[0] = str(int(first) - 1)
            if first == "0":
                Walk.failures.pop(0)
            return
        Walk.failures.pop(0)
        if first == "error":
            raise ValueError("the wind is too strong\nand so is the rain")
        assert first == "exit"
        os._exit(3)


class Forgetful(Walk):
    """A walk that a seed does not determine: its wind is the process's own."""

    _other: ClassVar[itertools.count[int]] = itertools.count()

    def step(self, action: int) -> tuple[Obs, float, bool, bool, Info]:
        self.at += 0.001 * next(Forgetful._other)
        return super().step(action)


class Keeping(Walk):
    """A walk that keeps something from game to game, which a seed does not reset. A new one repeats itself."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 0.0

    def step(self, action: int) -> tuple[Obs, float, bool, bool, Info]:
        obs, reward, *rest = super().step(action)
        self.kept += 0.01
        return obs + np.float32(self.kept), reward, *rest


class Bits(gymnasium.Env[Obs, int]):
    """A cell that falls, in two channels of bits, channels last; the game is to stay on its column."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(0, 1, (6, 5, 2), np.bool_)
        self.action_space = spaces.Discrete(3, start=-1)
        self.row, self.column, self.at = 0, 0, 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Obs, Info]:
        super().reset(seed=seed)
        self.row, self.column, self.at = 0, int(self.np_random.integers(5)), 2
        return self._obs(), {}

    def step(self, action: int) -> tuple[Obs, float, bool, bool, Info]:
        self.row, self.at = self.row + 1, min(max(self.at + int(action), 0), 4)
        over = self.row == 5
        return self._obs(), float(over and self.at == self.column), over, False, {}

    def _obs(self) -> Obs:
        obs = np.zeros((6, 5, 2), np.bool_)
        obs[self.row, self.column, 0] = obs[5, self.at, 1] = True
        return obs


def walks(num_envs: int, rules: EnvRules, mode: str = "NextStep") -> SyncVectorEnv[Any, Any, Any]:
    """Several walks at once, as a function that makes a vector environment."""
    return SyncVectorEnv([Walk] * num_envs, autoreset_mode=AutoresetMode(mode))


def keeping_walks(num_envs: int, rules: EnvRules) -> SyncVectorEnv[Any, Any, Any]:
    """Several walks at once that keep something from game to game."""
    return SyncVectorEnv([Keeping] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def too_few(num_envs: int, rules: EnvRules) -> SyncVectorEnv[Any, Any, Any]:
    """One walk less than was asked for."""
    return walks(num_envs + 1, rules)


def nothing(num_envs: int, rules: EnvRules) -> None:
    """No environment at all."""


NUMBER = 3
