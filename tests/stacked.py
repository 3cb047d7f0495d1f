"""Environments as whoever looks at whole observations sees them: each newest frame on its stack."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wn_dqn.envs.frame_stack import FrameStack
from wn_dqn.envs.vector_env import SingleGame, VectorEnv


class StackedStep(NamedTuple):
    """An :class:`EnvStep` with observations [N, *obs_shape] in place of newest frames."""

    obs: NDArray[Any]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    terminal: NDArray[np.bool_]


class Stacked:
    """N games of `env`, with observations."""

    def __init__(self, env: VectorEnv) -> None:
        self.env, self.num_envs, self.num_actions = env, env.num_envs, env.spec.num_actions
        self._observed = FrameStack(env.spec, env.num_envs)

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        return self._observed.begin(self.env.reset(seeds)).copy()

    def send(self, actions: NDArray[np.int64]) -> None:
        self.env.send(actions)

    def receive(self) -> StackedStep:
        frame, *rest = (step := self.env.receive())[:5]
        return StackedStep(self._observed.push(frame, step.over).copy(), *rest)


class StackedGame:
    """One game, with observations."""

    def __init__(self, game: SingleGame) -> None:
        self.game, self.num_actions = game, game.spec.num_actions
        self._observed = FrameStack(game.spec, 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.game, name)

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[Any]:
        return self._observed.begin(self.game.reset(seed, noop_frames)[None])[0].copy()

    def step(self, action: int) -> tuple[NDArray[Any], float, bool, bool, int]:
        """(obs [*obs_shape], reward, terminated, truncated, lives)."""
        frame, reward, terminated, truncated = self.game.step(action)
        obs = self._observed.push(frame[None], np.array([False]))[0].copy()
        return obs, reward, terminated, truncated, self.game.lives
