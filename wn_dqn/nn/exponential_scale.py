"""Weight normalization with g = e^s, trained in s (section 2).

The paper tried it. A log scale covers several orders of magnitude more easily. But optimization was slightly slower,
and the result was not better.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wn_dqn.nn.weight_norm import WeightNormConv2d, WeightNormLayer, WeightNormLinear


class _ExponentialScale(WeightNormLayer):
    """A weight-normalized layer whose parameter is s [out]; g = e^s is computed."""

    s: nn.Parameter

    def _create_scale(self, zeros: Tensor) -> None:
        self.s = nn.Parameter(zeros)  # so that a new layer has g = 1

    @property
    def g(self) -> Tensor:  # type: ignore[override]
        """e^s, [out]."""
        return self.s.exp()

    @torch.no_grad()
    def _set_scale_(self, g: Tensor) -> None:
        # No finite s gives g = 0 exactly. This one does after rounding, and unlike -inf it can be saved and trained.
        zero = math.log(torch.finfo(self.s.dtype).smallest_normal * torch.finfo(self.s.dtype).eps) - 1.0
        self.s.copy_(torch.where(g == 0.0, zero, g.log()))


class WeightNormExpLinear(_ExponentialScale, WeightNormLinear):
    """y = w.x + b with w = e^s v/||v||, from [B, in_features] to [B, out_features]."""


class WeightNormExpConv2d(_ExponentialScale, WeightNormConv2d):
    """A 2-D convolution with w = e^s v/||v||, from [B, in, H, W] to [B, out, H', W']. The kernel is square."""
