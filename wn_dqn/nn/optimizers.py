"""Optimizers by name."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wn_dqn.config.schema import OptimizerSettings
from wn_dqn.errors import UsageError
from wn_dqn.nn.kernels import KeptNorm, adamax_, restore_norm_
from wn_dqn.nn.layers import layers_of


def _updated(optimizer: torch.optim.Optimizer, group: dict[str, Any], *names: str) -> list[list[Tensor]]:
    """The parameters of `group` that have a gradient, their gradients, and their states of each name, 0 at first."""
    params = [p for p in group["params"] if p.grad is not None]
    for p in params:
        if not optimizer.state[p]:
            optimizer.state[p] = {name: torch.zeros_like(p) for name in names}
    return [params, [p.grad for p in params], *([optimizer.state[p][name] for p in params] for name in names)]


def _kept_norms(group: dict[str, Any]) -> list[KeptNorm] | None:
    """The current kept norms of the parameters of `group` that have a gradient; None if none are kept."""
    if "kept" not in group:
        return None
    moved = [param.grad is not None for param in group["params"]]
    return [layer.kept_norms()[name] for layer, name in itertools.compress(group["kept"], moved)]


class _Optimizer(torch.optim.Optimizer):
    """An optimizer whose step comes between the layers' weight decay and projection, see :func:`make_optimizer`.

    The guard against torch.compile is removed from methods of torch's optimizers. It would import torch's compiler, 800
    modules in two seconds, and optimizers are not compiled here.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the parameters' gradients."""
        for group in self.param_groups:
            for param in group["params"] if "decay" in group else ():
                param.mul_(1.0 - group["lr"] * group["decay"])
        self._descend()
        for group in self.param_groups:
            self._project(group)

    def moving_groups(self) -> list[dict[str, Any]]:
        """The groups in which a parameter has a gradient."""
        return [group for group in self.param_groups if any(param.grad is not None for param in group["params"])]

    def _descend(self) -> None:
        """The step itself. The default is that of the torch optimizer that comes next in the MRO."""
        super().step()

    def _project(self, group: dict[str, Any]) -> None:
        if norms := _kept_norms(group):
            params = [param for param in group["params"] if param.grad is not None]
            for param, norm in zip(params, norms, strict=True):
                restore_norm_(param, norm)


class RMSpropNature(_Optimizer):
    """The centred RMSProp of Mnih et al. (2015), with epsilon inside the root and no momentum.

    For a gradient d: m = rho m + (1 - rho) d; s = rho s + (1 - rho) d^2; x -= lr d / sqrt(s - m^2 + epsilon).
    ``torch.optim.RMSprop`` adds epsilon outside the root: with epsilon = 0.01 that is another optimizer.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, rho: float, epsilon: float) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "epsilon": epsilon})

    def _descend(self) -> None:
        for group in self.moving_groups():
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


class Adam(_Optimizer, torch.optim.Adam):
    """torch's Adam."""


class SGD(_Optimizer, torch.optim.SGD):
    """torch's gradient descent."""


class Adamax(_Optimizer, torch.optim.Adamax):
    """torch's Adamax; with the kernels of :mod:`wn_dqn.nn.kernels`, it takes one pass through memory on a CPU."""

    def _descend(self) -> None:
        if self.defaults["capturable"]:
            super()._descend()
            return
        for group in self.moving_groups():
            tensors = _updated(self, group, "exp_avg", "exp_inf")
            states = [self.state[param] for param in tensors[0]]
            for state in states:
                if "step" not in state:
                    state["step"] = torch.tensor(0.0)
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1.0)
            beta1 = group["betas"][0]
            step_sizes = [group["lr"] / (1.0 - beta1 ** step.item()) for step in steps]
            adamax_(tensors, group["betas"], group["eps"], step_sizes, _kept_norms(group))

    def _project(self, group: dict[str, Any]) -> None:
        if self.defaults["capturable"]:  # otherwise `_descend` has done it
            super()._project(group)


