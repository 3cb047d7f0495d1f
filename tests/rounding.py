"""Rounding put in on purpose: sums as another machine could have added them.

A test whose outcome is the same under this does not hang on the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wn_dqn.nn.layers import layers_of


def largest_rounding(layer: Any, x: Tensor) -> float:
    """How far sums of `layer` can be off while ||w|| = 1, in any order: n u ||x|| for the largest ||x|| of the batch.

    Higham 2002, "Accuracy and Stability of Numerical Algorithms", equation 3.5, with u half of epsilon.
    """
    fan_in = math.prod(layer.direction_shape[1:])
    patches = x if x.ndim == 2 else nn.functional.unfold(x, layer.direction_shape[2:], stride=layer.stride)
    return fan_in * torch.finfo(x.dtype).eps / 2 * patches.norm(dim=1).max().item()


@contextmanager
def rounded_differently(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Within, what every layer of `network` puts out is off by the largest rounding, up or down at random."""

    def perturb(layer: Any, inputs: tuple[Tensor], t: Tensor) -> Tensor:
        up_or_down = torch.randint(0, 2, t.shape, generator=generator) * 2.0 - 1.0
        return t + largest_rounding(layer, inputs[0]) * up_or_down

    hooks = [layer.register_forward_hook(perturb) for layer in layers_of(network).values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def summed_in_random_orders(x: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor:
    """x [B, in] and weight [out, in] -> [B, out], float32: every sum is added one by one, in an order of its own."""
    products = (x.unsqueeze(1) * weight).numpy()  # [B, out, in]
    orders = torch.rand(products.shape, generator=generator).argsort(dim=-1).numpy()
    return torch.from_numpy(np.cumsum(np.take_along_axis(products, orders, -1), axis=-1, dtype=np.float32)[..., -1])
