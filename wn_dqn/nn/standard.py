"""Standard layers, y = w.x + b, that can be initialized from data like their weight-normalized counterparts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wn_dqn.nn.layers import Layer, LayerKit


class _Standard(Layer):
    """Methods of a layer whose weight is a parameter."""

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """Set w [out, ...] and b [out]."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def fold(self) -> tuple[Tensor, Tensor]:
        """w [out, ...] and b [out]."""
        return self.weight, self.bias


class Linear(_Standard, nn.Linear):
    """``torch.nn.Linear``, [B, in_features] to [B, out_features]; zero until an initialization sets it."""

    def reset_parameters(self) -> None:
        """Nothing is drawn from the global generator."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Conv2d(_Standard, nn.Conv2d):
    """``torch.nn.Conv2d``, [B, in, H, W] to [B, out, H', W']; zero until an initialization sets it."""

    def reset_parameters(self) -> None:
        """Nothing is drawn from the global generator."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


PLAIN = LayerKit(linear=Linear, conv2d=Conv2d)
"""The layers of a folded or imported network: weights and biases alone."""
