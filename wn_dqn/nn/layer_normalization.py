"""Layer normalization before each ReLU (Ba et al. 2016, arXiv 1607.06450), which PQN brought to Q-learning.

y = gain (t - mean t)/sqrt(var t + EPSILON) + b with t = w.x. Mean and variance (1/N) are over all units and positions
of a layer, for one sample; gain and b are per unit. The layer that no ReLU follows is plain. PQN (Gallici et al. 2025,
arXiv 2407.04811) differs: it normalizes the channels at each position separately, and adds a second bias to t. Without
that bias, the output does not depend on the scale of the weights.

The units of a sample depend on each other. So such a network cannot start as the same function as those of other
parameterizations, and it has no plain form: a folded network keeps these layers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.layers import Layer
from wn_dqn.nn.standard import Conv2d, Linear

EPSILON = 1e-5
"""Added to the variance; torch's."""


class LayerNormLayer(Layer):
    """Gain and bias of layer normalization: a mixin for the layer that comes next in the MRO."""

    gain: nn.Parameter
    """[out]"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones_like(self.bias.detach()))

    @property
    def direction_shape(self) -> torch.Size:
        """The shape of w: [out, in] or [out, in, k, k]."""
        shape: torch.Size = self.weight.shape
        return shape

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` [out, ...], gain := 1, b := `bias` [out]."""
        super().set_weight_(weight, bias)  # type: ignore[safe-super]
        self.gain.fill_(1.0)

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """w := v/||v|| for every output unit, from v [out, ...]; 0 where v is 0. gain := 1, b := 0."""
        v = v.to(self.weight)
        self.set_weight_(v / _norm(v), torch.zeros_like(self.bias))

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """Change the layer so that its output y becomes scale * y + shift, both [out]."""
        self.gain.mul_(scale)
        self.bias.mul_(scale).add_(shift)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Raises NotImplementedError: the output is not a linear function of the input."""
        raise NotImplementedError

    @torch.no_grad()
    def fold_into_(self, plain: Layer) -> None:
        """Make `plain`, which also has layer normalization, compute the same function."""
        assert isinstance(plain, LayerNormLayer)
        plain.set_weight_(self.weight, self.bias)
        plain.gain.copy_(self.gain)


def _norm(v: Tensor) -> Tensor:
    """||v|| of every unit of v [out, ...] as [out, 1, ...]; 1 where v is 0."""
    norm: Tensor = torch.linalg.vector_norm(v, dim=tuple(range(1, v.ndim)), keepdim=True)
    return norm.masked_fill(norm == 0.0, 1.0)


class LayerNormLinear(LayerNormLayer, Linear):
    """Layer normalization of a linear layer without bias, [B, in_features] to [B, out_features]."""

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out_features] from x [B, in_features]."""
        return F.layer_norm(F.linear(x, self.weight), self.bias.shape, self.gain, self.bias, EPSILON)


class LayerNormConv2d(LayerNormLayer, Conv2d):
    """Layer normalization of a convolution without bias, [B, in, H, W] to [B, out, H', W']."""

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out, H', W'] from x [B, in, H, W]."""
        t = self._conv_forward(x, self.weight, None)
        return F.group_norm(t, 1, self.gain, self.bias, EPSILON)
