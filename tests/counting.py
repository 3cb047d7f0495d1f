"""An environment that counts its own steps, played by gymnasium's vector environments in all their autoreset modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

Layout = Literal["vector", "image", "channels first", "channels last"]
End = Literal["terminated", "truncated", "both"]
Place = tuple[int, int, int]
"""which environment, which of its games, how many steps into it; all from 1"""

_SPACES = {
    "vector": spaces.Box(-1000.0, 1000.0, (3,), np.float64),
    "image": spaces.Box(0, 255, (2, 2), np.uint8),
    "channels first": spaces.Box(0, 255, (2, 3, 5), np.uint8),
    "channels last": spaces.Box(0, 255, (4, 5, 3), np.uint8),
}


def observation(place: Place, layout: Layout) -> NDArray[Any]:
    """What the environment shows at `place`."""
    space = _SPACES[layout]
    if layout == "vector":
        return np.array(place, space.dtype)
    obs = np.zeros(space.shape, space.dtype)
    obs.reshape(-1)[:3] = place
    return obs


def action_at(place: Place) -> int:
    """What the policy of these tests does: it depends on where it is, not on when."""
    return sum(place) % 3


class Counting(gymnasium.Env[NDArray[Any], int]):
    """Games of given lengths and ends, in turn. Reward: the steps so far, and a tenth of the action, from 5 on."""

    def __init__(self, number: int, games: Sequence[tuple[int, End]], layout: Layout = "vector") -> None:
        self.number, self.games, self.layout = number, games, layout
        self.observation_space = _SPACES[layout]
        self.action_space = spaces.Discrete(3, start=5)
        self.game, self.count = 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.game = 1 if seed is not None else self.game + 1
        self.count = 1
        return self._obs(), {"count": self.count}

    def step(self, action: int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        assert action - 5 == action_at((self.number, self.game, self.count)), "a frame that is not the newest"
        length, end = self.games[(self.game - 1) % len(self.games)]
        assert self.count <= length, "the game is over"
        reward = self.count + action / 10
        self.count += 1
        over = self.count > length
        terminated, truncated = over and end != "truncated", over and end != "terminated"
        return self._obs(), reward, terminated, truncated, {"count": self.count}

    def _obs(self) -> NDArray[Any]:
        return observation((self.number, self.game, self.count), self.layout)


def counting_vector(
    games: Sequence[Sequence[tuple[int, End]]], mode: AutoresetMode, layout: Layout = "vector"
) -> SyncVectorEnv[Any, Any, Any]:
    """An environment for each of `games`."""
    return SyncVectorEnv(
        [lambda number=number, own=own: Counting(number, own, layout) for number, own in enumerate(games, 1)],
        autoreset_mode=mode,
    )


class Counted:
    """What happens in one environment, step by step, worked out without it."""

    def __init__(self, number: int, games: Sequence[tuple[int, End]]) -> None:
        self._number, self._games = number, games
        self.place: Place = (number, 1, 1)

    def step(self) -> tuple[Place, int, float, End | None, Place]:
        """Place, action, reward, how the game ended if it did, and the place that followed in the same game."""
        place = self.place
        number, game, count = place
        length, end = self._games[(game - 1) % len(self._games)]
        action = action_at(place)
        after = (number, game, count + 1)
        over = count + 1 > length
        self.place = (number, game + 1, 1) if over else after
        return place, action, count + (action + 5) / 10, end if over else None, after
