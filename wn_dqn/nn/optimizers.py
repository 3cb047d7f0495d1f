"""Optimizers by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wn_dqn.config.schema import OptimizerSettings
from wn_dqn.errors import UsageError
from wn_dqn.nn.kernels import adamax_


def _updated(optimizer: torch.optim.Optimizer, group: dict[str, Any], *names: str) -> list[list[Tensor]]:
    """The parameters of `group` that have a gradient, their gradients, and their states of each name, 0 at first."""
    params = [p for p in group["params"] if p.grad is not None]
    for p in params:
        if not optimizer.state[p]:
            optimizer.state[p] = {name: torch.zeros_like(p) for name in names}
    return [params, [p.grad for p in params], *([optimizer.state[p][name] for p in params] for name in names)]


class _Uncompiled(torch.optim.Optimizer):
    """Methods of torch's optimizers without what guards them from torch.compile.

    The guard imports torch's compiler, 800 modules in two seconds, and nothing here compiles an optimizer.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class RMSpropNature(_Uncompiled):
    """The centred RMSProp of Mnih et al. (2015), with epsilon inside the root and no momentum.

    For a gradient d: m = rho m + (1 - rho) d; s = rho s + (1 - rho) d^2; x -= lr d / sqrt(s - m^2 + epsilon).
    ``torch.optim.RMSprop`` adds epsilon outside the root: with epsilon = 0.01 that is another optimizer.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, rho: float, epsilon: float) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients that the parameters hold."""
        for group in self.param_groups:
            params, grads, means, squares = _updated(self, group, "mean", "square")
            rho = group["rho"]
            torch._foreach_lerp_(means, grads, 1.0 - rho)
            torch._foreach_mul_(squares, rho)
            torch._foreach_addcmul_(squares, grads, grads, 1.0 - rho)
            roots = torch._foreach_addcmul(squares, means, means, -1.0)
            torch._foreach_clamp_min_(roots, 0.0)  # a variance; rounding can make it negative
            torch._foreach_add_(roots, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(params, grads, roots, -group["lr"])


class Adamax(_Uncompiled, torch.optim.Adamax):
    """torch's Adamax; on a CPU in one pass through memory if that can be had (:mod:`wn_dqn.nn.kernels`)."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients that the parameters hold."""
        if self.defaults["capturable"]:
            super().step(closure)
            return
        for group in self.param_groups:
            tensors = _updated(self, group, "exp_avg", "exp_inf")
            states = [self.state[param] for param in tensors[0]]
            for state in states:
                if "step" not in state:
                    state["step"] = torch.tensor(0.0)
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1.0)
            beta1 = group["betas"][0]
            step_sizes = [group["lr"] / (1.0 - beta1 ** step.item()) for step in steps]
            adamax_(tensors, group["betas"], group["eps"], step_sizes)


class AdamaxSalimans(_Uncompiled):
    """The Adamax of the weight-normalization paper's reference code: no bias correction, epsilon in the divisor.

    For a gradient d: m = beta1 m + (1 - beta1) d; u = max(beta2 u, |d|); x -= lr m / (u + epsilon).
    ``torch.optim.Adamax`` divides m by 1 - beta1^t, and has epsilon inside the maximum: with the paper's beta1 = 0.5
    the first ten steps differ, and elements whose gradient is about epsilon.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], epsilon: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients that the parameters hold."""
        for group in self.param_groups:
            params, grads, means, norms = _updated(self, group, "mean", "norm")
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(means, grads, 1.0 - beta1)
            torch._foreach_mul_(norms, beta2)
            torch._foreach_maximum_(norms, torch._foreach_abs(grads))
            divisors = torch._foreach_add(norms, group["epsilon"])
            torch._foreach_addcdiv_(params, means, divisors, -group["lr"])


def _rate(params: list[nn.Parameter], settings: OptimizerSettings) -> float:
    """The learning rate; where a schedule changes it on a GPU, in a tensor that a CUDA graph reads again each time."""
    if settings.final_learning_rate is None or not params[0].is_cuda:
        return settings.learning_rate
    if settings.name not in ("adamax", "adam"):
        raise UsageError(f"optimizer.final_learning_rate on a GPU needs adamax or adam, not {settings.name}")
    return torch.tensor(settings.learning_rate, device=params[0].device)  # type: ignore[return-value]


Build = Callable[[list[nn.Parameter], OptimizerSettings], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Build] = {
    "adamax": lambda params, settings: Adamax(
        params,
        lr=_rate(params, settings),
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        capturable=params[0].is_cuda,  # the count of steps lives on the GPU, as a CUDA graph needs it
    ),
    "adamax-salimans": lambda params, settings: AdamaxSalimans(
        params, lr=_rate(params, settings), betas=(settings.beta1, settings.beta2), epsilon=settings.epsilon
    ),
    "adam": lambda params, settings: torch.optim.Adam(
        params,
        lr=_rate(params, settings),
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        foreach=True,
        capturable=params[0].is_cuda,
    ),
    "sgd": lambda params, settings: torch.optim.SGD(params, lr=_rate(params, settings), foreach=True),
    "rmsprop-nature": lambda params, settings: RMSpropNature(
        params, lr=_rate(params, settings), rho=settings.rho, epsilon=settings.epsilon
    ),
}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """The tensors of an optimizer by parameter index and name, without its settings: those are the config's."""
    state: dict[str, Any] = optimizer.state_dict()["state"]
    return {str(index): dict(tensors) for index, tensors in state.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Tensor]]) -> None:
    """Put back what :func:`optimizer_state` gave. ValueError if it is the state of another optimizer."""
    params = [param for group in optimizer.param_groups for param in group["params"]]

    def like_parameter(index: int, tensor: Tensor) -> Tensor:  # in its memory format, too: updates stay as fast
        param = params[index]
        return torch.empty_like(param).copy_(tensor) if tensor.shape == param.shape else tensor.clone()

    shapes = {index: _shapes(tensors) for index, tensors in state.items()}
    if shapes and shapes != {
        index: _shapes(tensors) for index, tensors in optimizer_state(_stepped(optimizer)).items()
    }:
        raise ValueError("the state of its optimizer is that of another one")
    full = optimizer.state_dict()
    full["state"] = {
        int(index): {name: like_parameter(int(index), tensor) for name, tensor in tensors.items()}
        for index, tensors in state.items()
    }
    optimizer.load_state_dict(full)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A copy of `optimizer` after a step, with copies of the parameters: its state has all that a state has."""
    stepped = copy.deepcopy(optimizer)
    stepped._warned_capturable_if_run_uncaptured = True
    for group in stepped.param_groups:
        for param in group["params"]:
            param.grad = torch.zeros_like(param)
    stepped.step()
    return stepped
