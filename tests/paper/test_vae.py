"""The convolutional VAE of section 5.2: the flow, the bound and the network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.layers import layers_of
from wn_dqn.paper.bounds import binarized, gaussian_kl, log_bernoulli, log_normal, sampled_kl
from wn_dqn.paper.flow import MASKED, Flow, FlowStep, autoregressive_masks
from wn_dqn.paper.settings import make_paper_settings
from wn_dqn.paper.vae import ConvolutionalVae

PARAMS = ["standard", "wn"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vae(param: str, width: int = 2, **settings: object) -> ConvolutionalVae:
    """A small VAE, its parameters not set yet."""
    return ConvolutionalVae(make_paper_settings("vae", param, None, width=width, **settings))


def set_at_random(module: torch.nn.Module) -> None:
    """Draw a weight and a bias for every layer."""
    generator = seeded(3)
    for layer in layers_of(module).values():
        weight = 0.3 * torch.randn(layer.direction_shape, generator=generator)
        layer.set_weight_(
            weight.to(layer.bias.dtype), torch.randn(len(weight), generator=generator).to(layer.bias.dtype)
        )


@pytest.mark.parametrize("param", PARAMS)
def test_a_step_of_the_flow_has_a_triangular_jacobian_and_its_determinant(param: str) -> None:
    step = FlowStep(param, 6, 16, 3).double()
    set_at_random(step)
    z, context = (torch.randn(1, n, dtype=torch.float64, generator=seeded(n)) for n in (6, 3))
    jacobian = torch.autograd.functional.jacobian(lambda z: step(z, context)[0][0], z)[:, 0]
    assert jacobian.triu(1).abs().max() == 0
    assert jacobian.tril(-1).abs().max() > 1e-3
    torch.testing.assert_close(step(z, context)[1][0], jacobian.diagonal().log().sum())


@pytest.mark.parametrize("param", PARAMS)
def test_the_log_determinant_of_a_flow_is_autograds(param: str) -> None:
    flow = Flow(param, 3, 5, 12, 2).double()
    set_at_random(flow)
    z, context = (torch.randn(1, n, dtype=torch.float64, generator=seeded(n)) for n in (5, 2))
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z, context)[0][0], z)[:, 0]
    torch.testing.assert_close(flow(z, context)[1][0], torch.linalg.slogdet(jacobian).logabsdet)


def test_no_masked_unit_is_without_inputs() -> None:
    for mask in autoregressive_masks(6, 16, 3):
        assert mask.sum(dim=1).min() >= 3


def test_masked_layers_of_both_parameterizations_are_equal_and_fold() -> None:
    mask, _ = autoregressive_masks(4, 8, 2)
    x, outputs = torch.randn(5, 6, generator=seeded(1)), []
    for param in PARAMS:
        layer = MASKED[param](mask)
        initialize_from_data(layer, x, seeded())
        w, b = layer.fold()
        assert (w[mask == 0] == 0).all()
        torch.testing.assert_close(layer(x), x @ w.T + b)
        outputs.append(layer(x))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)


def test_the_bound_of_a_linear_vae_with_the_exact_posterior_is_the_log_likelihood() -> None:
    """x = W z + noise with orthogonal columns: q = p(z|x) is diagonal, and every sample's bound is log p(x)."""
    d, k, var = 5, 3, 0.3
    w = torch.linalg.qr(torch.randn(d, k, dtype=torch.float64, generator=seeded()))[0] * torch.tensor([0.5, 1.0, 2.0])
    x = torch.randn(4, d, dtype=torch.float64, generator=seeded(1))
    precision = 1.0 + w.square().sum(dim=0) / var
    mean, log_std = x @ w / var / precision, (-0.5 * precision.log()).expand(4, k)
    noise = torch.randn(4, k, dtype=torch.float64, generator=seeded(2))
    z = mean + log_std.exp() * noise
    log_likelihood = log_normal((x - z @ w.T) / math.sqrt(var)) - 0.5 * d * math.log(var)
    bound = log_likelihood - sampled_kl(noise, log_std, torch.zeros(4), z)
    covariance = w @ w.T + var * torch.eye(d, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(torch.zeros(d, dtype=torch.float64), covariance)
    torch.testing.assert_close(bound, marginal.log_prob(x))


def test_the_sampled_divergence_has_the_closed_form_as_its_mean() -> None:
    mean, log_std = torch.tensor([[0.5, -1.0]]).expand(100_000, 2), torch.tensor([[-0.3, 0.2]]).expand(100_000, 2)
    noise = torch.randn(100_000, 2, generator=seeded())
    sampled = sampled_kl(noise, log_std, torch.zeros(100_000), mean + log_std.exp() * noise)
    assert sampled.mean().item() == pytest.approx(gaussian_kl(mean, log_std)[0].item(), abs=0.02)


def test_the_bernoulli_likelihood_of_all_images_sums_to_1() -> None:
    logits = torch.tensor([0.3, -2.0, 1.0])
    images = torch.tensor([[a, b, c] for a in (0.0, 1.0) for b in (0.0, 1.0) for c in (0.0, 1.0)])
    assert log_bernoulli(images, logits.expand(8, 3)).exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_binarization_is_dynamic_and_keeps_the_mean() -> None:
    x, generator = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(20_000, 3), seeded()
    first, second = binarized(x, generator), binarized(x, generator)
    assert first.mean(dim=0).tolist() == pytest.approx([0.0, 0.2, 1.0], abs=0.02)
    assert not torch.equal(first, second)


def test_parameters_by_hand() -> None:
    """The encoder at the paper's size: 16, 32 and 32 maps, then 450 units, and mean and log std of 32 latents."""

    def block(i: int, o: int, *, shortcut: bool) -> int:
        return 9 * i * o + o + 9 * o * o + o + (i * o + o if shortcut else 0)

    by_hand = 9 * 16 + 16 + block(16, 16, shortcut=False) + block(16, 16, shortcut=True)
    by_hand += block(16, 32, shortcut=True) + block(32, 32, shortcut=True) + 2 * block(32, 32, shortcut=False)
    by_hand += 32 * 49 * 450 + 450 + 450 * 64 + 64
    assert sum(p.numel() for p in vae("standard", 16).encoder.parameters()) == by_hand


def test_both_arms_start_as_the_same_function() -> None:
    x = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=seeded(5))
    outcomes: list[Tensor] = []
    for param in PARAMS:
        network = vae(param)
        network.start_(x, seeded())
        outcomes.append(network.bound(binarized(x, seeded(1)), seeded(2))[0].detach())
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-5, atol=0)


def test_a_diagonal_posterior_has_no_flow() -> None:
    network = vae("wn", posterior="diagonal")
    assert not list(network.flow.parameters())