class AdamaxSalimans(_Optimizer):
    """The Adamax of the weight-normalization paper's reference code: no bias correction, epsilon in the divisor.

    For a gradient d: m = beta1 m + (1 - beta1) d; u = max(beta2 u, |d|); x -= lr m / (u + epsilon).
    ``torch.optim.Adamax`` divides m by 1 - beta1^t, and has epsilon inside the maximum: with the paper's beta1 = 0.5
    the first ten steps differ, and elements whose gradient is about epsilon.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], epsilon: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "epsilon": epsilon})

    def _descend(self) -> None:
        for group in self.moving_groups():
            params, grads, means, norms = _updated(self, group, "mean", "norm")
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(means, grads, 1.0 - beta1)
            torch._foreach_mul_(norms, beta2)
            torch._foreach_maximum_(norms, torch._foreach_abs(grads))
            divisors = torch._foreach_add(norms, group["epsilon"])
            torch._foreach_addcdiv_(params, means, divisors, -group["lr"])


def _rate(params: list[nn.Parameter], settings: OptimizerSettings) -> float:
    """The learning rate. If a schedule changes it on a GPU, it is a tensor, which a CUDA graph reads at each replay."""
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
        capturable=params[0].is_cuda,  # keep the step count on the GPU, as a CUDA graph requires
    ),
    "adamax-salimans": lambda params, settings: AdamaxSalimans(
        params, lr=_rate(params, settings), betas=(settings.beta1, settings.beta2), epsilon=settings.epsilon
    ),
    "adam": lambda params, settings: Adam(
        params,
        lr=_rate(params, settings),
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        foreach=True,
        capturable=params[0].is_cuda,
    ),
    "sgd": lambda params, settings: SGD(params, lr=_rate(params, settings), foreach=True),
    "rmsprop-nature": lambda params, settings: RMSpropNature(
        params, lr=_rate(params, settings), rho=settings.rho, epsilon=settings.epsilon
    ),
}


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer that `settings` name, of all parameters of `network`.

    A parameter whose norm a layer keeps is rescaled to it at the end of each step; with Adamax on a CPU, this happens
    in the same pass through memory. Weight decay is applied before the step, independently of the gradient (Loshchilov
    & Hutter 2019, "Decoupled weight decay regularization").
    """
    optimizer = OPTIMIZERS[settings.name](list(network.parameters()), settings)
    layers = layers_of(network).values()
    kept = {layer.get_parameter(name): (layer, name) for layer in layers for name in layer.kept_norms()}
    decays = {layer.get_parameter(name): decay for layer in layers for name, decay in layer.weight_decays().items()}
    (group,) = optimizer.param_groups
    free = [param for param in network.parameters() if param not in kept and param not in decays]
    groups = [
        {**group, "params": free},
        {**group, "params": list(kept), "kept": list(kept.values())},
        *({**group, "params": [param], "decay": decay} for param, decay in decays.items()),
    ]
    optimizer.param_groups = [group for group in groups if group["params"]]
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """The tensors of an optimizer by parameter index and name, without its settings, which the config contains."""
    state: dict[str, Any] = optimizer.state_dict()["state"]
    return {str(index): dict(tensors) for index, tensors in state.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Tensor]]) -> None:
    """Restore the state from :func:`optimizer_state`. Raises ValueError if it is that of another optimizer."""
    params = [param for group in optimizer.param_groups for param in group["params"]]

    def like_parameter(index: int, tensor: Tensor) -> Tensor:  # also in its memory format, for fast updates
        param = params[index]
        return torch.empty_like(param).copy_(tensor) if tensor.shape == param.shape else tensor.clone()

    shapes = {index: _shapes(tensors) for index, tensors in state.items()}
    if shapes and shapes != {
        index: _shapes(tensors) for index, tensors in optimizer_state(_stepped(optimizer)).items()
    }:
        raise ValueError("the state of its optimizer is that of another one")
    full, groups = optimizer.state_dict(), [dict(group) for group in optimizer.param_groups]
    for group in full["param_groups"]:
        group.pop("kept", None)  # it would be copied, with its layers
    full["state"] = {
        int(index): {name: like_parameter(int(index), tensor) for name, tensor in tensors.items()}
        for index, tensors in state.items()
    }
    optimizer.load_state_dict(full)
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group.update(settings)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A copy of `optimizer` after a step, with copies of the parameters, so that its state is complete."""
    stepped = copy.deepcopy(optimizer)
    stepped._warned_capturable_if_run_uncaptured = True
    for group in stepped.param_groups:
        for param in group["params"]:
            param.grad = torch.zeros_like(param)
    stepped.step()
    return stepped
