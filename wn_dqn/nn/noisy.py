"""Noisy layers (Fortunato et al. 2018, section 3, factorized): learned noise on the weights, for any parameterization.

The noise of a weight is sigma_ij f(e_j) f(e_i), that of a bias sigma_i f(e_i), with f(e) = sgn(e) sqrt|e| and standard
normal e, one for each input and one for each output of a layer. The mean is the layer without noise, in any
parameterization.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import types
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.errors import UsageError
from wn_dqn.nn.layers import Layer, LayerKit

Pass = Literal["acting", "learning", "target", "choosing"]
_PASSES: tuple[Pass, ...] = ("acting", "learning", "target", "choosing")


class NoisyLayer(Layer):
    """Adds noise to the output of the linear layer that comes next in the MRO, if `noise` is set.

    Initially sigma is sigma_0/sqrt(in), after weights or a direction of norm 1 have been set. It is rescaled with the
    output. So the initial noise relative to the output is the same in all parameterizations.
    """

    sigma: nn.Parameter
    """[out, in]"""
    sigma_bias: nn.Parameter
    """[out]"""

    def __init__(self, *args: Any, initial_sigma: float, **kwargs: Any) -> None:
        """`initial_sigma` is sigma_0; the other arguments are the layer's own."""
        super().__init__(*args, **kwargs)
        self.initial_sigma = initial_sigma
        like, shape = next(self.parameters()).detach(), self.direction_shape
        self.sigma = nn.Parameter(like.new_empty(shape))
        self.sigma_bias = nn.Parameter(like.new_empty(shape[0]))
        self.noise: tuple[Tensor, Tensor] | None = None
        """f(e) of the inputs [in] and of the outputs [out]; None: the layer computes its mean. See :class:`Noise`"""
        self._begin_sigma_()

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out] from x [B, in]."""
        y: Tensor = super().forward(x)
        if self.noise is None:
            return y
        of_inputs, of_outputs = self.noise
        # The noise is an outer product. So it is applied to input and output, and no noisy matrix is formed.
        return y + of_outputs * F.linear(x * of_inputs, self.sigma, self.sigma_bias)

    @torch.no_grad()
    def _begin_sigma_(self) -> None:
        value = self.initial_sigma / math.sqrt(self.sigma.shape[1])
        self.sigma.fill_(value)
        self.sigma_bias.fill_(value)

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """Set the mean to `weight` [out, in] and `bias` [out], and sigma to its initial value."""
        super().set_weight_(weight, bias)  # type: ignore[safe-super]
        self._begin_sigma_()

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """Set the mean's direction to v [out, in], and sigma to its initial value."""
        super().set_direction_(v)
        self._begin_sigma_()

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """Change the layer so that its output y becomes scale * y + shift, both [out], its noise included."""
        sigma, sigma_bias = self.sigma * scale.unsqueeze(1), self.sigma_bias * scale
        super().rescale_output_(scale, shift)
        self.sigma.copy_(sigma)
        self.sigma_bias.copy_(sigma_bias)


@functools.cache
def noisy(linear: type[Layer]) -> type[NoisyLayer]:
    """The class of `linear` with noise."""
    name = f"Noisy{linear.__name__}"
    return types.new_class(name, (NoisyLayer, linear), exec_body=lambda body: body.update(__module__=__name__))


def noisy_kit(layers: LayerKit, initial_sigma: float) -> LayerKit:
    """`layers` with noise in the linear layers of the head. Raises UsageError if their constructor is not a class."""

    def noisy_constructor(linear: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if not isinstance(linear, type):
            raise UsageError(f"network.noisy needs a class of linear layers, not {linear!r}")
        return functools.partial(noisy(linear), initial_sigma=initial_sigma)

    hidden, last = map(noisy_constructor, (layers.linear, layers.last or layers.linear))
    return dataclasses.replace(layers, head_linear=hidden, last=last)


def noisy_layers(network: nn.Module) -> list[NoisyLayer]:
    """The noisy layers of `network`, in the order of their definition."""
    return [module for module in network.modules() if isinstance(module, NoisyLayer)]


class Noise:
    """Samples of the noise of a network's layers, one for each kind of pass of an agent.

    The tensors are changed in place, so that a CUDA graph reads the new values. They are drawn on the CPU, so that a
    GPU has the same numbers.
    """

    def __init__(self, network: nn.Module, generator: np.random.Generator) -> None:
        self.generator = generator
        self._sizes = [size for layer in noisy_layers(network) for size in layer.sigma.shape[::-1]]
        device = next(network.parameters()).device
        self._samples = torch.zeros(len(_PASSES), sum(self._sizes), device=device)

    def draw_(self, *passes: Pass) -> None:
        """Draw new samples for `passes`, which must be in the order of :data:`Pass`."""
        first = _PASSES.index(passes[0])
        assert passes == _PASSES[first : first + len(passes)]
        samples = self._samples[first : first + len(passes)]
        normal = self.generator.standard_normal(tuple(samples.shape), dtype=np.float32)
        drawn = torch.from_numpy(np.copysign(np.sqrt(np.abs(normal)), normal))
        samples.copy_(drawn.pin_memory() if samples.is_cuda else drawn, non_blocking=True)

    @contextlib.contextmanager
    def of(self, network: nn.Module, name: Pass) -> Iterator[None]:
        """Inside this context, the layers of `network`, which has the same shape, add the sample for this pass."""
        parts = iter(torch.split(self._samples[_PASSES.index(name)], self._sizes))
        layers = noisy_layers(network)
        for layer in layers:
            layer.noise = next(parts), next(parts)
        try:
            yield
        finally:
            for layer in layers:
                layer.noise = None
