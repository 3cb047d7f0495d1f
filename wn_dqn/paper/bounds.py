"""The variational bound and its parts, as pure functions in nats. B examples, D latent variables."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def log_normal(x: Tensor) -> Tensor:
    """log N(x; 0, I) [B] of x [B, D]."""
    return -(0.5 * x.square() + _HALF_LOG_2PI).sum(dim=1)


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) [B] of binary x [B, ...] whose elements are independent and 1 with probability sigmoid(`logits`)."""
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1)


def log_discretized_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log p(x) [B] of bytes x [B, ...] whose elements are logistic in [-1, 1] and rounded to 256 values.

    Kingma et al. 2016, section 5.2: p(x) is the logistic mass between the halves to the neighbours; 0 and 255 have all
    that lies beyond them, too. log(sigmoid(a) - sigmoid(b)) is log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)),
    which is exact where the difference of two sigmoids is not.
    """
    inverse_scale = (-log_scale).exp()
    centred = (x - 127.5) / 127.5 - mean
    above = F.logsigmoid((centred + 1.0 / 255.0) * inverse_scale)
    below = F.logsigmoid((1.0 / 255.0 - centred) * inverse_scale)
    inside = above + below + (-torch.expm1(-2.0 / 255.0 * inverse_scale)).log()
    log_mass = torch.where(x < 0.5, above, torch.where(x > 254.5, below, inside))
    return log_mass.flatten(1).sum(dim=1)


def sampled_kl(noise: Tensor, log_std: Tensor, log_det: Tensor, z: Tensor) -> Tensor:
    """log q(z|x) - log p(z) [B] for one sample: z = f(z0), z0 = mean + std * `noise`, p(z) = N(0, I).

    log q(z|x) = log N(noise; 0, I) - sum(`log_std`) - `log_det`, where `log_det` [B] is log |det df/dz0| (Kingma et al.
    2016, equation 10). Its expectation is the divergence of q from p.
    """
    return log_normal(noise) - log_std.sum(dim=1) - log_det - log_normal(z)


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, I)) [B] of mean and log std [B, D], closed form (Kingma & Welling 2013, appendix B)."""
    return 0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0 - 2.0 * log_std).sum(dim=1)


def binarized(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random zeros and ones float32 [B, ...]: each is 1 with probability x / 255, for bytes x uint8 [B, ...]."""
    return (torch.rand(x.shape, generator=generator, device=x.device) * 255.0 < x).float()
