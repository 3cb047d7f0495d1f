"""Initializations that look at no data: weights uniform on +-c / sqrt(fan-in), for any parameterization."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wn_dqn.nn.layers import layers_of


@dataclass(frozen=True)
class UniformInit:
    """Weights ~ U(-c, c) with c = `gain` / sqrt(fan-in); biases are `bias`, or ~ U(-c, c) if it is None."""

    gain: float
    bias: float | None


UNIFORM_INITS = {
    # torch's default for linear layers and convolutions, and that of Torch7, in which Mnih et al. (2015) wrote theirs
    "torch": UniformInit(gain=1.0, bias=None),
    # the Nature network of deep_q_rl, which the paper's experiments were built on: He et al.'s, and biases of 0.1
    "nature": UniformInit(gain=math.sqrt(3.0), bias=0.1),
}


@torch.no_grad()
def initialize_uniform(network: nn.Module, init: UniformInit, generator: torch.Generator) -> None:
    """Set all parameters of `network` from `generator`, a CPU generator.

    With equal seeds every parameterization starts as the same function; under weight normalization v = w and
    g = ||w||.
    """
    for layer in layers_of(network).values():
        shape = layer.direction_shape
        bound = init.gain / math.sqrt(math.prod(shape[1:]))

        def uniform(*size: int, bound: float = bound) -> Tensor:
            return torch.empty(size).uniform_(-bound, bound, generator=generator)

        weight = uniform(*shape)
        layer.set_weight_(weight, uniform(shape[0]) if init.bias is None else torch.full(shape[:1], init.bias))
