"""Where a Q-value comes from: gradient times input, and guided backpropagation."""

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
    """How much each pixel [84, 84] of `obs` [4, 84, 84] matters to Q(obs, action); summed over the stack of four.

    `gradient`: |x dQ/dx|, the share of Q in a first-order expansion around a black screen. `guided`: |dQ/dx|, the
    gradient passing a ReLU backwards only where it is positive (Springenberg et al. 2015, section 3.4). A black
    pixel counts nothing in the former, whatever it means to the network.
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
    """Within it, every ReLU that runs is a guided one: the network is not told, nor written a second time."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (F.relu, torch.relu, torch.relu_):  # what overwrites its input is used by what it returns
            return _GuidedReLU.apply(args[0])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))
