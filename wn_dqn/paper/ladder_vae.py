"""The convolutional VAE of section 5.2 on CIFAR-10: ResNet blocks and stochastic layers at several resolutions.

The paper says no more of it than "ResNet units and multiple intermediate stochastic layers". This is a ladder: the
encoder goes up to the smallest maps, the decoder comes down again and draws latent maps at each resolution, and both
the prior and the posterior of a level know the levels above it (Kingma et al. 2016, section 4 and figure 3).

B images, M maps (`width`), Z latent maps a level, L levels. Level 0 has 16 x 16 pixels, each next one half the side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.layers import LayerKit, layer_kit
from wn_dqn.paper.bounds import gaussian_kl, log_discretized_logistic
from wn_dqn.paper.settings import PaperSettings
from wn_dqn.paper.system import Picture, tiled
from wn_dqn.paper.vae import ResNetBlock, Vae

CHANNELS = 3
_FIRST_SIDE = 16  # pixels of level 0's side
_FIRST_LOG_SCALE = -2.0  # a logistic distribution as wide as the pixels of photographs
_MIN_LOG_SCALE = -7.0
_COLUMNS = 10


class Level(nn.Module):
    """The way down through one level below the top: maps [B, M, H/2, W/2] from above to maps [B, M, H, W]."""

    def __init__(self, layers: LayerKit, width: int, latents: int) -> None:
        super().__init__()
        self.enlarged = ResNetBlock(layers, width, width)
        self.prior = layers.conv2d(width, 2 * latents, 3, padding=1)
        self.posterior = layers.conv2d(2 * width, 2 * latents, 3, padding=1)
        self.merge = layers.conv2d(width + latents, width, 3, padding=1)
        self.merged = ResNetBlock(layers, width, width)

    def forward(self, h: Tensor, seen: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The maps [B, M, H, W], and the divergence [B] of this level in nats.

        From h [B, M, H/2, W/2], what the encoder saw [B, M, H, W], and noise [B, Z, H, W]. Without `seen` the latent
        maps come from the prior, and the divergence is 0.
        """
        h = self.enlarged(F.interpolate(h, scale_factor=2.0))
        prior_mean, prior_log_std = self.prior(F.elu(h)).chunk(2, dim=1)
        if seen is None:
            z, kl = prior_mean + prior_log_std.exp() * noise, noise.new_zeros(len(noise))
        else:
            mean, log_std = self.posterior(F.elu(torch.cat([h, seen], dim=1))).chunk(2, dim=1)
            z = mean + log_std.exp() * noise
            # In units of the prior, which is then N(0, I).
            kl = gaussian_kl(
                ((mean - prior_mean) * (-prior_log_std).exp()).flatten(1), (log_std - prior_log_std).flatten(1)
            )
        return self.merged(self.merge(torch.cat([F.elu(h), z], dim=1))), kl


