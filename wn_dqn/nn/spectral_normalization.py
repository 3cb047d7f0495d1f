"""Spectral normalization of chosen layers (Miyato et al. 2018; for DQN, Gogianu et al. 2021, arXiv 2105.05246).

w = scale v/sigma(v), where sigma is the largest singular value, estimated by one power iteration in each training pass.
`scale` is sigma of the initial weight. So the layer starts as the plain one, and keeps its initial Lipschitz constant;
Gogianu et al. use 1 instead. `network.spectral_layers` selects the layers; the others are plain.

The gradient includes that of sigma. For a convolution, sigma is the norm of the operator on images of the actual size,
not of the reshaped kernel, and its gradient is left out, as in the code of Gogianu et al. (snrl).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.layers import Layer

START_ITERATIONS = 200
"""number of power iterations after a convolution's weight was set; they give a sigma about 0.1% too small"""


class SpectralNormLayer(Layer):
    """The parameters v [out, ...] and bias [out], and the singular vectors, which are buffers."""

    v: nn.Parameter
    bias: nn.Parameter
    scale: Tensor
    """[]; this, `left` and `right` exist only if the layer is normalized"""
    left: Tensor
    """left singular vector, in the output's shape, norm 1; empty until a convolution has received an image"""
    right: Tensor
    """right singular vector, in the input's shape, norm 1"""

    def __init__(self, *shape: int, device: torch.device | None, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(shape[0], device=device, dtype=dtype))
        self.normalized = True
        self.register_buffer("scale", torch.ones((), device=device, dtype=dtype))
        for name in ("left", "right"):
            self.register_buffer(name, torch.zeros(0, device=device, dtype=dtype))
        self._held_norm: Tensor | None = None

    def be_plain_(self) -> None:
        """Compute with w = v from now on."""
        self.normalized = False
        del self.scale, self.left, self.right

    @abstractmethod
    def apply_(self, x: Tensor) -> Tensor:
        """v as an operator, on one input of `right`'s shape."""

    @abstractmethod
    def apply_transposed(self, y: Tensor) -> Tensor:
        """Its transpose, on one output of `left`'s shape."""

    def norm(self) -> Tensor:
        """sigma(v) [] by the current singular vectors; 1 if it is 0."""
        if self._held_norm is not None:
            return self._held_norm
        norm = (self.left * self.apply_(self.right)).sum()
        return norm.masked_fill(norm == 0.0, 1.0)

    @torch.no_grad()
    def iterate_(self, times: int = 1) -> None:
        """Power iterations."""
        for _ in range(times):
            self.left.copy_(_normalized(self.apply_(self.right)))
            self.right.copy_(_normalized(self.apply_transposed(self.left)))

    @torch.no_grad()
    def _expect_(self, input_shape: tuple[int, ...]) -> None:
        """Create the singular vectors for inputs of this shape."""
        size = torch.Size(input_shape).numel()
        # Not all ones, because centred weights map them to 0.
        start = torch.arange(size, device=self.v.device).mul(2.4).cos().to(self.v.dtype)
        self.right = _normalized(start.view(input_shape))
        self.left = torch.zeros_like(self.apply_(self.right))

    @abstractmethod
    def find_singular_vectors_(self) -> None:
        """Compute `right`, the right singular vector of v, independently of its old value."""

    @torch.no_grad()
    def _start_(self) -> None:
        """Compute sigma of v again, and set the scale to it."""
        self._held_norm = None
        self.find_singular_vectors_()
        self.iterate_()
        self.scale.copy_(self.norm())

    @torch.no_grad()
    def hold_(self) -> None:
        """Cache sigma."""
        if not self.normalized:
            return
        held, self._held_norm = self._held_norm, None
        norm = self.norm()
        self._held_norm = norm if held is None else held.copy_(norm)  # in place: a CUDA graph reads it there

    @property
    def weight(self) -> Tensor:
        """w [out, ...]."""
        return self.v * (self.scale / self.norm()) if self.normalized and self.right.numel() else self.v

    @property
    def direction_shape(self) -> torch.Size:
        """The shape of v: [out, in] or [out, in, k, k]."""
        return self.v.shape

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` [out, ...], as v := w and scale := sigma(v); b := `bias` [out]."""
        self.v.copy_(weight)
        self.bias.copy_(bias)
        if self.normalized and self.right.numel():
            self._start_()

    def fold(self) -> tuple[Tensor, Tensor]:
        """w = scale v/sigma(v) [out, ...] and b [out]."""
        return self.weight, self.bias


def _normalized(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x)
    return x / norm.clamp(min=torch.finfo(x.dtype).tiny)


class SpectralNormLinear(SpectralNormLayer):
    """y = w.x + b with w = scale v/sigma(v), from [B, in_features] to [B, out_features]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(out_features, in_features, device=device, dtype=dtype)
        self._expect_((in_features,))

    def apply_(self, x: Tensor) -> Tensor:
        """v x, [out] from [in]."""
        return self.v @ x

    def apply_transposed(self, y: Tensor) -> Tensor:
        """v^T y, [in] from [out]."""
        return self.v.T @ y

    def find_singular_vectors_(self) -> None:
        """Compute it from the eigenvectors of v^T v or v v^T, whichever is smaller."""
        out_features, in_features = self.v.shape
        v = self.v.to(torch.promote_types(self.v.dtype, torch.float32))
        matrix = v if in_features <= out_features else v.T
        last = torch.linalg.eigh(matrix.T @ matrix).eigenvectors[:, -1]
        self.right.copy_(last if in_features <= out_features else _normalized(matrix @ last))

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out_features] from x [B, in_features]; in training mode with one power iteration."""
        if not self.normalized:
            return F.linear(x, self.v, self.bias)
        with torch.autocast(x.device.type, enabled=False):
            if self.training:
                self.iterate_()
            factor = self.scale / self.norm()
        # Scale the output, which has fewer elements than the weight. Value and gradient are the same.
        return torch.addcmul(self.bias, F.linear(x, self.v), factor)


class SpectralNormConv2d(SpectralNormLayer):
    """A 2-D convolution with w = scale v/sigma(v), from [B, in, H, W] to [B, out, H', W']. The kernel is square.

    All images must have the size of the first one.
    """

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

    def apply_(self, x: Tensor) -> Tensor:
        """The convolution of one image, [1, out, H', W'] from [1, in, H, W]."""
        return F.conv2d(x, self.v, None, self.stride, self.padding)

    def apply_transposed(self, y: Tensor) -> Tensor:
        """Its transpose, [1, in, H, W] from [1, out, H', W']."""
        over = [(side + 2 * self.padding - self.v.shape[-1]) % self.stride for side in self.right.shape[-2:]]
        return F.conv_transpose2d(y, self.v, None, self.stride, self.padding, over)

    def find_singular_vectors_(self) -> None:
        """Compute it by power iterations from a fixed start."""
        self._expect_(tuple(self.right.shape))
        self.iterate_(START_ITERATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out, H', W'] from x [B, in, H, W]; in training mode with one power iteration."""
        if not self.normalized:
            return F.conv2d(x, self.v, self.bias, self.stride, self.padding)
        with torch.autocast(x.device.type, enabled=False), torch.no_grad():
            if not self.right.numel():
                self._expect_((1, *x.shape[1:]))
                self._start_()
            elif self.training:
                self.iterate_()
            factor = self.scale / self.norm()
        return F.conv2d(x, self.v * factor, self.bias, self.stride, self.padding)
