"""Weight normalization with g = e^s, trained in s (section 2).

The paper tried it: a log-scale spans magnitudes more easily, but optimization was slightly slower, and the result no
better.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wn_dqn.nn.weight_norm import WeightNormConv2d, WeightNormLinear, _WeightNorm


class _ExponentialScale(_WeightNorm):
    """A weight-normalized layer whose parameter is s; g = e^s is computed."""

    s: nn.Parameter

    def _create_scale(self, zeros: Tensor) -> None:
        self.s = nn.Parameter(zeros)  # g = 1: there is no s for g = 0

    @property
    def g(self) -> Tensor:  # type: ignore[override]
        """e^s, [out]."""
        return self.s.exp()

    @torch.no_grad()
    def _set_scale_(self, g: Tensor) -> None:
        self.s.copy_(g.log())


class WeightNormExpLinear(_ExponentialScale, WeightNormLinear):
    """y = w.x + b with w = e^s v/||v||, from [B, in_features] to [B, out_features]."""


class WeightNormExpConv2d(_ExponentialScale, WeightNormConv2d):
    """A 2-D convolution with w = e^s v/||v||, from [B, in, H, W] to [B, out, H', W']. The kernel is square."""
