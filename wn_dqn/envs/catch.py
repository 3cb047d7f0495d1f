"""Catch: a ball falls, a paddle at the bottom moves left or right; +1 for a catch, -1 for a miss.

A small game, which an agent solves in a minute on a laptop. Observations are frames like those of Atari games, or
vectors of three numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import EnvStep, SingleStep, require_actions

GRID = 7
_CELL = 12  # pixels
_SIDE = GRID * _CELL
_FRAMES_SHOWN_PER_STEP = 12
_ACTION_NAMES = ("LEFT", "STAY", "RIGHT")
SPEC = EnvSpec("Catch", (1, _SIDE, _SIDE), "uint8", stack=4, action_names=_ACTION_NAMES, frames_per_step=4)
VECTOR_SPEC = EnvSpec("CatchVector", (3,), "float32", stack=1, action_names=_ACTION_NAMES)


class Catch:
    """N games of Catch in lockstep, see :class:`wn_dqn.envs.vector_env.VectorEnv`. A game takes GRID - 1 steps."""

    def __init__(self, num_envs: int, *, vector: bool = False) -> None:
        """With `vector`, a frame is the ball's row and column and the paddle's column, each in [-1, 1]."""
        self.spec = VECTOR_SPEC if vector else SPEC
        self.num_envs = num_envs
        self._all = np.arange(num_envs)
        self._generators: list[np.random.Generator] = []
        self._ball = np.zeros((num_envs, 2), np.int64)  # row, column
        self._paddle = np.zeros(num_envs, np.int64)  # column
        self._actions = np.zeros(num_envs, np.int64)
        self.last_images = np.zeros((num_envs, _SIDE, _SIDE), np.uint8)
        """[N, 84, 84], the images after the last step, before ended games restart"""

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """Begin N new games from their seeds; returns their first frames."""
        self._generators = [np.random.Generator(np.random.PCG64(int(seed))) for seed in seeds]
        self._begin(self._all)
        self.last_images = self._images()
        return self._frames()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions [N]: 0 left, 1 stay, 2 right."""
        require_actions(actions, self.spec.num_actions)
        self._actions = actions.copy()

    def receive(self) -> EnvStep:
        """Finish the step."""
        self._paddle = np.clip(self._paddle + self._actions - 1, 0, GRID - 1)
        self._ball[:, 0] += 1
        landed = self._ball[:, 0] == GRID - 1
        caught = landed & (self._ball[:, 1] == self._paddle)
        reward = caught.astype(np.float32) - (landed & ~caught)
        self.last_images = self._images()
        self._begin(np.flatnonzero(landed))
        never = np.zeros(self.num_envs, np.bool_)
        return EnvStep(self._frames(), reward.astype(np.float32), landed, truncated=never, terminal=landed)

    def _begin(self, games: NDArray[np.int64]) -> None:
        for i in games:
            self._ball[i] = 0, self._generators[i].integers(GRID)
            self._paddle[i] = GRID // 2

    def _frames(self) -> NDArray[Any]:
        if self.spec is SPEC:
            return self._images()[:, None]
        numbers = np.column_stack([self._ball, self._paddle])
        return (2.0 * numbers / (GRID - 1) - 1.0).astype(np.float32)

    def _images(self) -> NDArray[np.uint8]:
        """Images of the current states, uint8 [N, 84, 84]."""
        grid = np.zeros((self.num_envs, GRID, GRID), np.uint8)
        grid[self._all, GRID - 1, self._paddle] = 128
        grid[self._all, self._ball[:, 0], self._ball[:, 1]] = 255
        return grid.repeat(_CELL, axis=1).repeat(_CELL, axis=2)


class CatchGame:
    """One game of Catch, see :class:`wn_dqn.envs.vector_env.SingleGame`. Each step is shown for a fifth of a second."""

    lives = 0

    def __init__(self, *, vector: bool = False) -> None:
        self._env = Catch(1, vector=vector)
        self.spec = self._env.spec
        self.rgb_frames = np.zeros((1, _SIDE, _SIDE, 3), np.uint8)

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[Any]:
        """Begin a game; Catch has no no-ops."""
        frame: NDArray[Any] = self._env.reset(np.array([seed or 0]))[0]
        self.rgb_frames = self._shown(1)
        return frame

    def step(self, action: int) -> SingleStep:
        """Play one step."""
        self._env.send(np.array([action]))
        step = self._env.receive()
        self.rgb_frames = self._shown(_FRAMES_SHOWN_PER_STEP)
        return SingleStep(step.frame[0], float(step.reward[0]), bool(step.terminated[0]), truncated=False)

    def _shown(self, frames: int) -> NDArray[np.uint8]:
        image = self._env.last_images[0]
        return np.broadcast_to(image[None, :, :, None], (frames, _SIDE, _SIDE, 3))
