"""The Nature DQN network (Mnih et al. 2015, Methods, "Model architecture"), written once, given its layers; and its
dueling form, which differs in the head."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.kernels import unit_interval
from wn_dqn.nn.parameterization import Parameterization, initializable_layers


class QNetwork(nn.Module):
    """Q-values [B, num_actions] from observations uint8 [B, 4, 84, 84].

    Convolutions run in channels_last, which is faster on CPUs and on GPUs; it changes no value beyond rounding. A ReLU
    overwrites what its layer put out: a hook that keeps a pre-activation keeps a copy.
    """

    OUTPUT_LAYERS: ClassVar[tuple[str, ...]] = ("output",)
    """The layers after which no ReLU follows. Q-values are linear in what they put out."""
    CHANNELS: ClassVar[tuple[int, int, int]] = (32, 64, 64)
    """Of the three convolutions."""
    HIDDEN_UNITS: ClassVar[int] = 512
    """Of each hidden layer."""

    def __init__(self, layers: Parameterization, num_actions: int) -> None:
        super().__init__()
        first, second, third = self.CHANNELS
        self.conv1 = layers.conv2d(4, first, 8, stride=4)  # -> [B, 32, 20, 20]
        self.conv2 = layers.conv2d(first, second, 4, stride=2)  # -> [B, 64, 9, 9]
        self.conv3 = layers.conv2d(second, third, 3, stride=1)  # -> [B, 64, 7, 7]
        self._add_head(layers, 7 * 7 * third, num_actions)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def _add_head(self, layers: Parameterization, features: int, num_actions: int) -> None:
        self.hidden = layers.linear(features, self.HIDDEN_UNITS)
        self.output = layers.linear(self.HIDDEN_UNITS, num_actions)

    def forward(self, obs: Tensor) -> Tensor:
        x = unit_interval(obs, next(self.parameters()).dtype)
        x = F.relu_(self.conv1(x))
        x = F.relu_(self.conv2(x))
        x = F.relu_(self.conv3(x).flatten(1))
        return self.head(x)

    def head(self, features: Tensor) -> Tensor:
        """Q-values [B, num_actions] from the features [B, 3136] that the convolutions make of observations."""
        q: Tensor = self.output(F.relu_(self.hidden(features)))
        return q

    def scale_q_values_(self, scale: float) -> None:
        """Multiply all Q-values by `scale`, in the output layers alone."""
        layers = initializable_layers(self)
        for layer in map(layers.__getitem__, self.OUTPUT_LAYERS):
            layer.rescale_output_(torch.full_like(layer.bias, scale), torch.zeros_like(layer.bias))


class DuelingQNetwork(QNetwork):
    """Dueling heads (Wang et al. 2016): a state's value and its actions' advantages, from a hidden layer each.

    Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')  (equation 9). Without the mean, a constant could go from the
    one to the other, and nothing would say what is value and what is advantage.
    """

    OUTPUT_LAYERS = ("value", "advantage")

    def _add_head(self, layers: Parameterization, features: int, num_actions: int) -> None:
        self.hidden_value = layers.linear(features, self.HIDDEN_UNITS)
        self.value = layers.linear(self.HIDDEN_UNITS, 1)
        self.hidden_advantage = layers.linear(features, self.HIDDEN_UNITS)
        self.advantage = layers.linear(self.HIDDEN_UNITS, num_actions)

    def head(self, features: Tensor) -> Tensor:
        """Q-values [B, num_actions] from the features [B, 3136] that the convolutions make of observations."""
        value: Tensor = self.value(F.relu_(self.hidden_value(features)))  # [B, 1]
        advantage: Tensor = self.advantage(F.relu_(self.hidden_advantage(features)))  # [B, num_actions]
        dtype = self.value.get_parameter("bias").dtype  # under autocast both come in bfloat16: a large V would
        value, advantage = value.to(dtype), advantage.to(dtype)  # swallow what the actions differ by
        return value + (advantage - advantage.mean(dim=1, keepdim=True))
