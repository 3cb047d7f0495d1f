"""The VAE with several stochastic layers of section 5.2, and its discretized logistic likelihood."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from wn_dqn.nn.layers import layer_kit
from wn_dqn.paper.bounds import log_discretized_logistic
from wn_dqn.paper.ladder_vae import LadderVae, Level
from wn_dqn.paper.settings import make_paper_settings

BYTES = torch.arange(256.0)[:, None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ladder(param: str, **settings: object) -> LadderVae:
    """A small one, its parameters not set yet."""
    return LadderVae(make_paper_settings("vae-cifar10", param, None, **{"width": 4, "latents": 2, **settings}))


def photos(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=seeded(5))


@given(mean=st.floats(-2, 2), log_scale=st.floats(-7, 3))
def test_the_discretized_logistic_sums_to_1_over_256_values(mean: float, log_scale: float) -> None:
    log_mass = log_discretized_logistic(BYTES, torch.full((256, 1), mean), torch.full((256, 1), log_scale))
    assert log_mass.isfinite().all()
    assert log_mass.double().exp().sum().item() == pytest.approx(1.0, abs=1e-4)


def test_the_discretized_logistic_is_a_difference_of_sigmoids() -> None:
    mean, log_scale = torch.tensor(0.25, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    edges = (torch.arange(257, dtype=torch.float64) - 128.0) / 127.5
    edges[0], edges[-1] = -math.inf, math.inf
    expected = torch.sigmoid((edges - mean) / log_scale.exp()).diff().log()
    x = BYTES.double()
    torch.testing.assert_close(log_discretized_logistic(x, mean.expand_as(x), log_scale.expand_as(x)), expected)


def test_the_discretized_logistic_has_a_gradient_far_from_the_mean() -> None:
    """Where both sigmoids are 1 in float32, so that their difference would be 0 and its logarithm no number."""
    mean = torch.full((256, 1), -1.0, requires_grad=True)
    log_mass = log_discretized_logistic(BYTES, mean, torch.full((256, 1), -7.0))
    log_mass.sum().backward()  # type: ignore[no-untyped-call]
    assert mean.grad is not None
    assert mean.grad.isfinite().all()
    assert (mean.grad[2:] > 1.0).all()


def test_the_divergence_of_a_level_is_torchs() -> None:
    level = Level(layer_kit("standard"), 3, 2)
    generator = seeded(1)
    for parameter in level.parameters():
        parameter.data.normal_(0.0, 0.2, generator=generator)
    h, view = torch.randn(5, 3, 4, 4, generator=generator), torch.randn(5, 3, 8, 8, generator=generator)
    seen: dict[str, Tensor] = {}
    for name in ("prior", "posterior"):
        getattr(level, name).register_forward_hook(lambda _m, _x, y, name=name: seen.update({name: y}))
    _, kl = level(h, view, torch.randn(5, 2, 8, 8, generator=generator))
    p, q = (Normal(mean, log_std.exp()) for mean, log_std in (seen[n].chunk(2, dim=1) for n in ("prior", "posterior")))
    torch.testing.assert_close(kl, kl_divergence(q, p).flatten(1).sum(dim=1))


def test_a_level_from_the_prior_has_no_divergence_and_ignores_the_image() -> None:
    network = ladder("wn")
    network.start_(photos(30), seeded())
    noise = network.noise(4, seeded(2), torch.device("cpu"))
    pixels, kl = network.pixels(None, noise)
    assert pixels.shape == (4, 6, 32, 32)
    assert (kl == 0.0).all()


def test_both_arms_start_as_the_same_function() -> None:
    outcomes = []
    for param in ("standard", "wn"):
        network = ladder(param)
        network.start_(photos(30), seeded())
        outcomes.append(network.bound(photos(8).float(), seeded(2))[0].detach())
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-5, atol=0)


def test_bits_per_dimension_by_hand() -> None:
    """A bound of -3072 ln 2 nats is one bit for each of 32 x 32 x 3 bytes."""
    network = ladder("wn")
    network.start_(photos(30), seeded())
    measures = network.measures(photos(4), torch.zeros(4), seeded(3))
    torch.testing.assert_close(measures["bits_per_dim"] * 3072 * math.log(2.0), -measures["bound"])


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_levels_halve_the_side(levels: int) -> None:
    network = ladder("standard", levels=levels)
    sides = [noise.shape[-1] for noise in network.noise(1, None, torch.device("cpu"))]
    assert sides == [16, 8, 4, 2, 1][:levels]
    network.start_(photos(30), seeded())
    assert network(photos(2).float()).shape == (2, 6, 32, 32)


def test_parameters_by_hand() -> None:
    """M = 64 maps, Z = 32 latent maps, three levels."""
    m, z = 64, 32

    def conv(i: int, o: int, size: int = 3) -> int:
        return size * size * i * o + o

    block = 2 * conv(m, m)
    by_hand = conv(3, m) + 6 * block + 2 * conv(m, m, 1)  # up: two of three levels have a stride, and so a shortcut
    by_hand += conv(m, 2 * z) + conv(z, m) + block
    by_hand += 2 * (2 * block + conv(m, 2 * z) + conv(2 * m, 2 * z) + conv(m + z, m))
    by_hand += block + conv(m, 6)
    assert sum(p.numel() for p in ladder("standard", width=m, latents=z).parameters()) == by_hand
