"""Data-dependent initialization (Salimans & Kingma 2016, section 3), for any parameterization.

It is one forward pass over one batch. Each layer's output is scaled and shifted to zero mean and unit variance over the
batch (and the positions, for a convolution) before it reaches the next layer. Hooks do this, not the network.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wn_dqn.nn.layer_statistics import Hook, forward_with_hooks, unit_statistics
from wn_dqn.nn.layers import centred, layers_of

V_STD = 0.05
"""Standard deviation of the elements of v (section 3)."""

ROUNDING_MARGIN = 4.0
"""A unit counts as varying if its standard deviation is this many times :func:`rounding_std`. On Atari frames, the
ratio is at least 250 for varying units of the Nature network. For constant units it is below 0.2, in any order of
summation."""


@dataclass(frozen=True)
class InitReport:
    """The outcome of an initialization, for the log."""

    batch_size: int
    dead_units: dict[str, int]
    """layer name -> units that were constant on the batch"""


@torch.no_grad()
def initialize_from_data(
    network: nn.Module,
    batch: Tensor,
    generator: torch.Generator,
    besides: Collection[str] = (),
    *,
    centre: bool = False,
) -> InitReport:
    """Set all parameters of `network` from `generator` and one forward pass over `batch` [B, ...].

    v ~ N(0, 0.05^2), then layer by layer t = v.x/||v||, g = 1/std[t], b = -mean[t]/std[t] (equations 5 and 6), with
    the biased standard deviation (1/N). In a standard layer the parameter is w = g v/||v||. So with equal seeds every
    parameterization starts as the same function. `generator` is a CPU generator. The network computes in evaluation
    mode. If training mode differs, call :func:`wn_dqn.nn.batch_statistics.adopt_batch_statistics` afterwards.

    Modules named in `besides` are not changed: recurrent ones use standard methods (section 3). With `centre`, the mean
    of each v is subtracted, as weight standardization requires. Raises UsageError if any other parameter is not part of
    a layer.

    A dead unit is constant on the batch, up to rounding. Dividing by its standard deviation would only amplify rounding
    errors. So it is centred and keeps ||w|| = 1.
    """
    layers = layers_of(network, besides)
    dead_units: dict[str, int] = {}

    def normalize(name: str) -> Hook:
        def hook(layer: Any, inputs: Any, t: Tensor) -> Tensor:
            mean, var = unit_statistics(t)
            std = var.sqrt()
            dead = std <= ROUNDING_MARGIN * rounding_std(layer, inputs[0])
            dead_units[name] = int(dead.sum())
            scale = torch.where(dead, 1.0, 1.0 / std)
            shift = -mean * scale
            layer.rescale_output_(scale.to(t.dtype), shift.to(t.dtype))
            per_unit = (1, -1, *[1] * (t.ndim - 2))
            normalized: Tensor = t * scale.to(t.dtype).view(per_unit) + shift.to(t.dtype).view(per_unit)
            # Remove the rounding errors of constant units. The next layer would amplify them like a signal.
            return normalized.masked_fill_(dead.view(per_unit), 0.0)

        return hook

    for layer in layers.values():
        v = torch.empty(layer.direction_shape).normal_(0.0, V_STD, generator=generator)
        layer.set_direction_(centred(v.double()) if centre else v)
    forward_with_hooks(network, batch, {layer: normalize(name) for name, layer in layers.items()})
    return InitReport(batch_size=len(batch), dead_units=dead_units)


def rounding_std(layer: Any, x: Tensor) -> float:
    """The standard deviation that rounding alone can give an output of `layer`, right after `set_direction_`.

    An output is a sum of n = fan-in products w_i x_i with ||w|| = 1. Rounding changes it by about sqrt(n) epsilon ||x||
    at most (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis"), in any order of the
    summands. ||x|| = sqrt(n) rms(x), with the root mean square over the batch (and the positions, for a convolution).
    """
    fan_in = math.prod(layer.direction_shape[1:])
    rms = torch.linalg.vector_norm(x, dtype=torch.float64).item() / math.sqrt(x.numel())
    return float(fan_in * torch.finfo(x.dtype).eps * rms)
