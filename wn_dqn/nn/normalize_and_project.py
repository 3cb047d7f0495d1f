"""Normalize-and-project (Lyle et al. 2024, arXiv 2407.01800): layer normalization, and weights of constant norm.

W := rho W/||W|| after each update, with ||W|| over all weights of a layer, and rho that norm at the start. Before layer
normalization the scale of W has no effect, but a growing norm reduces the effective learning rate. Here the effective
rate follows the optimizer's. The authors find that Rainbow needs a decreasing one: set `optimizer.final_learning_rate`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wn_dqn.nn.layer_normalization import LayerNormConv2d, LayerNormLinear
from wn_dqn.nn.layers import Layer
from wn_dqn.nn.standard import Linear


class _FirstNorm(Layer):
    """Keeps the initial norm of the weight: a mixin for the layer that comes next in the MRO."""

    first_norm: Tensor
    """rho [], the norm of all weights when they were last set"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("first_norm", torch.zeros_like(self.bias.detach()[0]))

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` [out, ...], whose norm is kept from now on, and b := `bias` [out]."""
        super().set_weight_(weight, bias)  # type: ignore[safe-super]
        self.first_norm.copy_(torch.linalg.vector_norm(self.weight))

    def kept_norms(self) -> dict[str, float | Tensor]:
        """The norm of the whole weight is rho."""
        return {"weight": self.first_norm}


class FirstNormLinear(_FirstNorm, Linear):
    """y = w.x + b with the norm of the whole weight kept, for the layer that no ReLU follows."""


class NormalizedProjectedLinear(_FirstNorm, LayerNormLinear):
    """Layer normalization of a linear layer, the norm of the whole weight kept."""


class NormalizedProjectedConv2d(_FirstNorm, LayerNormConv2d):
    """Layer normalization of a convolution, the norm of the whole weight kept."""
