"""DRAW (Gregor et al. 2015), the recurrent VAE of section 5.3: LSTMs that read from and write to a canvas.

B images of A x A pixels, H units of each LSTM (`width`), D latent variables, N x N points of a glimpse, T glimpses.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.layers import Layer, layer_kit
from wn_dqn.nn.optimizers import Adam
from wn_dqn.nn.recurrent import PlainLSTM, WeightNormLSTM, lstm_step
from wn_dqn.nn.uniform_init import UNIFORM_INITS
from wn_dqn.paper.bounds import binarized, gaussian_kl, log_bernoulli
from wn_dqn.paper.settings import PaperSettings
from wn_dqn.paper.system import BoundSystem, Picture, tiled

SIDE = 28
"""pixels of an image's side"""
LATENTS, READ, WRITE = 100, 2, 5
"""latent variables of a glimpse, and its points a side: table 3 of Gregor et al."""
_EPSILON = 1e-8
_COLUMNS = 10

LSTMS: dict[str, Any] = {"standard": PlainLSTM, "wn": WeightNormLSTM}
"""parameterization -> its LSTM"""


def filter_banks(params: Tensor, points: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Filters F_y and F_x [B, N, A] and intensity [B, 1] of a glimpse, from its parameters [B, 5].

    The parameters are g_x, g_y, log variance, log stride and log intensity (Gregor et al. 2015, equations 19 to 26).
    Each row of a filter is a Gaussian over the pixels and sums to 1.
    """
    gx, gy, log_var, log_stride, log_gamma = params.unsqueeze(2).unbind(dim=1)
    stride = (side - 1) / max(points - 1, 1) * log_stride.exp()
    offsets = torch.arange(points, device=params.device, dtype=params.dtype) - (points - 1) / 2
    pixels = torch.arange(side, device=params.device, dtype=params.dtype)

    def bank(g: Tensor) -> Tensor:
        centres = (side - 1) / 2 * (g + 1) + offsets * stride
        logits = -(pixels - centres.unsqueeze(2)).square() / (2.0 * log_var.exp().unsqueeze(2) + _EPSILON)
        # A softmax: where a filter lies far outside, its sum would be 0 and the division undefined.
        return torch.softmax(logits, dim=2)

    return bank(gy), bank(gx), log_gamma.exp()


class Draw(BoundSystem):
    """Binary images [B, 1, A, A]; the bound in nats. The canvas is a sum of T glimpses."""

    max_gradient_norm = 10.0  # our choice: neither paper states one

    def __init__(self, settings: PaperSettings, classes: int = 10) -> None:
        super().__init__()
        self.settings = settings
        layers, h = layer_kit(settings.param), settings.width
        read = 2 * (READ**2 if settings.attention else SIDE**2)
        write = WRITE**2 if settings.attention else SIDE**2
        self.encoder = LSTMS[settings.param](read + h, h)
        self.decoder = LSTMS[settings.param](LATENTS, h)
        self.posterior, self.write = layers.output(h, 2 * LATENTS), layers.output(h, write)
        self.attention = nn.ModuleList([layers.output(h, 5) for _ in range(2)] if settings.attention else [])

    @torch.no_grad()
    def start_(self, batch: Tensor, generator: torch.Generator) -> None:
        """Uniform weights, no data-dependent initialization: section 5.3 applies none. Both arms start alike."""
        for lstm in (self.encoder, self.decoder):
            lstm.initialize_(generator)
        for layer in (module for module in self.modules() if isinstance(module, Layer)):
            shape = layer.direction_shape
            bound = UNIFORM_INITS["torch"].bound(shape)
            weight = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            layer.set_weight_(weight, torch.zeros(shape[0]))

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam, as in Gregor et al."""
        return Adam(self.parameters(), lr=self.settings.learning_rate, foreach=True)

    def unroll(self, x: Tensor | None, noise: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Canvases [B, A, A] after each glimpse, the divergence [B] in nats, and where each wrote: [T, B, 5].

        `noise` [T, B, D]. With binary images x [B, 1, A, A] latents are from q(z|x); with None from the prior.
        Weights are normalized once, not at each glimpse.
        """
        weights = {
            name: (m.weight_ih, m.weight_hh, m.bias) for name, m in (("enc", self.encoder), ("dec", self.decoder))
        }
        folded = {name: m.fold() for name, m in self.named_modules() if isinstance(m, Layer)}
        zero = noise.new_zeros(noise.shape[1], self.settings.width)
        encoder, decoder = (zero, zero), (zero, zero)
        canvas, kl = noise.new_zeros(noise.shape[1], SIDE, SIDE), noise.new_zeros(noise.shape[1])
        canvases, places = [], []
        for eps in noise:
            z = eps
            if x is not None:
                seen = self._read(x[:, 0], canvas, decoder[0], folded)
                encoder = lstm_step(torch.cat([seen, decoder[0]], dim=1), encoder, *weights["enc"])
                mean, log_std = F.linear(encoder[0], *folded["posterior"]).chunk(2, dim=1)
                z, kl = mean + log_std.exp() * eps, kl + gaussian_kl(mean, log_std)
            decoder = lstm_step(z, decoder, *weights["dec"])
            added, place = self._write(decoder[0], folded)
            canvas = canvas + added
            canvases.append(canvas)
            places.append(place)
        return canvases, kl, torch.stack(places)

    def _read(self, x: Tensor, canvas: Tensor, h: Tensor, folded: dict[str, Any]) -> Tensor:
        """Glimpses of the image x and of its error [B, A, A] as one vector: [B, 2 N N], or all pixels."""
        both = torch.stack([x, x - torch.sigmoid(canvas)], dim=1)
        if not self.settings.attention:
            return both.flatten(1)
        fy, fx, gamma = filter_banks(F.linear(h, *folded["attention.0"]), READ, SIDE)
        return gamma * (fy.unsqueeze(1) @ both @ fx.unsqueeze(1).transpose(2, 3)).flatten(1)

    def _write(self, h: Tensor, folded: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What is added to the canvas [B, A, A], and the attention's parameters [B, 5], zeros without attention."""
        patch = F.linear(h, *folded["write"])
        if not self.settings.attention:
            return patch.view(-1, SIDE, SIDE), patch.new_zeros(len(patch), 5)
        place = F.linear(h, *folded["attention.1"])
        fy, fx, gamma = filter_banks(place, WRITE, SIDE)
        patch = patch.view(-1, WRITE, WRITE)
        return (fy.transpose(1, 2) @ patch @ fx) / gamma.unsqueeze(2), place

    def _noise(self, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Noise [T, B, D] for `count` images."""
        return torch.randn(self.settings.glimpses, count, LATENTS, generator=generator, device=device)

    def bound(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The bound, the log likelihood and the divergence, each [B] in nats, of binary x [B, 1, A, A]."""
        canvases, kl, _ = self.unroll(x, self._noise(len(x), generator, x.device))
        log_likelihood = log_bernoulli(x[:, 0], canvases[-1])
        return log_likelihood - kl, log_likelihood, kl

    def pictures(self, x: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Images above reconstructions, samples, and the sequences of canvases of ten samples, one a row."""
        binary = binarized(x, generator)[: 2 * _COLUMNS]
        canvases, _, _ = self.unroll(binary, self._noise(len(binary), generator, x.device))
        pairs = torch.cat([binary, torch.sigmoid(canvases[-1])[:, None]])
        drawn, _, _ = self.unroll(None, self._noise(4 * _COLUMNS, generator, x.device))
        moments = [drawn[round(t)] for t in torch.linspace(0, len(drawn) - 1, min(len(drawn), 12)).tolist()]
        sequences = torch.stack(moments, dim=1)[:_COLUMNS].flatten(0, 1)[:, None]
        return {
            "reconstructions": tiled(pairs, _COLUMNS),
            "samples": tiled(torch.sigmoid(drawn[-1])[:, None], _COLUMNS),
            "glimpses": tiled(torch.sigmoid(sequences), len(moments)),
        }
