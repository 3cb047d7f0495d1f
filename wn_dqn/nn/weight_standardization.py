"""Weight standardization (Qiao et al. 2019, arXiv 1903.10520) with a trained scale per unit.

w = g (v - mean v)/||v - mean v||, so every weight vector sums to 0 and has norm g. Qiao et al. divide by the standard
deviation. In that form, g would be sqrt(N) times smaller for a unit of N weights, and a step of Adam would be larger
relative to it. Brock et al. 2021 (arXiv 2101.08692, "Scaled Weight Standardization") include the sqrt(N), as here.

A weight vector that does not sum to 0 cannot be represented. Setting it subtracts its mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wn_dqn.errors import UsageError
from wn_dqn.nn.layers import centred
from wn_dqn.nn.weight_norm import WeightNormConv2d, WeightNormLayer, WeightNormLinear


class _WeightStandardized(WeightNormLayer):
    """Weight normalization of v - mean v. The mean of v has no effect, and no gradient."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.v[0].numel() == 1:
            raise UsageError("weight standardization needs units with two inputs or more: one minus its mean is 0")

    def direction(self) -> Tensor:
        """v - mean v, [out, ...]."""
        return self.v - self.v.mean(dim=tuple(range(1, self.v.ndim)), keepdim=True)

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """v := `v` - mean `v` [out, ...]; g := 1, b := 0. g := 0 where `v` is constant."""
        super().set_direction_(centred(v))

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` - mean `weight` [out, ...]; b := `bias` [out]."""
        super().set_weight_(centred(weight), bias)


class WeightStandardizedLinear(_WeightStandardized, WeightNormLinear):
    """y = w.x + b with w = g (v - mean v)/||v - mean v||, from [B, in_features] to [B, out_features]."""


class WeightStandardizedConv2d(_WeightStandardized, WeightNormConv2d):
    """A 2-D convolution with w = g (v - mean v)/||v - mean v||, from [B, in, H, W] to [B, out, H', W']."""
