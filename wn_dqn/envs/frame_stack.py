"""Builds complete observations from the newest frames, for evaluation, for play, and for users of the API."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wn_dqn.envs.spec import EnvSpec


class FrameStack:
    """The last `spec.stack` frames of N games, the oldest first; zeros before a game's start."""

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self._channels = spec.frame_shape[0]
        self.obs: NDArray[Any] = np.zeros((num_envs, *spec.obs_shape), spec.dtype)
        """[N, *spec.obs_shape], overwritten by the next call"""

    @property
    def newest(self) -> NDArray[Any]:
        """The newest frames [N, *frame_shape]."""
        return self.obs[:, -self._channels :]

    def begin(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Start N new games with `frames` [N, *frame_shape]. Returns `obs`."""
        return self.push(frames, np.ones(len(frames), np.bool_))

    def push(self, frames: NDArray[Any], new_game: NDArray[np.bool_]) -> NDArray[Any]:
        """Add the newest `frames` [N, *frame_shape], which start a new game where `new_game` [N]. Returns `obs`."""
        self.obs[:, : -self._channels] = self.obs[:, self._channels :]
        self.obs[new_game] = 0
        self.obs[:, -self._channels :] = frames
        return self.obs
