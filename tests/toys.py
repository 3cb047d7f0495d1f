"""A parameterization, a network and an agent that the package does not know: each is its code here and one row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.config.registry import AgentRow, NetworkRow, ParameterizationRow
from wn_dqn.nn.layers import Layer, LayerKit
from wn_dqn.nn.networks import QNetwork
from wn_dqn.training.q_learning import q_learning_target
from wn_dqn_agents.dqn import DQN


class _Halved(Layer):
    """w = 2 h, trained in h."""

    def __init__(self, *shape: int, stride: int = 1) -> None:
        super().__init__()
        self.h = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.stride = stride

    @property
    def weight(self) -> Tensor:
        return 2.0 * self.h

    @torch.no_grad()
    def set_weight_(self, weight: Tensor, bias: Tensor) -> None:
        self.h.copy_(weight / 2.0)
        self.bias.copy_(bias)

    def fold(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias


class HalvedLinear(_Halved):
    """[B, in] to [B, out]."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(out_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class HalvedConv2d(_Halved):
    """[B, in, H, W] to [B, out, H', W']."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1) -> None:
        super().__init__(out_channels, in_channels, kernel_size, kernel_size, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride)


class CoarseNetwork(QNetwork):
    """One convolution of 12x12 cells over an image."""

    def build(self, layers: LayerKit) -> None:
        channels, height, width = self.obs_shape
        self.cells = layers.conv2d(channels, 4, 12, stride=12)
        self.add_head(layers, 4 * (height // 12) * (width // 12), 16)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.cells(x)).flatten(1)


class PessimisticDQN(DQN):
    """DQN that believes half of what its target network says."""

    def _td_target(self, reward: Tensor, discount: Tensor, next_obs: Tensor) -> Tensor:
        return q_learning_target(reward, 0.5 * discount, self._q(self.target, next_obs))


PARAMETERIZATION = ParameterizationRow("halves", "toys:HalvedLinear", "toys:HalvedConv2d", learning_rate=1e-3)
NETWORK = NetworkRow("coarse cells", "toys:CoarseNetwork", obs_ndim=3)
AGENT = AgentRow("pessimistic DQN", "toys:PessimisticDQN")
