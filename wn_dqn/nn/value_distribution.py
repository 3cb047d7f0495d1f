"""Returns as a distribution on fixed atoms (Bellemare, Dabney & Munos 2017, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Support:
    """The support of the distribution: the atoms z_i = v_min + i step for i = 0..N-1, from `v_min` to `v_max`."""

    v_min: float
    v_max: float
    num_atoms: int
    """N, at least 2"""

    @property
    def step(self) -> float:
        """The distance between neighbouring atoms, (v_max - v_min) / (N - 1)."""
        return (self.v_max - self.v_min) / (self.num_atoms - 1)

    def atoms(self, like: Tensor) -> Tensor:
        """z [N], with the dtype and device of `like`. It is computed on each call, which is cheap."""
        return torch.linspace(self.v_min, self.v_max, self.num_atoms, dtype=like.dtype, device=like.device)

    def mean(self, probabilities: Tensor) -> Tensor:
        """sum_i z_i p_i [...] of probabilities [..., N]."""
        # Not a matrix product, which would round its factors in tf32 and bfloat16.
        return (probabilities * self.atoms(probabilities)).sum(dim=-1)

    def q_values(self, logits: Tensor) -> Tensor:
        """Q-values [...], the means of the distributions whose logits are [..., N]."""
        return self.mean(logits.softmax(dim=-1))
