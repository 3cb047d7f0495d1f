"""Weight normalization, w = g v/||v|| (Salimans & Kingma 2016, section 2), as layers with visible v, g and bias.

One g and one norm per output unit (a channel, for a convolution); the norm is Euclidean, over all other dimensions
of v. g and v are trained directly.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _WeightNorm(nn.Module):
    """The parameters of a weight-normalized layer and what initialization does with them."""

    v: nn.Parameter
    g: nn.Parameter
    bias: nn.Parameter

    def __init__(self, *direction_shape: int, device: torch.device | None, dtype: torch.dtype | None) -> None:
        super().__init__()
        v = torch.zeros(direction_shape, device=device, dtype=dtype)
        v[:, :1] = 1.0  # any direction but none: ||v|| = 0 has no w
        self.v = nn.Parameter(v)
        self._create_scale(torch.zeros(direction_shape[0], device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(direction_shape[0], device=device, dtype=dtype))
        self._known_norm: tuple[object, Tensor] | None = None

    def _create_scale(self, zeros: Tensor) -> None:
        """Make the parameter that g is, or is computed from, out of zeros [out]."""
        self.g = nn.Parameter(zeros)

    @torch.no_grad()
    def _set_scale_(self, g: Tensor) -> None:
        """Set g, [out]."""
        self.g.copy_(g)

    def v_norm(self) -> Tensor:
        """||v||, [out].

        Without gradients, as in acting and in the target network, it is computed once for each value of v: torch
        counts a tensor's changes. A CUDA graph changes v uncounted, and there the norm costs nothing.
        """
        if torch.is_grad_enabled() or self.v.device.type != "cpu" or torch.compiler.is_compiling():
            return _norm(self.v)
        value = (self.v.data_ptr(), self.v._version, self.v.dtype)
        if self._known_norm is None or self._known_norm[0] != value:
            self._known_norm = (value, _norm(self.v))
        return self._known_norm[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known_norm": None}  # a copy's v is another tensor

    @property
    def weight(self) -> Tensor:
        """w = g v/||v||, in the shape of v (equation 2)."""
        return self.v * (self.g / self.v_norm()).view(-1, *[1] * (self.v.ndim - 1))

    @property
    def direction_shape(self) -> torch.Size:
        """The shape of the direction v: an output unit first."""
        return self.v.shape

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """Set v; g := 1, b := 0, so that the layer computes v.x/||v|| (equation 5)."""
        self.v.copy_(v)
        self._set_scale_(torch.ones_like(self.bias))
        self.bias.zero_()

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight`, an output unit first, as v := w and g := ||w||; b := `bias`, [out]."""
        self.v.copy_(weight)
        self._set_scale_(self.v_norm())
        self.bias.copy_(bias)

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """Change the layer so that its output y becomes scale * y + shift, both [out] (equation 6)."""
        self._set_scale_(self.g * scale)
        self.bias.mul_(scale).add_(shift)


def _norm(v: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(v, dim=tuple(range(1, v.ndim)))
    return norm


class _ScaledLinear(torch.autograd.Function):
    """y = (g/||v||) (x v^T) + b: weight normalization of a linear layer without ever forming w.

    Scaling the output is equal to scaling the weight, in value and in gradient, and leaves one pass over v in each
    direction besides the matrix products. In the 512 x 3136 layer of the Nature network those passes are nearly all
    that weight normalization costs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, norm: Tensor, g: Tensor, bias: Tensor) -> Tensor:
        """x [B, in], v [out, in], its norm [out], g [out], bias [out] -> [B, out]."""
        inverse_norm = norm.reciprocal()
        t = x @ v.T.to(x.dtype)
        ctx.save_for_backward(x, v, g, inverse_norm, t)
        return torch.addcmul(bias, t, g * inverse_norm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, None, Tensor, Tensor]:
        """Equation 3, with dL/dw = dy^T x, so that dL/dw . v = sum over the batch of dy * t."""
        x, v, g, inverse_norm, t = ctx.saved_tensors
        scale = g * inverse_norm
        dt = (dy * scale).to(x.dtype)  # x is bfloat16 under autocast, else this changes nothing
        dg = (dy * t).sum(dim=0) * inverse_norm
        dv = (dt.T @ x).to(v.dtype).addcmul_(v, (-scale * dg * inverse_norm).unsqueeze(1))
        dx = dt @ v.to(x.dtype) if ctx.needs_input_grad[0] else None
        return dx, dv, None, dg, dy.sum(dim=0)


class WeightNormLinear(_WeightNorm):
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
        y: Tensor = _ScaledLinear.apply(x, self.v, self.v_norm().detach(), self.g, self.bias)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class _WeightNormConvolution(_WeightNorm):
    """What the convolutions share: v is [out, in, k, k], and one norm belongs to one output channel."""

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
        out_channels, in_channels, kernel_size, _ = self.v.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel_size}, stride={self.stride}, padding={self.padding}"


class WeightNormConv2d(_WeightNormConvolution):
    """A 2-D convolution with w = g v/||v||, from [B, in, H, W] to [B, out, H', W']. The kernel is square."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class WeightNormConvTranspose2d(_WeightNormConvolution):
    """A transposed 2-D convolution with w = g v/||v||, from [B, in, H, W] to [B, out, H', W']. The kernel is square.

    As everywhere, v is [out, in, k, k]; torch keeps these weights as [in, out, k, k]. The paper's convolutional
    auto-encoders decode with such layers (section 5.2).
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
        w = self.weight.transpose(0, 1)
        return F.conv_transpose2d(x, w, self.bias, self.stride, self.padding, self.output_padding)
