"""The interfaces of environments: N games in lockstep for training and evaluation, and a single game for display."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from wn_dqn.envs.spec import EnvSpec
from wn_dqn.errors import RunError


class EnvironmentFailure(RunError):  # noqa: N818 - it is the environment that failed
    """The environment raised an error, hung, crashed, or returned invalid values."""


class EnvStep(NamedTuple):
    """The outcome of one step of N games. A game that ended has already restarted: its frame is from the new game.

    Some environments restart it only with the next step. Until then their frame is the final one, and the next step is
    `skipped`: it is not a transition, and its action has no effect.
    """

    frame: NDArray[Any]
    """[N, *spec.frame_shape], the newest frame of each running game; the next step may overwrite it"""
    reward: NDArray[np.float32]
    """[N], the raw change of the game's score"""
    terminated: NDArray[np.bool_]
    """[N], the game was over"""
    truncated: NDArray[np.bool_]
    """[N], a time limit ended the game, so its last state is not terminal"""
    terminal: NDArray[np.bool_]
    """[N], there is no bootstrap value: the game was over, or a life was lost and the rules end the episode"""
    final_frame: NDArray[Any] | None = None
    """[N, *spec.frame_shape], the final frames of truncated games, arbitrary for others; None if unknown"""
    skipped: NDArray[np.bool_] | None = None
    """[N], the step only started a new game; None means in no game"""

    @property
    def over(self) -> NDArray[np.bool_]:
        """[N], the game has ended with this step."""
        return self.terminated | self.truncated

    @property
    def new_game(self) -> NDArray[np.bool_]:
        """[N], `frame` does not continue the frames before it."""
        return self.over if self.skipped is None else self.over | self.skipped


class VectorEnv(Protocol):
    """N games in lockstep. `send` starts a step and returns at once; `receive` waits for its outcome."""

    spec: EnvSpec
    num_envs: int

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """Start N new games from N seeds in [0, 2^31). Returns their first frames [N, *spec.frame_shape]."""
        ...

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions [N]. Raises ValueError unless each is in [0, spec.num_actions)."""
        ...

    def receive(self) -> EnvStep:
        """Wait for the step that `send` started."""
        ...


class SingleStep(NamedTuple):
    """The outcome of one step of a single game, which waits for `reset` once it is over."""

    frame: NDArray[Any]
    """[*spec.frame_shape]"""
    reward: float
    terminated: bool
    truncated: bool


class SingleGame(Protocol):
    """A single game for display."""

    spec: EnvSpec
    lives: int
    """lives left; always 0 in a game without lives"""
    rgb_frames: NDArray[np.uint8]
    """[k, height, width, 3]: the frames of the last `step`, or the initial frame after `reset`"""

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[Any]:
        """Start a game and play `noop_frames` no-ops. Returns its first frame [*spec.frame_shape]."""
        ...

    def step(self, action: int) -> SingleStep:
        """Play one step. Raises ValueError for an action that the game does not have."""
        ...


def require_actions(actions: NDArray[np.int64], num_actions: int) -> None:
    """Raise ValueError unless all `actions` are in [0, num_actions)."""
    if ((actions < 0) | (actions >= num_actions)).any():
        raise ValueError(f"actions must be 0..{num_actions - 1}, got {actions}")
