"""The residual network of IMPALA (Espeholt et al. 2018, figure 3, right), without its LSTM, for images of any size."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.layers import LayerKit
from wn_dqn.nn.networks import DuelingHead, QNetwork


class _ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), [B, C, H, W] to the same.

    The data-dependent initialization gives each convolution's output variance 1. The variance of the sum is not 1, and
    grows from block to block. The layer after a sum is initialized from that sum, and so removes its scale.
    """

    def __init__(self, layers: LayerKit, channels: int) -> None:
        super().__init__()
        self.conv1 = layers.conv2d(channels, channels, 3, padding=1)
        self.conv2 = layers.conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W]."""
        residual: Tensor = self.conv2(F.relu_(self.conv1(F.relu(x))))
        return x + residual


class _Section(nn.Module):
    """A convolution, a pooling that halves each side, and two residual blocks."""

    def __init__(self, layers: LayerKit, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = layers.conv2d(in_channels, channels, 3, padding=1)
        self.block1 = _ResidualBlock(layers, channels)
        self.block2 = _ResidualBlock(layers, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ceil(H/2), ceil(W/2)] from [B, C', H, W]."""
        x = F.max_pool2d(self.conv(x), 3, stride=2, padding=1)
        y: Tensor = self.block2(self.block1(x))
        return y


class ImpalaNetwork(QNetwork):
    """Three sections of 16, 32 and 32 channels times `network.width`, and the head: 15 convolutions of 3x3.

    Convolutions run in channels_last, as in the Nature network.
    """

    CHANNELS: ClassVar[tuple[int, int, int]] = (16, 32, 32)
    """of the three sections, at width 1"""
    HIDDEN_UNITS: ClassVar[int] = 256
    """of each hidden layer of the head"""

    def build(self, layers: LayerKit) -> None:
        """Three sections, and the head."""
        channels, height, width = self.obs_shape
        sections = []
        for base in self.CHANNELS:
            sections.append(_Section(layers, channels, base * self.settings.width))
            channels = base * self.settings.width
            height, width = (height + 1) // 2, (width + 1) // 2  # of 84x84: 42, 21, 11
        self.sections = nn.ModuleList(sections)
        self.add_head(layers, channels * height * width, self.HIDDEN_UNITS)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def features(self, x: Tensor) -> Tensor:
        """The output of the sections for images [B, C, H, W]: [B, F], F = 3872 for 84x84 at width 1."""
        for section in self.sections:
            x = section(x)
        return F.relu(x).flatten(1)


class DuelingImpalaNetwork(DuelingHead, ImpalaNetwork):
    """IMPALA's sections under dueling heads."""
