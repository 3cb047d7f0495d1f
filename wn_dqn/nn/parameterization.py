"""Parameterizations by name: the layers that a network is built from, and nothing else about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wn_dqn.nn import batch_statistics, exponential_scale, standard, weight_norm


@runtime_checkable
class Initializable(Protocol):
    """A layer that an initialization can set; recurrent layers are none of them (section 3)."""

    @property
    def direction_shape(self) -> torch.Size: ...
    def set_direction_(self, v: Tensor) -> None: ...
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None: ...
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None: ...


@dataclass(frozen=True)
class Parameterization:
    """The constructors of a network's layers; they take what torch.nn's take."""

    linear: Callable[..., nn.Module]
    conv2d: Callable[..., nn.Module]


PARAMETERIZATIONS: dict[str, Parameterization] = {
    "standard": Parameterization(linear=standard.Linear, conv2d=standard.Conv2d),
    "wn": Parameterization(linear=weight_norm.WeightNormLinear, conv2d=weight_norm.WeightNormConv2d),
    "wn-exp": Parameterization(
        linear=exponential_scale.WeightNormExpLinear, conv2d=exponential_scale.WeightNormExpConv2d
    ),
    "mean-only-bn": Parameterization(
        linear=batch_statistics.MeanOnlyBatchNormLinear, conv2d=batch_statistics.MeanOnlyBatchNormConv2d
    ),
    "wn-mean-only-bn": Parameterization(
        linear=batch_statistics.WeightNormMeanOnlyBatchNormLinear,
        conv2d=batch_statistics.WeightNormMeanOnlyBatchNormConv2d,
    ),
    "bn": Parameterization(linear=batch_statistics.BatchNormLinear, conv2d=batch_statistics.BatchNormConv2d),
}


def initializable_layers(network: nn.Module) -> dict[str, Any]:
    """The layers of `network` by name, in the order of their definition."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Initializable)}
