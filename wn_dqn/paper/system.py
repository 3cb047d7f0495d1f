"""What the shared trainer asks of a system: its network with a start, a loss, measures of a test, and pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wn_dqn.nn.weight_norm import first_order
from wn_dqn.paper.bounds import binarized
from wn_dqn.paper.data import Images
from wn_dqn.seeding import Stream, seed_sequence

Picture = NDArray[np.uint8]
"""[H, W] in gray, or [H, W, 3] in colour"""


class System(nn.Module, ABC):
    """One of the paper's systems. Its parameters are what is learned; it draws from no generator but a given one."""

    averaged = False
    """whether it is tested with a moving average of its parameters (Polyak & Juditsky 1992)"""
    max_gradient_norm: float | None = None
    """longer gradients, of all parameters together, are scaled back to it; None: they stay"""
    better = "higher"
    """whether `score` is better when it is higher or lower"""
    score = "bound"
    """the measure that a page begins with"""

    def inputs(self, images: Images, folder: Path) -> tuple[Tensor, Tensor]:
        """What the network is given of the training set [N, C, H, W] and the test set [M, C, H, W].

        What is too large for the memory may lie in `folder`, in files that are gone when the process ends.
        """
        return images.train, images.test

    @abstractmethod
    def start_(self, batch: Tensor, generator: torch.Generator) -> None:
        """Set all parameters from a CPU generator and inputs [B, C, H, W]."""

    @abstractmethod
    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of all parameters."""

    def schedule(self, epoch: float) -> tuple[float, float] | None:
        """Learning rate and momentum after `epoch` epochs, a fraction within one; None: as the optimizer was made."""
        return None

    @abstractmethod
    def loss(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a minibatch x [B, C, H, W] with labels int64 [B], in training mode; a scalar.

        With it, what else is known of the minibatch: scalars by name, of which the mean over an epoch is shown.
        """

    @abstractmethod
    def measures(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Measures [B] of test inputs x [B, C, H, W], by name; the test's are their means."""

    def pictures(self, x: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Pictures by name, made with the help of test inputs x [B, C, H, W]; none, if a system has none."""
        return {}


class BoundSystem(System):
    """A system that learns the bound on the log likelihood of images, and is tested by it."""

    def seen(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What the system models of bytes x uint8 [B, C, H, W]: by default, new random binary images [B, C, H, W]."""
        return binarized(x, generator)

    @abstractmethod
    def bound(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The bound, the log likelihood and the divergence, each [B] in nats, of what is :meth:`seen` [B, C, H, W]."""

    def loss(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean negative bound, a scalar in nats, of bytes x uint8 [B, C, H, W]."""
        with first_order():
            return -self.bound(self.seen(x, generator), generator)[0].mean(), {}

    def measures(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The bound and its parts [B] in nats."""
        bound, log_likelihood, kl = self.bound(self.seen(x, generator), generator)
        return {"bound": bound, "log_likelihood": log_likelihood, "kl": kl}


def generator_of(device: torch.device, seed: int, stream: Stream, *key: int) -> torch.Generator:
    """A generator on `device` for a named stream; `key` (a minibatch, say) picks a substream, so no state is saved."""
    state = seed_sequence(seed, stream, *key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))


def tiled(images: Tensor, columns: int) -> Picture:
    """Images [N, C, H, W] in [0, 1] as one picture, row by row, with a gray line of a pixel between them."""
    rows = -(-len(images) // columns)
    _, channels, height, width = images.shape
    sheet = torch.full((channels, rows * (height + 1) + 1, columns * (width + 1) + 1), 0.5)
    for index, image in enumerate(images.detach().cpu().float().clamp(0.0, 1.0)):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        sheet[:, top : top + height, left : left + width] = image
    picture: Picture = (255.0 * sheet).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return picture[:, :, 0] if channels == 1 else picture
