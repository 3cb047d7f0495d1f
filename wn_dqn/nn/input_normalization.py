"""Observations shifted and scaled to zero mean and unit variance, by statistics that come from outside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP = 10.0
"""standard deviations: what lies further out counts as this far"""
_EPSILON = 1e-8


class InputNormalization(nn.Module):
    """clip((x - mean) / std) for vectors x [B, D]. Nothing in it is learned; it begins as the identity, clipped."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def set_(self, mean: Tensor, variance: Tensor) -> None:
        """Normalize by these from now on: [d], repeated for each of the frames in an observation."""
        repeats = len(self.mean) // len(mean)
        self.mean.copy_(mean.repeat(repeats))
        self.std.copy_(torch.sqrt(variance + _EPSILON).repeat(repeats))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] from [B, D]."""
        return ((x - self.mean) / self.std).clamp(-CLIP, CLIP)
