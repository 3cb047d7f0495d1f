"""What the training loop and evaluations need from N games played in lockstep, and films from a single one."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from wn_dqn.envs.spec import EnvSpec
from wn_dqn.errors import RunError


class EnvironmentFailure(RunError):  # noqa: N818 - a failure of the environment, an error of ours
    """The environment raised an error, hung, died, or showed what cannot be learned from."""


class EnvStep(NamedTuple):
    """The outcome of one step of N games. A game that ended has already begun anew: its frame shows the new game.

    Some environments begin it with the next step only. Their frame shows the end until then, and that step is
    `skipped`: it is no transition, and its action has no effect.
    """

    frame: NDArray[Any]
    """[N, *spec.frame_shape], the newest frame of each running game; the next step may overwrite it"""
    reward: NDArray[np.float32]
    """[N], the raw change of the game's score"""
    terminated: NDArray[np.bool_]
    """[N], the game was over"""
    truncated: NDArray[np.bool_]
    """[N], a time limit ended the game: the state that it ended in is not terminal"""
    terminal: NDArray[np.bool_]
    """[N], no value follows for the learner: the game was over, or a life was lost and the rules end the episode"""
    final_frame: NDArray[Any] | None = None
    """[N, *spec.frame_shape], what a game ended in where one was truncated, arbitrary elsewhere; None: it is unknown"""
    skipped: NDArray[np.bool_] | None = None
    """[N], a new game began and nothing else happened; None: nowhere"""

    @property
    def over(self) -> NDArray[np.bool_]:
        """[N], the game has ended with this step."""
        return self.terminated | self.truncated

    @property
    def new_game(self) -> NDArray[np.bool_]:
        """[N], `frame` is not in a row with the frames before it."""
        return self.over if self.skipped is None else self.over | self.skipped


class VectorEnv(Protocol):
    """N games in lockstep. `send` starts a step and returns at once; `receive` waits for its outcome."""

    spec: EnvSpec
    num_envs: int

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """Begin N new games from N seeds in [0, 2^31); returns their first frames [N, *spec.frame_shape]."""
        ...

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions [N]; ValueError unless each is in [0, spec.num_actions)."""
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
    """One game to be watched."""

    spec: EnvSpec
    lives: int
    """lives left; always 0 in a game that counts none"""
    rgb_frames: NDArray[np.uint8]
    """[k, height, width, 3]: the frames shown since the last call of `step`, or the one that a game begins with"""

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[Any]:
        """Begin a game and let `noop_frames` pass; returns its first frame [*spec.frame_shape]."""
        ...

    def step(self, action: int) -> SingleStep:
        """Play one step; ValueError for an action that the game does not have."""
        ...


def require_actions(actions: NDArray[np.int64], num_actions: int) -> None:
    """ValueError unless all `actions` are in [0, num_actions)."""
    if ((actions < 0) | (actions >= num_actions)).any():
        raise ValueError(f"actions must be 0..{num_actions - 1}, got {actions}")
