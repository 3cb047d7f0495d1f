"""Weight normalization, w = g v/||v|| (Salimans & Kingma 2016, section 2), as layers with visible v, g and bias.

One g and one norm per output unit (a channel, for a convolution); the norm is Euclidean, over all other dimensions
of v. g and v are trained directly.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.layers import Layer


class _Thread(threading.local):
    first_order = False


_thread = _Thread()
_SMALL = 2**18
"""up to this number of weights in a linear layer, forming w is faster; measured on a CPU, from 2^8 to 2^21"""


@contextlib.contextmanager
def first_order() -> Iterator[None]:
    """Inside this context, in this thread, w is computed by torch's weight normalization, a single operation.

    The code inside must not differentiate twice: torch's second derivative treats ||v|| as a constant.
    """
    before = _thread.first_order
    _thread.first_order = True
    try:
        yield
    finally:
        _thread.first_order = before


class WeightNormLayer(Layer):
    """A weight-normalized layer with the parameters v [out, ...], g [out] and bias [out]."""

    v: nn.Parameter
    g: nn.Parameter
    bias: nn.Parameter

    def __init__(self, *direction_shape: int, device: torch.device | None, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(direction_shape, device=device, dtype=dtype))
        norm_of_direction_(self.v.detach())
        self._create_scale(torch.zeros(direction_shape[0], device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(direction_shape[0], device=device, dtype=dtype))
        self._held_norm: Tensor | None = None

    def _create_scale(self, zeros: Tensor) -> None:
        """Create the parameter g, or the one from which g is computed, from zeros [out]."""
        self.g = nn.Parameter(zeros)

    @torch.no_grad()
    def _set_scale_(self, g: Tensor) -> None:
        """Set g, [out]."""
        self.g.copy_(g)

    def direction(self) -> Tensor:
        """The vectors that are normalized, [out, ...]; here v."""
        return self.v

    def v_norm(self) -> Tensor:
        """The norms [out] of :meth:`direction`."""
        return self._norm_of(self.direction())

    def _norm_of(self, v: Tensor) -> Tensor:
        """||v|| [out] of `v` from :meth:`direction`, or the cached norm."""
        return norm_of(v) if self._held_norm is None else self._held_norm

    @torch.no_grad()
    def hold_(self) -> None:
        """Cache ||v|| [out], which is most of the cost of weight normalization in a layer that does not change."""
        norm = norm_of(self.direction())
        if self._held_norm is None:
            self._held_norm = norm
        else:
            self._held_norm.copy_(norm)  # in place: a CUDA graph reads it there

    @property
    def weight(self) -> Tensor:
        """w = g v/||v||, in the shape of v (equation 2)."""
        v = self.direction()
        if not _thread.first_order:
            return v * (self.g / self._norm_of(v)).view(-1, *[1] * (v.ndim - 1))
        # It needs contiguous memory; a channels_last tensor is passed in its own memory order.
        channels_last = v.ndim == 4 and not v.is_contiguous()
        v = v.permute(0, 2, 3, 1) if channels_last else v
        w = torch._weight_norm(v, self.g.view(-1, *[1] * (v.ndim - 1)), 0)
        return w.permute(0, 3, 1, 2) if channels_last else w

    @property
    def direction_shape(self) -> torch.Size:
        """The shape of v: [out, in] or [out, in, k, k]."""
        return self.v.shape

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """Set v [out, ...]; g := 1, b := 0, so that the layer computes v.x/||v|| (equation 5). g := 0 where v is 0."""
        self.v.copy_(v)
        self._held_norm = None
        self._set_scale_((norm_of_direction_(self.v) > 0.0).to(self.bias.dtype))
        self.bias.zero_()

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` [out, ...], as v := w and g := ||w||; b := `bias` [out]."""
        self.v.copy_(weight)
        self._held_norm = None
        self._set_scale_(norm_of_direction_(self.v))
        self.bias.copy_(bias)

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """Change the layer so that its output y becomes scale * y + shift, both [out] (equation 6)."""
        self._set_scale_(self.g * scale)
        self.bias.mul_(scale).add_(shift)

    def fold(self) -> tuple[Tensor, Tensor]:
        """w = g v/||v|| [out, ...] and b [out]."""
        return self.weight, self.bias


def norm_of(v: Tensor) -> Tensor:
    """||v|| [out] of v [out, ...]."""
    norm: Tensor = torch.linalg.vector_norm(v, dim=tuple(range(1, v.ndim)))
    return norm


