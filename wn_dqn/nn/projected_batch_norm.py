"""The layers of CrossQ + WN (Palenicek et al. 2025, arXiv 2502.07523): batch normalization of projected weights.

Each weight vector of a hidden layer is set back to norm 1 after each update, and batch normalization follows. The
output layer has plain weights, which decay with every update.

The rest of CrossQ is left out because it is another algorithm: it has no target network, and one forward pass for both
states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wn_dqn.nn.batch_statistics import BatchNormConv2d, BatchNormLayer, BatchNormLinear
from wn_dqn.nn.layers import per_unit
from wn_dqn.nn.standard import Linear

WEIGHT_DECAY = 1e-2
"""weight decay of the output layer, as in the paper"""


class _ProjectedBatchNorm(BatchNormLayer):
    """Batch normalization with ||w|| = 1 for every unit. A unit that was set to 0 stays 0 until its first update."""

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        """Compute `weight`.x + `bias` in evaluation mode, with w := `weight`/||`weight`|| and the norm in the gain."""
        super().set_weight_(weight, bias)
        norm = torch.linalg.vector_norm(self.weight.flatten(1), dim=1)
        norm.masked_fill_(norm == 0.0, 1.0)
        self.weight.div_(per_unit(norm, self.weight))
        self.gain.mul_(norm)

    def kept_norms(self) -> dict[str, float | Tensor]:
        """w of every unit has norm 1."""
        return {"weight": 1.0}


class ProjectedBatchNormLinear(_ProjectedBatchNorm, BatchNormLinear):
    """Batch normalization of a linear layer with ||w|| = 1, [B, in_features] to [B, out_features]."""


class ProjectedBatchNormConv2d(_ProjectedBatchNorm, BatchNormConv2d):
    """Batch normalization of a convolution with ||w|| = 1, [B, in, H, W] to [B, out, H', W']."""


class DecayedLinear(Linear):
    """y = w.x + b with weight decay, for the layer that no ReLU follows."""

    def weight_decays(self) -> dict[str, float]:
        """w decays; b does not."""
        return {"weight": WEIGHT_DECAY}
