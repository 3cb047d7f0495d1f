"""The type of a minibatch of transitions."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TransitionBatch(NamedTuple):
    """A minibatch of B transitions, all on one device."""

    obs: Tensor
    """[B, *obs_shape]: the last frames, the oldest first; frames before the game's start are zero"""
    action: Tensor
    """int64 [B]"""
    reward: Tensor
    """float32 [B], clipped to [-1, 1] if the environment's spec requires it"""
    discount: Tensor
    """float32 [B]: gamma, or 0 where the transition was terminal"""
    next_obs: Tensor
    """[B, *obs_shape]; arbitrary where `discount` is 0"""
    weight: Tensor | None = None
    """float32 [B], the weight of each transition in the loss; None means equal weights"""
