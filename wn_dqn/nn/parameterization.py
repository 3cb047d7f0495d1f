"""Parameterizations by name: the layers that a network is built from, and nothing else about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wn_dqn.nn import standard, weight_norm


@runtime_checkable
class DataInitializable(Protocol):
    """A layer that :mod:`wn_dqn.nn.data_dependent_init` can initialize."""

    @property
    def direction_shape(self) -> torch.Size: ...
    def set_direction_(self, v: Tensor) -> None: ...
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None: ...


@dataclass(frozen=True)
class Parameterization:
    """The constructors of a network's layers; they take what torch.nn's take."""

    linear: Callable[..., nn.Module]
    conv2d: Callable[..., nn.Module]


PARAMETERIZATIONS: dict[str, Parameterization] = {
    "standard": Parameterization(linear=standard.Linear, conv2d=standard.Conv2d),
    "wn": Parameterization(linear=weight_norm.WeightNormLinear, conv2d=weight_norm.WeightNormConv2d),
}


def initializable_layers(network: nn.Module) -> dict[str, Any]:
    """The layers of `network` by name, in the order of their definition."""
    return {name: module for name, module in network.named_modules() if isinstance(module, DataInitializable)}
