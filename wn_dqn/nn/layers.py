"""The abstract class of layers, and the kit from which a network is built.

Initialization, folding and import handle all layers through this class. A parameter that is not part of a layer is an
error, because no initialization would set it.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wn_dqn.config.registry import PARAMETERIZATIONS, import_code
from wn_dqn.errors import UsageError, closest
from wn_dqn.nn.input_normalization import InputNormalization


class Layer(nn.Module, ABC):
    """A layer with one weight vector per output unit; in evaluation mode y = w.x + b.

    The first dimension of all weights is the output unit: [out, in], or [out, in, k, k] for a convolution.
    """

    weight: Any
    """w [out, ...]; optional, because `fold` also returns it"""
    bias: Any
    """b [out]"""

    @abstractmethod
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` [out, ...], which may be 0, and b := `bias` [out]."""

    @abstractmethod
    def fold(self) -> tuple[Tensor, Tensor]:
        """w [out, ...] and b [out] of the plain layer that computes the same in evaluation mode.

        Raises NotImplementedError if there is no such layer. In that case, the next three methods must be overridden.
        """

    @property
    def direction_shape(self) -> torch.Size:
        """The shape of w and of its direction: [out, ...]."""
        return self.fold()[0].shape

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """w := v/||v|| for every output unit, from v [out, ...]; 0 where v is 0. b := 0."""
        w, b = self.fold()
        v = v.to(w)
        norm = v.flatten(1).norm(dim=1)
        norm = norm.masked_fill(norm == 0.0, 1.0)  # 0/0: a row of zeros stays one
        self.set_weight_(v / per_unit(norm, v), torch.zeros_like(b))

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """Change the layer so that its output y becomes scale * y + shift, both [out]."""
        w, b = self.fold()
        self.set_weight_(w * per_unit(scale, w), b * scale + shift)

    def hold_(self) -> None:
        """Cache values that evaluation mode computes from the parameters alone.

        The caller must call it again when the parameters have changed. Without this call, nothing may be cached.
        """

    def fold_into_(self, plain: Layer) -> None:
        """Make `plain`, the corresponding layer of a folded network, compute the same in evaluation mode.

        Raises NotImplementedError if that is impossible.
        """
        plain.set_weight_(*self.fold())

    def kept_norms(self) -> dict[str, float | Tensor]:
        """The parameters whose norm the optimizer restores after every update, by name; by default none.

        A number is the Euclidean norm of each unit's weight vector. A tensor [] is the norm of the whole parameter.
        """
        return {}

    def weight_decays(self) -> dict[str, float]:
        """The weight decay of parameters, by name: p := (1 - learning rate * decay) p before each step."""
        return {}


def centred(v: Tensor) -> Tensor:
    """v [out, ...] minus the mean of each unit's vector. A constant vector becomes exactly 0, without rounding errors.

    A vector with a single element is not centred.
    """
    if v[0].numel() == 1:
        return v
    dim = tuple(range(1, v.ndim))
    c = v - v.mean(dim=dim, keepdim=True)
    constant = c.abs().amax(dim=dim, keepdim=True) <= v.abs().amax(dim=dim, keepdim=True) * 8 * torch.finfo(v.dtype).eps
    return c.masked_fill(constant, 0.0)


def per_unit(values: Tensor, weight: Tensor) -> Tensor:
    """`values` [out] in a shape that multiplies the units of `weight` [out, ...]."""
    return values.view(-1, *[1] * (weight.ndim - 1))


class BatchStatisticsLayer(Layer):
    """A layer whose output in training mode depends on the whole minibatch."""

    @abstractmethod
    def adopt_statistics_(self, mean: Tensor, var: Tensor) -> None:
        """Set the running statistics from mean and variance (1/N) [out] of the output over a batch in evaluation mode.

        The function in evaluation mode does not change. In training mode, the layer then computes the same on that
        batch.
        """


@dataclass(frozen=True)
class LayerKit:
    """The constructors of a network's layers, with the arguments of torch.nn's layers."""

    linear: Callable[..., nn.Module]
    """(in_features, out_features)"""
    conv2d: Callable[..., nn.Module]
    """(in_channels, out_channels, kernel_size, stride=, padding=)"""
    head_linear: Callable[..., nn.Module] | None = None
    """constructor of the hidden linear layers of a network's head; None means `linear`"""
    last: Callable[..., nn.Module] | None = None
    """constructor of the linear layers that no ReLU follows; None means `linear`"""
    folded: str = "standard"
    """the parameterization of a folded network; standard: plain weights and biases"""

    def output(self, in_features: int, out_features: int) -> nn.Module:
        """A layer that no ReLU follows."""
        return (self.last or self.linear)(in_features, out_features)


def layer_kit(param: str) -> LayerKit:
    """The layers of the parameterization `param`; UsageError, with the closest name, if there is none."""
    row = PARAMETERIZATIONS.get(param)
    if row is None:
        raise UsageError(f"unknown parameterization {param!r}; {closest(param, PARAMETERIZATIONS)}")
    conv2d = _no_convolution(param) if row.conv2d is None else import_code(row.conv2d)
    last = None if row.last is None else import_code(row.last)
    return LayerKit(import_code(row.linear), conv2d, last=last, folded=row.folded)


def _no_convolution(param: str) -> Callable[..., nn.Module]:
    """A constructor for a parameterization without convolutions. It raises UsageError."""

    def conv2d(*_args: object, **_settings: object) -> nn.Module:
        raise UsageError(
            f"the parameterization {param} has no convolutions: register it with conv2d=, or choose a network without "
            "them, like network.name=mlp"
        )

    return conv2d


def layers_of(network: nn.Module, besides: Collection[str] = ()) -> dict[str, Layer]:
    """The layers of `network` by name, in the order of their definition.

    Raises UsageError if a parameter or a buffer is not part of a layer. Modules named in `besides` (an LSTM, for
    instance) and the normalization of observations are exempt.
    """
    layers: dict[str, Layer] = {}
    inside: set[nn.Module] = set()  # a layer may contain layers; only the outermost one is returned
    for name, module in network.named_modules():
        if isinstance(module, Layer) and module not in inside:
            layers[name] = module
            inside.update(module.modules())
    others = [network.get_submodule(name) for name in besides]
    others += [module for module in network.modules() if isinstance(module, InputNormalization)]
    known = {id(tensor) for module in (*layers.values(), *others) for _, tensor in _tensors(module)}
    for name, tensor in _tensors(network):
        if id(tensor) not in known:
            raise UsageError(
                f"{name} of {type(network).__name__} belongs to no layer: it could not be initialized or exported; "
                "build it from the layers that the network is given, or subclass wn_dqn.nn.layers.Layer"
            )
    return layers


def _tensors(module: nn.Module) -> itertools.chain[tuple[str, Tensor]]:
    return itertools.chain(module.named_parameters(), module.named_buffers())
