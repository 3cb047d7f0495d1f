"""Weight standardization against its formula in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wn_dqn.errors import UsageError
from wn_dqn.nn.layers import centred, layer_kit
from wn_dqn.nn.weight_norm import first_order


def naive_weight(v: Tensor, g: Tensor) -> Tensor:
    """Row by row: the deviation from the mean, divided by the standard deviation (1/N) and sqrt(N)."""
    rows = []
    for row, scale in zip(v, g, strict=True):
        deviation = row - row.sum() / row.numel()
        std = (deviation.square().sum() / row.numel()).sqrt()
        rows.append(scale * deviation / std / row.numel() ** 0.5)
    return torch.stack(rows)


@given(
    out=st.integers(1, 5), fan_in=st.integers(2, 6), batch=st.integers(1, 4), kind=st.sampled_from(["linear", "conv"]),
    fast=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_formula_in_value_and_gradient(
    out: int, fan_in: int, batch: int, kind: str, fast: bool, seed: int
) -> None:
    """With a v that is not centred, as Adam makes it."""
    kit, draws = layer_kit("ws"), torch.Generator().manual_seed(seed)
    layer: Any = kit.linear(fan_in, out) if kind == "linear" else kit.conv2d(fan_in, out, 2)
    layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) + 0.3)
    v, g, bias = (each.detach().clone().requires_grad_() for each in (layer.v, layer.g, layer.bias))
    x = torch.randn(batch, fan_in, *[3, 3] * (kind == "conv"), generator=draws).double()
    with first_order() if fast else torch.enable_grad():
        y = layer(x)
    w = naive_weight(v, g)
    expected = x @ w.T + bias if kind == "linear" else torch.nn.functional.conv2d(x, w, bias)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    y.sin().sum().backward()
    expected.sin().sum().backward()
    for ours, theirs in ((layer.v, v), (layer.g, g), (layer.bias, bias)):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), layer.g.abs())


def test_what_is_set_loses_its_mean() -> None:
    layer: Any = layer_kit("ws").linear(3, 2)
    layer.set_weight_(torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]), torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(layer.fold()[0].detach(), torch.tensor([[-2.0, -1.0, 3.0], [0.0, 0.0, 0.0]]))
    assert layer.fold()[1].tolist() == [0.5, -1.0]


def test_a_held_norm_is_that_of_the_deviations() -> None:
    layer: Any = layer_kit("ws").linear(5, 2)
    layer.set_direction_(torch.randn(2, 5, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        layer.v += 1.0
    x = torch.eye(5)
    y = layer(x)
    layer.hold_()
    torch.testing.assert_close(layer(x), y)
    torch.testing.assert_close(layer.weight.T, y)


def test_a_unit_of_one_input_has_no_deviation() -> None:
    with pytest.raises(UsageError, match="two inputs or more"):
        layer_kit("ws").linear(1, 3)


def test_centred_vectors_sum_to_zero_and_constant_ones_vanish() -> None:
    v = torch.tensor([[1.0, 2.0, 6.0], [0.1, 0.1, 0.1], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(centred(v), torch.tensor([[-2.0, -1.0, 3.0], [0.0] * 3, [0.0] * 3]))
    assert torch.equal(centred(v[:, :1]), v[:, :1])
