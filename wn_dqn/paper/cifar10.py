"""The classifier of section 5.1, after table 1: ZCA whitening, seven 3x3 and two 1x1 convolutions, Adam.

B images, M maps (`width`, the paper's 96), K classes. The shape of the data changes as table 1 says: 32, 16, 8, 6.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wn_dqn.nn.batch_statistics import adopt_batch_statistics
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.optimizers import Adam
from wn_dqn.nn.weight_norm import first_order
from wn_dqn.paper import reference_code
from wn_dqn.paper.data import Images, kept_in_memory_or_mapped
from wn_dqn.paper.settings import PaperSettings
from wn_dqn.paper.system import System

NOISE_STD = 0.15
"""of the Gaussian noise that is added to whitened images (table 1)"""
SLOPE = 0.1
"""of the leaky ReLU for negative inputs"""
DROPOUT = 0.5
MOMENTUM, LATE_MOMENTUM = 0.9, 0.5
"""Adam's, in the first and the second half of the training"""
_PART = 5000  # images that are whitened at a time, in float64


class Whitening:
    """ZCA whitening (Krizhevsky & Hinton 2009): x -> (x - mean) U diag(1/sqrt(eigenvalues + epsilon)) U^T.

    Pixels x are (byte - 127.5) / 128. Mean, covariance and the product are computed in float64.
    """

    def __init__(self, images: Tensor, epsilon: float) -> None:
        """Fit mean [D] and matrix [D, D] on images uint8 [N, ...] with D pixels each: the training set alone."""
        x = _pixels(images)
        self.mean = x.mean(dim=0)
        centred = x - self.mean
        eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
        self.matrix = (vectors * (eigenvalues.clamp_min(0.0) + epsilon).rsqrt()) @ vectors.T

    def __call__(self, images: Tensor) -> Tensor:
        """Whitened images float32, in the shape of `images` uint8 [N, ...]."""
        whitened: Tensor = ((_pixels(images) - self.mean) @ self.matrix).float()
        return whitened.view(images.shape)


def _pixels(images: Tensor) -> Tensor:
    """Pixels float64 [N, D] in [-1, 1] from uint8 [N, ...]."""
    return (images.flatten(1).double() - 127.5) / 128.0


class Cifar10(System):
    """Whitened images [B, 3, 32, 32] to logits [B, K]."""

    score, better = "error_percent", "lower"

    def __init__(self, settings: PaperSettings, classes: int = 10) -> None:
        super().__init__()
        self.settings = settings
        own = settings.reference_code and settings.param == "standard"
        layers, m = reference_code.STANDARD if own else layer_kit(settings.param), settings.width
        self.first = torch.nn.ModuleList([layers.conv2d(c, m, 3, padding=1) for c in (3, m, m)])
        self.second = torch.nn.ModuleList([layers.conv2d(c, 2 * m, 3, padding=1) for c in (m, 2 * m, 2 * m)])
        self.third = torch.nn.ModuleList([layers.conv2d(2 * m, 2 * m, size) for size in (3, 1, 1)])
        self.output = layers.output(2 * m, classes)

    def inputs(self, images: Images, folder: Path) -> tuple[Tensor, Tensor]:
        """Both sets whitened, float32 [N, 3, 32, 32]; the whitening is fitted on the training set."""
        whiten = Whitening(images.train, self.settings.zca_epsilon)
        train, test = (
            kept_in_memory_or_mapped(map(whiten, torch.split(part, _PART)), part.shape, folder)
            for part in (images.train, images.test)
        )
        return train, test

    def start_(self, batch: Tensor, generator: torch.Generator) -> None:
        """The data-dependent initialization of section 3 for every arm: all start as the same function."""
        initialize_from_data(self, batch, generator)
        adopt_batch_statistics(self, batch)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam; the learning rate is the arm's."""
        learning_rate, betas = self.settings.learning_rate, (MOMENTUM, 0.999)
        if self.settings.reference_code:
            return reference_code.Adam(self.parameters(), learning_rate, betas)
        return Adam(self.parameters(), lr=learning_rate, betas=betas, foreach=True)

    def schedule(self, epoch: float) -> tuple[float, float]:
        """Rate and momentum: constant in the first half, then momentum 0.5 and a rate that falls linearly to 0."""
        half = self.settings.epochs / 2
        if epoch < half:
            return self.settings.learning_rate, MOMENTUM
        return self.settings.learning_rate * max(2.0 - epoch / half, 0.0), LATE_MOMENTUM

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits [B, K] of whitened images x [B, 3, 32, 32]; noise and dropout are drawn from `generator`, if given."""
        if generator is not None:
            x = x + NOISE_STD * torch.randn(x.shape, generator=generator, device=x.device)
        for layers in (self.first, self.second):
            for layer in layers:
                x = F.leaky_relu(layer(x), SLOPE)
            x = dropout(F.max_pool2d(x, 2), DROPOUT, generator)
        for layer in self.third:
            x = F.leaky_relu(layer(x), SLOPE)
        logits: Tensor = self.output(x.mean(dim=(2, 3)))
        return logits

    def loss(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean cross-entropy in nats, and the error in percent, scalars."""
        with first_order():
            logits = self(x, generator)
        return F.cross_entropy(logits, labels), {"error_percent": error_percent(logits, labels).mean()}

    def measures(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Error in percent and cross-entropy in nats [B]; nothing is drawn."""
        logits = self(x)
        return {
            "error_percent": error_percent(logits, labels),
            "cross_entropy": F.cross_entropy(logits, labels, reduction="none"),
        }


def error_percent(logits: Tensor, labels: Tensor) -> Tensor:
    """[B], 100 where the largest of the logits [B, K] is not the label's, and 0 elsewhere."""
    return 100.0 * (logits.argmax(dim=1) != labels).float()


def dropout(x: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """x, of which each element is 0 with probability p and divided by 1 - p otherwise; x itself without a generator."""
    if generator is None:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= p
    return x * kept / (1.0 - p)
