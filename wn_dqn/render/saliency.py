"""Saliency maps of Q-values: gradient times input, and guided backpropagation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

Method = Literal["gradient", "guided"]


def saliency_map(
    q_network: Callable[[Tensor], Tensor], obs: NDArray[np.uint8], action: int, method: Method
) -> NDArray[np.float32]:
    """The influence of each pixel [84, 84] of `obs` [4, 84, 84] on Q(obs, action), summed over the stack of four.

    `gradient` is |x dQ/dx|, the contribution to Q in a first-order expansion around a black screen. `guided` is
    |dQ/dx|, where each ReLU passes back only positive gradients (Springenberg et al. 2015, section 3.4). With
    `gradient`, a black pixel is always 0, even if it matters to the network.
    """
    x = torch.from_numpy(obs)[None].float().requires_grad_()
    with torch.enable_grad(), _GuidedBackpropagation() if method == "guided" else contextlib.nullcontext():
        q = q_network(x)[0, action]
    (gradient,) = torch.autograd.grad(q, x)
    share = gradient if method == "guided" else gradient * x.detach()
    result: NDArray[np.float32] = share[0].abs().sum(dim=0).numpy()
    return result


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp(min=0.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        dx: Tensor = dy.clamp(min=0.0) * (y > 0)
        return dx


class _GuidedBackpropagation(TorchFunctionMode):
    """A context in which every ReLU is a guided one. So the network needs no second implementation."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (F.relu, torch.relu, torch.relu_):  # callers use the result, also of the in-place function
            return _GuidedReLU.apply(args[0])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))