def norm_of_direction_(v: Tensor) -> Tensor:
    """||v|| [out] of a direction v [out, ...] that was just set. Where v is 0, it becomes the first unit vector.

    v must not be 0, because w = g v/||v|| is undefined there. Such a unit gets g = 0: its output is 0, and it has
    gradients.
    """
    norm = norm_of(v)
    first = v
    while first.ndim > 1:
        first = first.select(1, 0)
    first.masked_fill_(norm == 0.0, 1.0)
    return norm


class _ScaledLinear(torch.autograd.Function):
    """y = (g/||v||) (x v^T) + b: weight normalization of a linear layer without ever forming w.

    Scaling the output equals scaling the weight, in value and in gradient. Besides the matrix products it needs only
    one pass over v forward, and one backward. In the 512 x 3136 layer of the Nature network, these passes are nearly
    the whole cost of weight normalization.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, v: Tensor, norm: Tensor, g: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, in], v [out, in], its norm [out], g [out], bias [out] -> y [B, out], and t = x v^T for the gradient."""
        t = x @ v.T.to(x.dtype)
        return torch.addcmul(bias, t, g * norm.reciprocal()), t

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save the tensors that the gradient needs: the inputs without the bias [out], and t [B, out]."""
        x, v, norm, g, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, v, norm, g, output[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor, _dt: None) -> tuple[Tensor | None, Tensor, None, Tensor, Tensor]:
        """Equation 3 from dy [B, out]: dL/dw = dy^T x, so that dL/dw . v = sum over the batch of dy * t."""
        x, v, norm, g, t = ctx.saved_tensors
        differentiable = torch.is_grad_enabled()
        if differentiable:  # t and the norm as functions of x and v
            norm, t = norm_of(v), x @ v.T.to(x.dtype)
        inverse_norm = norm.reciprocal()
        scale = g * inverse_norm
        dt = (dy * scale).to(x.dtype)  # x is bfloat16 under autocast, else this changes nothing
        dg = (dy * t).sum(dim=0) * inverse_norm
        dv, along_v = (dt.T @ x).to(v.dtype), (-scale * dg * inverse_norm).unsqueeze(1)
        dv = dv + v * along_v if differentiable else dv.addcmul_(v, along_v)
        dx = dt @ v.to(x.dtype) if ctx.needs_input_grad[0] else None
        return dx, dv, None, dg, dy.sum(dim=0)


# `apply` reads the signature at every call, and computing it takes longer than a small layer.
_ScaledLinear.forward.__signature__ = inspect.signature(_ScaledLinear.forward)  # type: ignore[attr-defined]


class WeightNormLinear(WeightNormLayer):
    """y = w.x + b with w = g v/||v||, from [B, in_features] to [B, out_features]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, in_features, device=device, dtype=dtype)
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out_features] from x [B, in_features]."""
        if _thread.first_order and self.v.numel() <= _SMALL:
            return F.linear(x, self.weight, self.bias)
        v = self.direction()
        inputs = x, v, self._norm_of(v).detach(), self.g, self.bias
        y: Tensor
        # Without gradients, call the function itself: binding a Function's arguments is slow in torch.
        y, _ = _ScaledLinear.apply(*inputs) if torch.is_grad_enabled() else _ScaledLinear.forward(*inputs)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"{self.in_features}, {self.out_features}"


class _WeightNormConvolution(WeightNormLayer):
    """The common part of the convolutions: v is [out, in, k, k], with one norm per output channel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_channels, in_channels, kernel_size, kernel_size, device=device, dtype=dtype)
        self.stride = stride
        self.padding = padding

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        out_channels, in_channels, kernel_size, _ = self.v.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel_size}, stride={self.stride}, padding={self.padding}"


class WeightNormConv2d(_WeightNormConvolution):
    """A 2-D convolution with w = g v/||v||, from [B, in, H, W] to [B, out, H', W']. The kernel is square."""

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out, H', W'] from x [B, in, H, W]."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class WeightNormConvTranspose2d(_WeightNormConvolution):
    """A transposed 2-D convolution with w = g v/||v||, from [B, in, H, W] to [B, out, H', W']. The kernel is square.

    As in all layers here, v is [out, in, k, k]; torch stores these weights as [in, out, k, k]. The decoders of the
    paper's convolutional auto-encoders use such layers (section 5.2).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, device=device, dtype=dtype
        )
        self.output_padding = output_padding

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out, H', W'] from x [B, in, H, W]."""
        w = self.weight.transpose(0, 1)
        return F.conv_transpose2d(x, w, self.bias, self.stride, self.padding, self.output_padding)
