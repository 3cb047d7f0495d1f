"""Projected weight normalization: w = g v/||v||, with every ||v|| set back to 1 after each update.

SimbaV2 (Lee et al. 2025, arXiv 2502.15280) and CrossQ + WN (Palenicek et al. 2025, arXiv 2502.07523) use it. In plain
weight normalization ||v|| grows, so that a step of the same size rotates v less and less (Salimans & Kingma 2016,
section 2.1). Here the effective learning rate of the directions stays constant. The optimizer projects in its step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wn_dqn.nn.weight_norm import WeightNormConv2d, WeightNormLayer, WeightNormLinear


class _Projected(WeightNormLayer):
    """A weight-normalized layer with ||v|| = 1 for every unit. The gradient is that of w = g v/||v||."""

    def kept_norms(self) -> dict[str, float | Tensor]:
        """v of every unit has norm 1."""
        return {"v": 1.0}

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """v := v/||v|| of `v` [out, ...]; g := 1, b := 0. g := 0 where `v` is 0."""
        super().set_direction_(v)
        self._project_()

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` [out, ...], as v := w/||w|| and g := ||w||; b := `bias` [out]."""
        super().set_weight_(weight, bias)
        self._project_()

    def _project_(self) -> None:
        self.v.div_(self.v_norm().view(-1, *[1] * (self.v.ndim - 1)))


class ProjectedLinear(_Projected, WeightNormLinear):
    """y = w.x + b with w = g v/||v|| and ||v|| = 1, from [B, in_features] to [B, out_features]."""


class ProjectedConv2d(_Projected, WeightNormConv2d):
    """A 2-D convolution with w = g v/||v|| and ||v|| = 1, from [B, in, H, W] to [B, out, H', W']."""
