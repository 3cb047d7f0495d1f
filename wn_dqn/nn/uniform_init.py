"""Initializations without data: weights uniform on +-c / sqrt(fan), for any parameterization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wn_dqn.nn.layers import centred, layers_of


@dataclass(frozen=True)
class UniformInit:
    """Weights ~ U(-c, c) with c = `gain` / sqrt(fan); biases are `bias`, or ~ U(-c, c) if it is None.

    The fan is the fan-in or, with `both_fans`, the mean of fan-in and fan-out.
    """

    gain: float
    bias: float | None
    both_fans: bool = False

    def bound(self, shape: Sequence[int]) -> float:
        """c of a layer whose weight has this shape: outputs, inputs, and a convolution's kernel."""
        outputs, inputs, *kernel = shape
        fan = (inputs + outputs) / 2 if self.both_fans else inputs
        return self.gain / math.sqrt(fan * math.prod(kernel))


UNIFORM_INITS = {
    # torch's default for linear layers and convolutions, and that of Torch7, in which Mnih et al. (2015) wrote theirs
    "torch": UniformInit(gain=1.0, bias=None),
    # the Nature network of deep_q_rl, which the paper's experiments were built on: He et al.'s, and biases of 0.1
    "nature": UniformInit(gain=math.sqrt(3.0), bias=0.1),
    # Glorot & Bengio (2010), with biases of 0: that of Dopamine's networks
    "glorot": UniformInit(gain=math.sqrt(3.0), bias=0.0, both_fans=True),
}


@torch.no_grad()
def initialize_uniform(
    network: nn.Module, init: UniformInit, generator: torch.Generator, *, centre: bool = False
) -> None:
    """Set all parameters of `network` from `generator`, a CPU generator.

    With equal seeds every parameterization starts as the same function; under weight normalization v = w and
    g = ||w||. With `centre`, the mean of each unit's weights is subtracted, as weight standardization requires.
    """
    for layer in layers_of(network).values():
        shape = layer.direction_shape
        bound = init.bound(shape)

        def uniform(*size: int, bound: float = bound) -> Tensor:
            return torch.empty(size).uniform_(-bound, bound, generator=generator)

        weight = uniform(*shape)
        weight = centred(weight.double()) if centre else weight
        layer.set_weight_(weight, uniform(shape[0]) if init.bias is None else torch.full(shape[:1], init.bias))
