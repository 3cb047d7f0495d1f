"""Folding: a network of any parameterization as plain weights and biases, for what only runs it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wn_dqn.nn.parameterization import PARAMETERIZATIONS
from wn_dqn.nn.q_network import QNetwork


@runtime_checkable
class Foldable(Protocol):
    """A layer whose `weight` and `bias` are not all that it computes at test time: running statistics, say."""

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain layer that computes the same function at test time."""
        ...


def folded(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the plain layer that equals `layer`: what it says itself, else its `weight` and `bias`."""
    if isinstance(layer, Foldable):
        return layer.folded()
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    return weight, bias


@torch.no_grad()
def fold(network: QNetwork, num_actions: int) -> QNetwork:
    """A copy of a Q-network in standard layers, on the CPU, with the same Q-values but for rounding."""
    plain = type(network)(PARAMETERIZATIONS["standard"], num_actions)
    for name, layer in plain.named_children():
        weight, bias = folded(network.get_submodule(name))
        layer.get_parameter("weight").copy_(weight)
        layer.get_parameter("bias").copy_(bias)
    return plain.requires_grad_(False)
