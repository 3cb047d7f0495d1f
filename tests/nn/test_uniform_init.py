"""Initializations that look at no data, against torch's own and the range of Lasagne's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.uniform_init import UNIFORM_INITS, initialize_uniform


def initialized(param: str, init: str, seed: int = 0, **how: Any) -> nn.Sequential:
    make = layer_kit(param)
    network = nn.Sequential(make.conv2d(2, 50, 3), nn.ReLU(), nn.Flatten(), make.linear(50 * 4, 30)).eval()
    initialize_uniform(network, UNIFORM_INITS[init], torch.Generator().manual_seed(seed), **how)
    return network


def parameters(network: nn.Sequential) -> list[Tensor]:
    """w and b of every layer."""
    return [each.detach() for layer in layers_of(network).values() for each in layer.fold()]


def test_torch_is_torchs() -> None:
    """The numbers that torch's layers draw when they are made."""
    torch.manual_seed(7)
    oracle = [each.detach() for layer in (nn.Conv2d(2, 50, 3), nn.Linear(200, 30)) for each in layer.parameters()]
    for ours, theirs in zip(parameters(initialized("standard", "torch", seed=7)), oracle, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_nature_is_he_uniform_as_lasagne_has_it() -> None:
    """Standard deviation 1/sqrt(fan-in), so the bound is sqrt(3) times that; biases 0.1."""
    conv, conv_bias, linear, linear_bias = parameters(initialized("standard", "nature"))
    for weight, fan_in in ((conv, 2 * 3 * 3), (linear, 200)):
        assert weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.05)
        assert 0.99 < weight.abs().max().item() * math.sqrt(fan_in / 3) <= 1.0001
    assert (torch.cat([conv_bias, linear_bias]) == 0.1).all()


def test_glorot_is_torchs_xavier() -> None:
    """The bounds of torch.nn.init.xavier_uniform_ and its numbers; biases 0."""
    torch.manual_seed(7)
    ours = parameters(initialized("standard", "glorot", seed=7))
    for weight, shape in zip(ours[::2], ((50, 2, 3, 3), (30, 200)), strict=True):
        torch.testing.assert_close(weight, nn.init.xavier_uniform_(torch.empty(shape)))
    assert not torch.cat(ours[1::2]).any()


@pytest.mark.parametrize("init", UNIFORM_INITS)
@pytest.mark.parametrize("param", [name for name, row in PARAMETERIZATIONS.items() if row.start != "own"])
def test_all_parameterizations_start_with_the_same_weights(param: str, init: str) -> None:
    """In evaluation mode as the same function; with v = w and g = ||w||."""
    centre = param == "ws"
    network, standard = initialized(param, init, centre=centre), initialized("standard", init, centre=centre)
    for layer, plain in zip(*(layers_of(each).values() for each in (network, standard)), strict=True):
        torch.testing.assert_close(layer.fold()[0], plain.weight)
        if hasattr(layer, "v_norm"):
            v = plain.weight / plain.weight.flatten(1).norm(dim=1).view(-1, *[1] * (plain.weight.ndim - 1))
            torch.testing.assert_close(layer.v, v if param == "wn-projected" else plain.weight)
            torch.testing.assert_close(layer.g, plain.weight.flatten(1).norm(dim=1))
    x = torch.randn(3, 2, 4, 4)
    y = standard(x)
    torch.testing.assert_close(network(x), y)
    assert not torch.allclose(initialized(param, init, seed=1)(x), y, atol=1e-2)
