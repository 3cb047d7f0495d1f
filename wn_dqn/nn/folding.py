"""Folding: converts a network of any parameterization to plain weights and biases, for inference in other programs.

Layer normalization is kept: it depends on the sample, so it cannot be folded into weights.
"""

from __future__ import annotations

import torch

from wn_dqn.errors import UsageError
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.networks import QNetwork


@torch.no_grad()
def fold(network: QNetwork) -> QNetwork:
    """A copy of a Q-network with the layers of its folded form, on the CPU. Its Q-values are equal up to rounding.

    Raises UsageError, with the layer's name, if a layer cannot be folded.
    """
    plain = network.with_layers(layer_kit(network.folded)).requires_grad_(False)
    plain_layers = layers_of(plain)
    for name, layer in layers_of(network).items():
        try:
            layer.fold_into_(plain_layers[name])
        except NotImplementedError:
            raise UsageError(f"the layer {name}, a {type(layer).__name__}, has no plain form") from None
    return plain
