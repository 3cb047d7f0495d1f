"""Inverse autoregressive flow (Kingma et al. 2016) from masked layers of either parameterization.

B examples, D latent variables, H hidden units, C context units.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.standard import Linear
from wn_dqn.nn.weight_norm import WeightNormLinear

GATE_BIAS = 1.5
"""added to s before the sigmoid: a step begins near the identity, like an LSTM's open forget gate"""


class MaskedLinear(Linear):
    """y = (w * mask).x + b, from [B, in] to [B, out]."""

    def __init__(self, mask: Tensor) -> None:
        """`mask`: zeros and ones [out, in]."""
        super().__init__(mask.shape[1], mask.shape[0])
        self.mask = _Constant(mask)

    def forward(self, x: Tensor) -> Tensor:
        """y [B, out] from x [B, in]."""
        return F.linear(x, self.weight * self.mask.on(x), self.bias)

    def fold(self) -> tuple[Tensor, Tensor]:
        """w * mask [out, in] and b [out]."""
        return self.weight * self.mask.on(self.weight), self.bias

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` * mask [out, in], b := `bias` [out]."""
        super().set_weight_(weight * self.mask.on(weight), bias)

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """w := v * mask / ||v * mask|| for every unit, from v [out, in]; b := 0."""
        super().set_direction_(v * self.mask.on(v))


class WeightNormMaskedLinear(WeightNormLinear):
    """y = w.x + b with w = g v * mask / ||v * mask||, from [B, in] to [B, out]."""

    def __init__(self, mask: Tensor) -> None:
        """`mask`: zeros and ones [out, in]; no row may be zero, w is undefined there."""
        super().__init__(mask.shape[1], mask.shape[0])
        self.mask = _Constant(mask)
        self.set_direction_(mask)

    def direction(self) -> Tensor:
        """v * mask [out, in]."""
        return self.v * self.mask.on(self.v)

    @torch.no_grad()
    def set_direction_(self, v: Tensor) -> None:
        """v := `v` * mask [out, in]; g := 1, b := 0."""
        super().set_direction_(v * self.mask.on(v))

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """w := `weight` * mask [out, in]; b := `bias` [out]."""
        super().set_weight_(weight * self.mask.on(weight), bias)


MASKED: dict[str, Any] = {"standard": MaskedLinear, "wn": WeightNormMaskedLinear}
"""parameterization -> its masked layer"""


class _Constant:
    """A tensor that is no state of a module: it follows from the module's shape."""

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def on(self, like: Tensor) -> Tensor:
        """The tensor on the device of `like`."""
        if self._value.device != like.device:
            self._value = self._value.to(like.device)
        return self._value


def autoregressive_masks(latents: int, hidden: int, context: int) -> tuple[Tensor, Tensor]:
    """Masks [H, C + D] and [2 D, C + H] of a network whose outputs i see the latents before i, and all of the context.

    After Germain et al. 2015 (MADE): hidden unit j has the degree j mod (D - 1) + 1 and sees that many latents.
    """
    degree = torch.arange(hidden) % max(latents - 1, 1) + 1
    order = torch.arange(latents) + 1
    into = torch.cat([torch.ones(hidden, context), (order[None] <= degree[:, None]).float()], dim=1)
    out = torch.cat([torch.ones(latents, context), (degree[None] < order[:, None]).float()], dim=1)
    return into, torch.cat([out, out])


class FlowStep(nn.Module):
    """z' = gate z + (1 - gate) m with gate = sigmoid(s + 1.5), and (m, s) autoregressive in z (equations 12 to 14)."""

    def __init__(self, param: str, latents: int, hidden: int, context: int) -> None:
        super().__init__()
        into, out = autoregressive_masks(latents, hidden, context)
        self.into, self.out = MASKED[param](into), MASKED[param](out)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z' [B, D] and log |det dz'/dz| [B] from z [B, D] and the context [B, C]."""
        h = F.elu(self.into(torch.cat([context, z], dim=1)))
        m, s = self.out(torch.cat([context, h], dim=1)).chunk(2, dim=1)
        gate = torch.sigmoid(s + GATE_BIAS)
        return gate * z + (1.0 - gate) * m, F.logsigmoid(s + GATE_BIAS).sum(dim=1)


class Flow(nn.Module):
    """Steps of the flow; the order of the latents is reversed between two steps. Without steps: the identity."""

    def __init__(self, param: str, steps: int, latents: int, hidden: int, context: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList([FlowStep(param, latents, hidden, context) for _ in range(steps)])

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """f(z) [B, D] and log |det df/dz| [B] from z [B, D] and the context [B, C]."""
        log_det = z.new_zeros(len(z))
        for index, step in enumerate(self.steps):
            z, added = step(z.flip(1) if index else z, context)
            log_det = log_det + added
        return z, log_det
