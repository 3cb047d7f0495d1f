"""Catch: a ball falls, a paddle at the bottom moves left or right; +1 for a catch, -1 for a miss.

A game small enough to be solved in a minute on a laptop, in the frames and with the interface of the Atari games.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wn_dqn.envs.vector_env import EnvStep

GRID = 7
_CELL = 84 // GRID
_FRAMES_SHOWN_PER_STEP = 12


class Catch:
    """N games of Catch in lockstep. Actions: 0 left, 1 stay, 2 right. A game takes GRID - 1 steps."""

    num_actions = 3

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self._all = np.arange(num_envs)
        self._generators: list[np.random.Generator] = []
        self._ball = np.zeros((num_envs, 2), np.int64)  # row, column
        self._paddle = np.zeros(num_envs, np.int64)  # column
        self._obs = np.zeros((num_envs, 4, 84, 84), np.uint8)
        self._actions = np.zeros(num_envs, np.int64)
        self.last_frames = np.zeros((num_envs, 84, 84), np.uint8)
        """what the last step showed, before games that ended began anew"""

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Begin N new games; see :class:`wn_dqn.envs.vector_env.VectorEnv`."""
        self._generators = [np.random.Generator(np.random.PCG64(int(seed))) for seed in seeds]
        return self._begin(np.ones(self.num_envs, np.bool_)).copy()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step; see :class:`wn_dqn.envs.vector_env.VectorEnv`."""
        if ((actions < 0) | (actions >= self.num_actions)).any():
            raise ValueError(f"actions must be 0..{self.num_actions - 1}, got {actions}")
        self._actions = actions.copy()

    def receive(self) -> EnvStep:
        """Finish the step; see :class:`wn_dqn.envs.vector_env.VectorEnv`."""
        self._paddle = np.clip(self._paddle + self._actions - 1, 0, GRID - 1)
        self._ball[:, 0] += 1
        landed = self._ball[:, 0] == GRID - 1
        caught = landed & (self._ball[:, 1] == self._paddle)
        reward = caught.astype(np.float32) - (landed & ~caught)
        self._obs[:, :-1] = self._obs[:, 1:]
        self._obs[:, -1] = self.last_frames = self._render()
        obs = self._begin(landed).copy()
        never = np.zeros(self.num_envs, np.bool_)
        return EnvStep(obs, reward.astype(np.float32), terminated=landed, truncated=never, life_lost=never)

    def _begin(self, where: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Begin new games `where` [N]; returns the observations of all."""
        for i in np.flatnonzero(where):
            self._ball[i] = 0, self._generators[i].integers(GRID)
            self._paddle[i] = GRID // 2
        self._obs[where] = 0
        self._obs[where, -1] = self._render()[where]
        return self._obs

    def _render(self) -> NDArray[np.uint8]:
        grid = np.zeros((self.num_envs, GRID, GRID), np.uint8)
        grid[self._all, GRID - 1, self._paddle] = 128
        grid[self._all, self._ball[:, 0], self._ball[:, 1]] = 255
        return grid.repeat(_CELL, axis=1).repeat(_CELL, axis=2)


class CatchGame:
    """One game of Catch, see :class:`wn_dqn.envs.vector_env.SingleGame`. Each step is shown for a fifth of a second."""

    num_actions = Catch.num_actions
    action_names: tuple[str, ...] = ("LEFT", "STAY", "RIGHT")
    lives = 0

    def __init__(self) -> None:
        self._env = Catch(1)
        self.rgb_frames = np.zeros((1, 84, 84, 3), np.uint8)

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[np.uint8]:
        """Begin a game; Catch knows no no-ops."""
        obs: NDArray[np.uint8] = self._env.reset(np.array([seed or 0]))[0]
        self.rgb_frames = self._rgb(obs[-1], 1)
        return obs

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, int]:
        """(obs [4, 84, 84], reward, terminated, truncated, lives)."""
        self._env.send(np.array([action]))
        step = self._env.receive()
        self.rgb_frames = self._rgb(self._env.last_frames[0], _FRAMES_SHOWN_PER_STEP)
        return step.obs[0], float(step.reward[0]), bool(step.terminated[0]), False, 0

    @staticmethod
    def _rgb(gray: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
        return np.broadcast_to(gray[None, :, :, None], (frames, 84, 84, 3))
