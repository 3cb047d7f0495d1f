"""Layers that subtract batch means: mean-only batch normalization (section 4), and batch normalization proper.

In training mode a layer normalizes with the statistics of its batch, and updates its running averages. In evaluation
mode it uses only the running averages, so that a sample's output does not depend on other samples. The running averages
are buffers: they are saved with the parameters.

``train()`` and ``eval()`` switch a layer, as in all of torch. The agent keeps its networks in evaluation mode, except
for the forward pass that is differentiated.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.layer_statistics import Hook, forward_with_hooks, unit_statistics
from wn_dqn.nn.layers import BatchStatisticsLayer, layers_of
from wn_dqn.nn.standard import Conv2d, Linear
from wn_dqn.nn.weight_norm import WeightNormConv2d, WeightNormLinear

MOMENTUM = 0.1
"""weight of a batch in the running averages, as in the paper's reference code and in torch"""

EPSILON = 1e-5
"""Added to the variance in batch normalization; torch's (the paper's reference code has 1e-6)."""


class _RunningStatistics(BatchStatisticsLayer):
    """The statistics of both kinds of batch normalization: a mixin for the layer that comes next in the MRO."""

    running_mean: Tensor
    """running average of mean[w.x], [out]"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("running_mean", torch.zeros_like(self.bias.detach()))

    def _forget_statistics_(self) -> None:
        """Reset the statistics to values with which the layer computes w.x + b in evaluation mode."""
        self.running_mean.zero_()

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """w := v/||v|| for every output unit, from v [out, ...], as without normalization."""
        super().set_direction_(v)
        self._forget_statistics_()

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` [out, ...] and b := `bias` [out], as without normalization."""
        super().set_weight_(weight, bias)  # type: ignore[safe-super]
        self._forget_statistics_()

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """Change the layer so that its output y becomes scale * y + shift, both [out]."""
        super().rescale_output_(scale, shift)
        self.running_mean.mul_(scale)


class _MeanOnlyBatchNorm(_RunningStatistics):
    """Mean-only batch normalization (equation 7), y = w.x - mean[w.x] + b, of the layer that comes next in the MRO.

    That layer's output includes b, so the mean of w.x is the mean of the output minus b. Autograd's gradient is
    equation 8: the gradient of w.x is centred over the batch (and the positions, for a convolution).
    """

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out, ...] from x [B, in, ...]; in training mode the running mean moves."""
        y: Tensor = super().forward(x)
        mean = self.running_mean
        if self.training:
            mean = y.mean(dim=[0, *range(2, y.ndim)]) - self.bias
            self.running_mean.lerp_(mean.detach(), MOMENTUM)
        return y - mean.view(-1, *[1] * (y.ndim - 2))

    @torch.no_grad()
    def adopt_statistics_(self, mean: Tensor, var: Tensor) -> None:
        """Take over mean and variance [out] of the output over a batch in evaluation mode."""
        self.running_mean.add_(mean - self.bias)
        self.bias.copy_(mean)

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """w [out, ...] and b [out], the running averages folded in."""
        return self.weight, self.bias - self.running_mean


class MeanOnlyBatchNormLinear(_MeanOnlyBatchNorm, Linear):
    """Mean-only batch normalization of a standard linear layer, [B, in_features] to [B, out_features]."""


class MeanOnlyBatchNormConv2d(_MeanOnlyBatchNorm, Conv2d):
    """Mean-only batch normalization of a standard convolution, [B, in, H, W] to [B, out, H', W']."""


class WeightNormMeanOnlyBatchNormLinear(_MeanOnlyBatchNorm, WeightNormLinear):
    """Mean-only batch normalization of a weight-normalized linear layer, the combination of the paper's section 4."""


class WeightNormMeanOnlyBatchNormConv2d(_MeanOnlyBatchNorm, WeightNormConv2d):
    """Mean-only batch normalization of a weight-normalized convolution, the combination of the paper's section 4."""


class BatchNormLayer(_RunningStatistics):
    """Batch normalization (Ioffe & Szegedy 2015) of a standard layer: y = gain (t - mean[t]) / std[t] + b, t = w.x.

    std is the square root of the variance plus EPSILON. The running variance averages unbiased variances, as in torch.
    """

    gain: nn.Parameter
    running_var: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.zeros_like(self.bias.detach()))
        self.register_buffer("running_var", torch.ones_like(self.bias.detach()))
        self._forget_statistics_()

    def pre_activation(self, x: Tensor) -> Tensor:
        """t = w.x [B, out, ...]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out, ...] from x [B, in, ...]; in training mode the running statistics move."""
        return F.batch_norm(
            self.pre_activation(x),
            self.running_mean,
            self.running_var,
            self.gain,
            self.bias,
            self.training,
            MOMENTUM,
            EPSILON,
        )

    @torch.no_grad()
    def _forget_statistics_(self) -> None:
        super()._forget_statistics_()
        self.running_var.fill_(1.0)
        self.gain.fill_((1.0 + EPSILON) ** 0.5)

    @torch.no_grad()
    def adopt_statistics_(self, mean: Tensor, var: Tensor) -> None:
        """Take over mean and variance [out] of the output over a batch in evaluation mode."""
        per_output = (self.running_var + EPSILON).sqrt() / self.gain
        self.running_mean.add_((mean - self.bias) * per_output)
        self.running_var.copy_(var * per_output.square())
        self.gain.copy_((self.running_var + EPSILON).sqrt() / per_output)
        self.bias.copy_(mean)

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """w [out, ...] and b [out], the running averages folded in."""
        scale = self.gain / (self.running_var + EPSILON).sqrt()
        return self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1)), self.bias - scale * self.running_mean


class BatchNormLinear(BatchNormLayer, Linear):
    """Batch normalization of a standard linear layer, [B, in_features] to [B, out_features]."""

    def pre_activation(self, x: Tensor) -> Tensor:
        """t = w.x [B, out_features]."""
        return F.linear(x, self.weight)


class BatchNormConv2d(BatchNormLayer, Conv2d):
    """Batch normalization of a standard convolution, [B, in, H, W] to [B, out, H', W']."""

    def pre_activation(self, x: Tensor) -> Tensor:
        """t = w.x [B, out, H', W']."""
        t: Tensor = self._conv_forward(x, self.weight, None)
        return t


def adopt_batch_statistics(network: nn.Module, batch: Tensor) -> None:
    """Set the running statistics of all layers that have them to those of `batch` [B, ...], in one forward pass.

    The function in evaluation mode does not change, and in training mode the network computes the same on `batch`. So
    after an initialization, it starts as the same function as a network without batch statistics.
    """

    def adopt(layer: Any, _inputs: object, y: Tensor) -> None:
        mean, var = unit_statistics(y)
        layer.adopt_statistics_(mean.to(y.dtype), var.to(y.dtype))

    layers = layers_of(network).values()
    hooks: dict[nn.Module, Hook] = {layer: adopt for layer in layers if isinstance(layer, BatchStatisticsLayer)}
    if hooks:
        forward_with_hooks(network, batch, hooks)
