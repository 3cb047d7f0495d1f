"""The Nature DQN network (Mnih et al. 2015, Methods, "Model architecture"), written once, given its layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.parameterization import Parameterization


class QNetwork(nn.Module):
    """Q-values [B, num_actions] from observations uint8 [B, 4, 84, 84].

    Convolutions run in channels_last, which is faster on CPUs and on GPUs; it changes no value beyond rounding. A ReLU
    overwrites what its layer put out: a hook that keeps a pre-activation keeps a copy.
    """

    def __init__(self, layers: Parameterization, num_actions: int) -> None:
        super().__init__()
        self.conv1 = layers.conv2d(4, 32, 8, stride=4)  # -> [B, 32, 20, 20]
        self.conv2 = layers.conv2d(32, 64, 4, stride=2)  # -> [B, 64, 9, 9]
        self.conv3 = layers.conv2d(64, 64, 3, stride=1)  # -> [B, 64, 7, 7]
        self.hidden = layers.linear(64 * 7 * 7, 512)
        self.output = layers.linear(512, num_actions)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def forward(self, obs: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        # To channels_last by stacking the frames anew: on a CPU that is faster than a permuted copy.
        x = torch.stack(obs.unbind(1), dim=-1).permute(0, 3, 1, 2).to(dtype).div_(255.0)
        x = F.relu_(self.conv1(x))
        x = F.relu_(self.conv2(x))
        x = F.relu_(self.conv3(x).flatten(1))
        x = F.relu_(self.hidden(x))
        q: Tensor = self.output(x)
        return q
