"""Statistics of layers' outputs, per unit, in one forward pass over a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Hook = Callable[[Any, object, Tensor], Tensor | None]


def unit_statistics(t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased (1/N) variance, both float64 [units], of t [B, units, ...] over the batch and all positions."""
    units = t.double().transpose(0, 1).flatten(1) if t.ndim > 1 else t.double().unsqueeze(1)
    var, mean = torch.var_mean(units, dim=1, correction=0)
    return mean, var


@torch.no_grad()
def forward_with_hooks(network: nn.Module, batch: Tensor, hooks: Mapping[nn.Module, Hook]) -> None:
    """One forward pass over `batch` [B, ...] in evaluation mode, with a forward hook on some layers.

    Afterwards the modules' modes are restored, and the hooks are removed.
    """
    training = {module: module.training for module in network.modules()}
    handles = [layer.register_forward_hook(hook) for layer, hook in hooks.items()]
    network.eval()
    try:
        network(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
