"""The vocabulary of learning: what a minibatch of transitions holds."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TransitionBatch(NamedTuple):
    """A minibatch of B transitions, all on one device."""

    obs: Tensor
    """[B, *obs_shape]: the last frames, the oldest first; frames from before the game are zero"""
    action: Tensor
    """int64 [B]"""
    reward: Tensor
    """float32 [B], clipped to [-1, 1] where the environment's spec says so"""
    discount: Tensor
    """float32 [B]: gamma, or 0 where the transition was terminal"""
    next_obs: Tensor
    """[B, *obs_shape]; arbitrary where `discount` is 0"""
    weight: Tensor | None = None
    """float32 [B], what the loss of each transition counts; None: all the same"""
