"""Shifts and scales observations to zero mean and unit variance, with statistics that the training loop sets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP = 10.0
"""clipping threshold in standard deviations"""
_EPSILON = 1e-8


class InputNormalization(nn.Module):
    """clip((x - mean) / std) for vectors x [B, D]. It has no parameters, and is initially the clipped identity."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def set_(self, mean: Tensor, variance: Tensor) -> None:
        """Set mean and variance [d] of one frame. They are repeated for each of the frames in an observation."""
        repeats = len(self.mean) // len(mean)
        self.mean.copy_(mean.repeat(repeats))
        self.std.copy_(torch.sqrt(variance + _EPSILON).repeat(repeats))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] from [B, D]."""
        return ((x - self.mean) / self.std).clamp(-CLIP, CLIP)
