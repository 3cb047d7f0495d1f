"""What the paper's own code of the classifier (github.com/openai/weightnorm) does differently from the paper's text.

Its standard layers are w = g W: g comes from the data-dependent initialization and stays, and Adam changes W. Since W
keeps the scale that it was drawn with, a step in w is g times as large. And its Adam has epsilon inside the root.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.layers import LayerKit, per_unit
from wn_dqn.nn.standard import Conv2d, Linear

EPSILON = 1e-8
"""inside Adam's root: near it are gradients of 1e-4, not of 1e-8"""


class _Scaled(nn.Module):
    """The two methods of a layer with w = gain * weight. It comes before a standard layer."""

    weight: Any
    bias: Any
    gain: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("gain", torch.ones(self.weight.shape[0]))

    def fold(self) -> tuple[Tensor, Tensor]:
        """gain * weight [out, ...] and b [out]."""
        return self.weight * per_unit(self.gain, self.weight), self.bias

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """weight := `weight` [out, ...], gain := 1, b := `bias` [out]."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        self.gain.fill_(1.0)

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """weight := v [out, ...] at the scale that it has, gain := 1/||v||, b := 0."""
        self.set_weight_(v.to(self.weight), torch.zeros_like(self.bias))
        self.gain.copy_(1.0 / v.flatten(1).norm(dim=1).clamp_min(torch.finfo(v.dtype).tiny))

    @torch.no_grad()
    def rescale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """gain := gain * scale, b := b * scale + shift, both [out]; the weight stays."""
        self.gain.mul_(scale)
        self.bias.mul_(scale).add_(shift)


class ScaledLinear(_Scaled, Linear):
    """y = g W.x + b, from [B, in] to [B, out]; g is no parameter."""

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out] from x [B, in]."""
        return F.linear(x, *self.fold())


class ScaledConv2d(_Scaled, Conv2d):
    """y = g W * x + b, from [B, in, H, W] to [B, out, H', W']; g is no parameter."""

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out, H', W'] from x [B, in, H, W]."""
        y: Tensor = self._conv_forward(x, *self.fold())
        return y


STANDARD = LayerKit(ScaledLinear, ScaledConv2d)
"""the layers of the arm that the reference code calls normal"""


class Adam(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1) with epsilon inside the root: x -= lr m' / sqrt(v' + epsilon).

    m' and v' are the means of the gradient and of its square, divided by 1 - beta^t.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients that the parameters hold."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for param in group["params"]:
                if not (state := self.state[param]):
                    state.update(step=torch.tensor(0.0), mean=torch.zeros_like(param), square=torch.zeros_like(param))
                state["step"] += 1.0
                t = state["step"].item()
                state["mean"].lerp_(param.grad, 1.0 - beta1)
                state["square"].mul_(beta2).addcmul_(param.grad, param.grad, value=1.0 - beta2)
                root = (state["square"] / (1.0 - beta2**t)).add_(EPSILON).sqrt_()
                param.addcdiv_(state["mean"], root, value=-group["lr"] / (1.0 - beta1**t))
