"""The convolutional VAE of section 5.2 on MNIST: ResNet blocks, inverse autoregressive flow, Adamax, Polyak averaging.

B images, M maps of the first sequence (`width`, the paper's 16), D latent variables, H units of the connected layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.layers import LayerKit, layer_kit
from wn_dqn.nn.optimizers import Adamax
from wn_dqn.paper.bounds import binarized, log_bernoulli, sampled_kl
from wn_dqn.paper.flow import Flow
from wn_dqn.paper.settings import PaperSettings
from wn_dqn.paper.system import BoundSystem, Picture, tiled

BRANCH = 0.1
"""what a ResNet block multiplies its branch with"""
_SHOWN_COLUMNS = 10
_SMALL = 7  # height and width of the last maps


class ResNetBlock(nn.Module):
    """y = x + 0.1 conv(elu(conv(elu(x)))), [B, M, H, W] to [B, M', H / stride, W / stride].

    Where the shape changes, x passes a 1x1 convolution with that stride.
    """

    def __init__(self, layers: LayerKit, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = layers.conv2d(channels, out_channels, 3, stride=stride, padding=1)
        self.conv2 = layers.conv2d(out_channels, out_channels, 3, padding=1)
        same = channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else layers.conv2d(channels, out_channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """y [B, M', H', W'] from x [B, M, H, W]."""
        branch = self.conv2(F.elu(self.conv1(F.elu(x))))
        y: Tensor = self.shortcut(x) + BRANCH * branch
        return y


class Encoder(nn.Module):
    """Images [B, 1, 28, 28] to mean, log std [B, D] of z0 and the flow's context [B, H]: 28, 14, 7 pixels a side."""

    def __init__(self, layers: LayerKit, width: int, hidden: int, latents: int) -> None:
        super().__init__()
        m, wide = width, 2 * width
        self.first = layers.conv2d(1, m, 3, padding=1)
        self.blocks = nn.Sequential(
            *(ResNetBlock(layers, m, m), ResNetBlock(layers, m, m, stride=2)),
            *(ResNetBlock(layers, m, wide), ResNetBlock(layers, wide, wide, stride=2)),
            *(ResNetBlock(layers, wide, wide), ResNetBlock(layers, wide, wide)),
        )
        self.hidden = layers.linear(wide * _SMALL**2, hidden)
        self.posterior = layers.output(hidden, 2 * latents)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [B, D], log std [B, D] and context [B, H] from binary x [B, 1, 28, 28]."""
        context = F.elu(self.hidden(F.elu(self.blocks(self.first(x))).flatten(1)))
        mean, log_std = self.posterior(context).chunk(2, dim=1)
        return mean, log_std, context


class Decoder(nn.Module):
    """Latents [B, D] to logits [B, 1, 28, 28]: the encoder mirrored. Nearest neighbours double the side."""

    def __init__(self, layers: LayerKit, width: int, hidden: int, latents: int) -> None:
        super().__init__()
        self.maps = 2 * width
        self.hidden = layers.linear(latents, hidden)
        self.expand = layers.linear(hidden, self.maps * _SMALL**2)
        sizes = ((self.maps, self.maps), (self.maps, self.maps), (self.maps, width))
        self.sequences = nn.ModuleList(
            [nn.Sequential(ResNetBlock(layers, m, m), ResNetBlock(layers, m, out)) for m, out in sizes]
        )
        self.last = layers.conv2d(width, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Logits [B, 1, 28, 28] from z [B, D]."""
        x = self.expand(F.elu(self.hidden(z))).view(len(z), self.maps, _SMALL, _SMALL)
        for index, sequence in enumerate(self.sequences):
            x = sequence(F.interpolate(x, scale_factor=2.0) if index else x)
        logits: Tensor = self.last(F.elu(x))
        return logits


class Vae(BoundSystem):
    """What both VAEs of section 5.2 learn with: Adamax, and tests with averaged parameters."""

    settings: PaperSettings
    averaged = True

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adamax with the rate of section 5.2, 0.002; on a GPU torch's own, whose count of steps lives there."""
        on_gpu = next(self.parameters()).is_cuda
        return Adamax(self.parameters(), lr=self.settings.learning_rate, capturable=on_gpu)


class ConvolutionalVae(Vae):
    """Binary images [B, 1, 28, 28]; the bound in nats by one sample of q(z|x) each."""

    def __init__(self, settings: PaperSettings, classes: int = 10) -> None:
        super().__init__()
        self.settings = settings
        layers = layer_kit(settings.param)
        size = settings.width, settings.hidden, settings.latents
        self.encoder, self.decoder = Encoder(layers, *size), Decoder(layers, *size)
        steps = settings.flow_steps if settings.posterior == "iaf" else 0
        self.flow = Flow(settings.param, steps, settings.latents, settings.hidden, settings.hidden)

    def start_(self, batch: Tensor, generator: torch.Generator) -> None:
        """The data-dependent initialization on images [B, 1, 28, 28]; then q(z0|x) is scaled to be near N(0, 1)."""
        initialize_from_data(self, binarized(batch.cpu(), generator).to(batch.device), generator)
        posterior: Any = self.encoder.posterior
        tenth = torch.full_like(posterior.bias.detach(), 0.1)
        posterior.rescale_output_(tenth, torch.zeros_like(tenth))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 1, 28, 28] of binary x [B, 1, 28, 28] by the mean of q(z0|x)."""
        mean, _, context = self.encoder(x)
        logits: Tensor = self.decoder(self.flow(mean, context)[0])
        return logits

    def bound(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The bound, the log likelihood and the sampled divergence, each [B] in nats, of binary x [B, 1, 28, 28]."""
        mean, log_std, context = self.encoder(x)
        noise = torch.randn(mean.shape, generator=generator, device=x.device)
        z, log_det = self.flow(mean + log_std.exp() * noise, context)
        log_likelihood = log_bernoulli(x, self.decoder(z))
        kl = sampled_kl(noise, log_std, log_det, z)
        return log_likelihood - kl, log_likelihood, kl

    def pictures(self, x: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Test images above their reconstructions, and samples from the prior."""
        binary = binarized(x, generator)[: 2 * _SHOWN_COLUMNS]
        pairs = torch.cat([binary, torch.sigmoid(self(binary))])
        z = torch.randn(4 * _SHOWN_COLUMNS, self.settings.latents, generator=generator, device=x.device)
        return {
            "reconstructions": tiled(pairs, _SHOWN_COLUMNS),
            "samples": tiled(torch.sigmoid(self.decoder(z)), _SHOWN_COLUMNS),
        }
