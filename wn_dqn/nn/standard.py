"""Standard layers, y = w.x + b, that can be initialized from data like their weight-normalized counterparts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Standard:
    """The data-dependent initialization of any layer whose weight's first dimension is the output unit."""

    weight: Any
    bias: Any

    @property
    def direction_shape(self) -> torch.Size:
        """The shape of the direction v: an output unit first."""
        shape: torch.Size = self.weight.shape
        return shape

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """w := v/||v|| for every output unit, b := 0."""
        v = v.to(self.weight)
        self.weight.copy_(v / v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1)))
        self.bias.zero_()

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """Set w, an output unit first, and b, [out]."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """Change the layer so that its output y becomes scale * y + shift, both [out]."""
        self.weight.mul_(scale.view(-1, *[1] * (self.weight.ndim - 1)))
        self.bias.mul_(scale).add_(shift)


class Linear(_Standard, nn.Linear):
    """``torch.nn.Linear`` whose parameters start at zero: they are set by a named initialization."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Conv2d(_Standard, nn.Conv2d):
    """``torch.nn.Conv2d`` whose parameters start at zero: they are set by a named initialization."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
