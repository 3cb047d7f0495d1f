"""What the loop needs from N games played in lockstep."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class EnvStep(NamedTuple):
    """The outcome of one step of N games. A game that ended has already begun anew: `obs` shows the new game."""

    obs: NDArray[np.uint8]
    """[N, 4, 84, 84]: the last four frames of the running game, oldest first, zero where the game had not begun"""
    reward: NDArray[np.float32]
    """[N], the raw change of the game's score"""
    terminated: NDArray[np.bool_]
    """[N], the game was over"""
    truncated: NDArray[np.bool_]
    """[N], the game was cut by a time limit: the state it was cut in is not terminal"""
    life_lost: NDArray[np.bool_]
    """[N], a life was lost and the game went on"""


class VectorEnv(Protocol):
    """N games in lockstep. `send` starts a step and returns at once; `receive` waits for its outcome."""

    num_envs: int
    num_actions: int

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Begin N new games from N seeds in [0, 2^31); returns uint8 [N, 4, 84, 84]."""
        ...

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions [N], each in [0, num_actions); raises ValueError otherwise."""
        ...

    def receive(self) -> EnvStep:
        """Wait for the step that `send` started."""
        ...


class SingleGame(Protocol):
    """One game to be watched; see :class:`wn_dqn.envs.atari_reference.ReferenceEnv`."""

    num_actions: int
    action_names: tuple[str, ...]
    lives: int
    rgb_frames: NDArray[np.uint8]

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[np.uint8]: ...
    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, int]: ...
