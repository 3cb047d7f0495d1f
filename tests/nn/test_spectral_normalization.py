"""Spectral normalization against torch's own, dense operators, and singular values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from wn_dqn.config.schema import NetworkSettings
from wn_dqn.errors import UsageError
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.networks import DuelingMinAtarNetwork, MinAtarNetwork
from wn_dqn.nn.spectral_normalization import SpectralNormConv2d, SpectralNormLayer, SpectralNormLinear


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def largest(layer: Any) -> float:
    """The largest singular value of v, as LAPACK finds it."""
    return float(torch.linalg.matrix_norm(layer.v.detach().double(), 2))


@given(
    out=st.integers(1, 5),
    fan_in=st.integers(1, 6),
    batch=st.integers(1, 4),
    zero=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_torchs_spectral_norm_in_value_and_gradient(
    out: int, fan_in: int, batch: int, zero: bool, seed: int
) -> None:
    """In training, with one power iteration, and in evaluation; of any shape, with a row of zeros or without."""
    ours, theirs = SpectralNormLinear(fan_in, out).double(), nn.Linear(fan_in, out).double()
    weight = randn(out, fan_in, seed=seed)
    weight[0] *= not zero or out == 1
    ours.set_weight_(weight, randn(out, seed=seed + 1))
    torch.testing.assert_close(ours.scale.item(), largest(ours), rtol=1e-9, atol=0)
    with torch.no_grad():
        ours.v += 0.1 * weight.flip(0)  # the singular vectors are those of what it was
        theirs.weight.copy_(ours.v)
        theirs.bias.copy_(ours.bias)
    wrapped: Any = parametrizations.spectral_norm(theirs)
    kept = wrapped.parametrizations.weight[0]
    kept._u.copy_(ours.left)
    kept._v.copy_(ours.right)
    x = randn(batch, fan_in, seed=seed + 2)
    for training in (True, False):
        ours.train(training)
        wrapped.train(training)
        y = ours(x)
        expected = x @ (ours.scale * wrapped.weight).T + wrapped.bias
        torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
        ours.zero_grad()
        wrapped.zero_grad()
        y.sin().sum().backward()
        expected.sin().sum().backward()
        gradient = wrapped.parametrizations.weight.original.grad
        torch.testing.assert_close(ours.v.grad, gradient, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.bias.grad, wrapped.bias.grad, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.left, kept._u, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 0), (3, 1)])
def test_a_convolution_has_the_norm_of_its_operator(stride: int, padding: int) -> None:
    """On images of the size that it sees, against the dense matrix; and no gradient goes through that norm."""
    layer = SpectralNormConv2d(2, 3, 3, stride=stride, padding=padding).double()
    layer.set_weight_(randn(3, 2, 3, 3), randn(3))
    x = randn(4, 2, 7, 6, seed=1)
    plain = torch.nn.functional.conv2d(x, layer.v, layer.bias, stride, padding)
    torch.testing.assert_close(layer(x), plain)
    units = torch.eye(2 * 7 * 6, dtype=torch.float64).view(-1, 2, 7, 6)
    operator = torch.nn.functional.conv2d(units, layer.v, None, stride, padding).flatten(1)
    assert layer.scale.item() == pytest.approx(torch.linalg.matrix_norm(operator, 2).item(), rel=1e-3)
    with torch.no_grad():
        layer.v += 0.2 * randn(3, 2, 3, 3, seed=2)
    y = layer.train()(x)
    factor = (layer.scale / layer.norm()).detach()
    v = layer.v.detach().clone().requires_grad_()
    expected = torch.nn.functional.conv2d(x, v * factor, layer.bias, stride, padding)
    torch.testing.assert_close(y, expected)
    y.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(layer.v.grad, v.grad)
    for _ in range(400):
        layer(x)
    operator = torch.nn.functional.conv2d(units, layer.weight, None, stride, padding).flatten(1)
    assert torch.linalg.matrix_norm(operator, 2).item() == pytest.approx(layer.scale.item(), rel=1e-3)


def test_the_norm_stays_while_weights_grow() -> None:
    layer = SpectralNormLinear(6, 4)
    layer.set_weight_(randn(4, 6).float(), torch.zeros(4))
    first = layer.scale.item()
    layer.train()
    for _ in range(50):
        with torch.no_grad():
            layer.v.mul_(1.1)
        layer(torch.ones(1, 6))
    assert largest(layer) > 100 * first
    assert torch.linalg.matrix_norm(layer.weight.detach(), 2).item() == pytest.approx(first, rel=1e-5)


def test_evaluation_iterates_nothing_and_what_is_held_stays() -> None:
    layer = SpectralNormLinear(6, 4)
    layer.set_weight_(randn(4, 6).float(), torch.zeros(4))
    before = copy.deepcopy(layer.state_dict())
    layer.eval()
    layer(torch.ones(1, 6))
    assert all(torch.equal(layer.state_dict()[key], value) for key, value in before.items())
    norm = layer.norm().clone()
    layer.hold_()
    with torch.no_grad():
        layer.v.mul_(2.0)
    assert torch.equal(layer.norm(), norm)
    layer.hold_()
    torch.testing.assert_close(layer.norm(), 2 * norm)


@pytest.mark.parametrize(
    ("kind", "chosen", "normalized"),
    [
        (MinAtarNetwork, [], {"hidden"}),
        (DuelingMinAtarNetwork, [], {"hidden_value", "hidden_advantage"}),
        (MinAtarNetwork, ["conv", "output"], {"conv", "output"}),
    ],
)
def test_a_network_chooses_its_layers(kind: Any, chosen: list[str], normalized: set[str]) -> None:
    """The others are plain: they have no buffers. All sizes are known before the first observation."""
    network = kind(layer_kit("sn"), (4, 10, 10), 3, NetworkSettings(spectral_layers=chosen))
    layers = layers_of(network)
    assert {name for name, layer in layers.items() if layer.normalized} == normalized  # type: ignore[attr-defined]
    assert {name.split(".")[0] for name, _ in network.named_buffers()} == normalized
    assert all(buffer.numel() for buffer in network.buffers())
    assert all(isinstance(layer, SpectralNormLayer) for layer in layers.values())


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"there is no layer hiden; did you mean hidden\?"):
        MinAtarNetwork(layer_kit("sn"), (4, 10, 10), 3, NetworkSettings(spectral_layers=["hiden"]))
