"""The spec of an environment: observations and actions. Only this module defines the shape of a frame.

Replay, networks, held-out states, snapshots, videos and export are built from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class EnvSpec:
    """An environment gives one frame per step. An observation is the last `stack` frames, the oldest first."""

    name: str
    """its name, like SpaceInvaders"""
    frame_shape: tuple[int, ...]
    """[C, H, W] for images, [D] for vectors"""
    frame_dtype: Literal["uint8", "bool", "float32"]
    stack: int
    action_names: tuple[str, ...]
    """the name of each action, like UPRIGHTFIRE"""
    frames_per_step: int = 1
    """emulator frames per step, for times and time limits"""
    clip_rewards: bool = False
    """whether the learner's rewards are clipped to [-1, 1]; scores are always raw"""
    repeats: bool = True
    """whether the environment is determined by seeds and actions"""

    @property
    def num_actions(self) -> int:
        """A: actions are 0..A-1."""
        return len(self.action_names)

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """The shape of one observation: [stack * C, H, W], or [stack * D]."""
        return (self.stack * self.frame_shape[0], *self.frame_shape[1:])

    @property
    def is_image(self) -> bool:
        """Whether frames are images [C, H, W]."""
        return len(self.frame_shape) == 3

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """numpy's name of `frame_dtype`."""
        return np.dtype(self.frame_dtype)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return math.prod(self.frame_shape) * self.dtype.itemsize