class LadderVae(Vae):
    """Colour images [B, 3, 32, 32]; the bound in nats, with discretized logistic pixels."""

    def __init__(self, settings: PaperSettings, classes: int = 10) -> None:
        super().__init__()
        self.settings = settings
        layers, m, z = layer_kit(settings.param), settings.width, settings.latents
        self.first = layers.conv2d(CHANNELS, m, 3, stride=2, padding=1)
        self.up = nn.ModuleList(
            [
                nn.Sequential(ResNetBlock(layers, m, m, stride=2 if level else 1), ResNetBlock(layers, m, m))
                for level in range(settings.levels)
            ]
        )
        self.posterior = layers.conv2d(m, 2 * z, 3, padding=1)
        self.expand = layers.conv2d(z, m, 3, padding=1)
        self.top = ResNetBlock(layers, m, m)
        self.down = nn.ModuleList([Level(layers, m, z) for _ in range(settings.levels - 1)])
        self.enlarged = ResNetBlock(layers, m, m)
        self.last = layers.conv2d(m, 2 * CHANNELS, 3, padding=1)

    def start_(self, batch: Tensor, generator: torch.Generator) -> None:
        """The data-dependent initialization on images uint8 [B, 3, 32, 32]; then all distributions begin alike.

        Priors and posteriors are scaled to be near N(0, 1), and pixels to be nearly the same everywhere.
        """
        initialize_from_data(self, self.seen(batch, generator), generator)
        ends: list[Any] = [self.posterior, *(end for level in self.down for end in (level.prior, level.posterior))]
        for end in ends:
            tenth = torch.full_like(end.bias.detach(), 0.1)
            end.rescale_output_(tenth, torch.zeros_like(tenth))
        last: Any = self.last
        shift = torch.zeros_like(last.bias.detach())
        shift[CHANNELS:] = _FIRST_LOG_SCALE
        last.rescale_output_(torch.full_like(shift, 0.1), shift)

    def seen(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The bytes as they are, float32 [B, 3, 32, 32] from 0 to 255."""
        return x.float()

    def pixels(self, x: Tensor | None, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The pixels' means and log scales [B, 6, 32, 32], and the divergence [B] in nats.

        `noise`: of each level, level 0 first, [B, Z, side, side]. With bytes x [B, 3, 32, 32] latent maps are from the
        posterior; with None from the prior.
        """
        views: list[Tensor | None] = [None] * len(self.up)
        if x is not None:
            h = self.first((x - 127.5) / 127.5)
            for level, blocks in enumerate(self.up):
                views[level] = h = blocks(h)
        z, kl = noise[-1], noise[-1].new_zeros(len(noise[-1]))
        if (top := views[-1]) is not None:
            mean, log_std = self.posterior(F.elu(top)).chunk(2, dim=1)
            z, kl = mean + log_std.exp() * z, gaussian_kl(mean.flatten(1), log_std.flatten(1))
        h = self.top(self.expand(z))
        for below, view, eps in zip(self.down, views[-2::-1], noise[-2::-1], strict=True):
            h, added = below(h, view, eps)
            kl = kl + added
        return self.last(F.elu(self.enlarged(F.interpolate(h, scale_factor=2.0)))), kl

    def noise(self, count: int, generator: torch.Generator | None, device: torch.device) -> list[Tensor]:
        """Standard normal noise for `count` images, level 0 first; zeros without a generator."""
        sides = [_FIRST_SIDE >> level for level in range(len(self.up))]
        shapes = [(count, self.settings.latents, side, side) for side in sides]
        if generator is None:
            return [torch.zeros(shape, device=device) for shape in shapes]
        return [torch.randn(shape, generator=generator, device=device) for shape in shapes]

    def forward(self, x: Tensor) -> Tensor:
        """Means and log scales [B, 6, 32, 32] of bytes x [B, 3, 32, 32] by the means of all posteriors."""
        return self.pixels(x, self.noise(len(x), None, x.device))[0]

    def bound(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The bound, the log likelihood and the divergence, each [B] in nats, of bytes x [B, 3, 32, 32]."""
        pixels, kl = self.pixels(x, self.noise(len(x), generator, x.device))
        mean, log_scale = pixels.chunk(2, dim=1)
        log_likelihood = log_discretized_logistic(x, mean, log_scale.clamp_min(_MIN_LOG_SCALE))
        return log_likelihood - kl, log_likelihood, kl

    def measures(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The bound and its parts [B] in nats, and the bound in bits per dimension: lower is better."""
        measures = super().measures(x, labels, generator)
        return {**measures, "bits_per_dim": -measures["bound"] / (x[0].numel() * math.log(2.0))}

    def pictures(self, x: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Test images above their reconstructions, and means of samples from the prior."""
        shown = self.seen(x[: 2 * _COLUMNS], generator)
        samples, _ = self.pixels(None, self.noise(4 * _COLUMNS, generator, x.device))
        pairs = torch.cat([shown / 255.0, _brightness(self(shown))])
        return {"reconstructions": tiled(pairs, _COLUMNS), "samples": tiled(_brightness(samples), _COLUMNS)}


def _brightness(pixels: Tensor) -> Tensor:
    """The means [B, 3, H, W] of pixels [B, 6, H, W], from 0 to 1."""
    return pixels[:, :CHANNELS] * 0.5 + 0.5
