"""The laws of section 2.1 in float64, for random networks and data under plain SGD."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from wn_dqn.nn.parameterization import PARAMETERIZATIONS, initializable_layers
from wn_dqn.nn.recurrent import WeightNormLSTM

each_weight_norm = pytest.mark.parametrize("name", ["wn", "wn-exp", "wn-mean-only-bn"])
networks = given(seed=st.integers(0, 2**31), hidden_layers=st.integers(0, 2), lr=st.floats(1e-4, 0.1))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_network(name: str, seed: int, hidden_layers: int) -> nn.Sequential:
    """A convolution and up to three linear layers, in training mode, with normally distributed parameters."""
    make = PARAMETERIZATIONS[name]
    layers: list[nn.Module] = [make.conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten()]
    for _ in range(hidden_layers):
        layers += [make.linear(16, 16), nn.Tanh()]
    network = nn.Sequential(*layers, make.linear(16, 3)).double()
    with torch.no_grad():
        for i, (key, parameter) in enumerate(network.named_parameters()):
            spread = 0.25 if key.endswith(".s") else 1.0  # e^s of more makes a step in s explode, and rounding with it
            parameter.copy_(spread * random(*parameter.shape, seed=seed + i))
    return network


def loss(network: Any, seed: int) -> Tensor:
    """Of a random minibatch."""
    y: Tensor = network(random(5, 2, 4, 4, seed=seed))
    return y.sin().mean()


def composed(name: str, parameters: list[dict[str, Tensor]]) -> Any:
    """The same function out of plain operations, w = g v/||v|| as autograd sees it."""

    def network(x: Tensor) -> Tensor:
        for i, layer in enumerate(parameters):
            v = layer["v"]
            g = layer["s"].exp() if "s" in layer else layer["g"]
            w = v * (g / v.flatten(1).square().sum(dim=1).sqrt()).view(-1, *[1] * (v.ndim - 1))
            t = F.conv2d(x, w, stride=2, padding=1) if i == 0 else x @ w.T
            if name == "wn-mean-only-bn":
                t = t - t.mean(dim=[0, *range(2, t.ndim)], keepdim=True)
            y = t + layer["bias"].view(-1, *[1] * (t.ndim - 2))
            x = y.tanh().flatten(1)
        return y

    return network


@each_weight_norm
@networks
def test_training_by_sgd_equals_training_the_composed_function(
    name: str, seed: int, hidden_layers: int, lr: float
) -> None:
    network = random_network(name, seed, hidden_layers)
    parameters = [
        {key: p.detach().clone().requires_grad_() for key, p in layer.named_parameters()}
        for layer in initializable_layers(network).values()
    ]
    twin = composed(name, parameters)
    optimizer = torch.optim.SGD(network.parameters(), lr)
    twin_optimizer = torch.optim.SGD([p for layer in parameters for p in layer.values()], lr)
    for step in range(5):
        for function, sgd in ((network, optimizer), (twin, twin_optimizer)):
            sgd.zero_grad()
            loss(function, seed + step).backward()  # type: ignore[no-untyped-call]
            sgd.step()
    for layer, layer_parameters in zip(initializable_layers(network).values(), parameters, strict=True):
        for key, parameter in layer.named_parameters():
            torch.testing.assert_close(parameter, layer_parameters[key], rtol=1e-8, atol=1e-9, msg=key)


@each_weight_norm
@given(seed=st.integers(0, 2**31), hidden_layers=st.integers(0, 2), scale=st.floats(1e-3, 1e3), data=st.data())
def test_scaling_v_leaves_the_output_and_scales_its_gradient_by_the_inverse(
    name: str, seed: int, hidden_layers: int, scale: float, data: st.DataObject
) -> None:
    """And leaves every other gradient."""
    network, scaled = (random_network(name, seed, hidden_layers) for _ in range(2))
    chosen = data.draw(st.sampled_from(list(initializable_layers(network))))
    with torch.no_grad():
        scaled.get_submodule(chosen).v.mul_(scale)  # type: ignore[operator,union-attr]
    losses = [loss(each, seed) for each in (network, scaled)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-10, atol=1e-10)
    for each in losses:
        each.backward()  # type: ignore[no-untyped-call]
    for (key, parameter), other in zip(scaled.named_parameters(), network.parameters(), strict=True):
        assert parameter.grad is not None
        gradient = parameter.grad * scale if key == f"{chosen}.v" else parameter.grad
        torch.testing.assert_close(gradient, other.grad, rtol=1e-8, atol=1e-9, msg=key)


@each_weight_norm
@networks
def test_v_norm_grows_by_sqrt_1_plus_c_squared(name: str, seed: int, hidden_layers: int, lr: float) -> None:
    """With c the norm of the update relative to ||v||; so under plain SGD ||v|| never shrinks."""
    network = random_network(name, seed, hidden_layers)
    layers = list(initializable_layers(network).values())
    optimizer = torch.optim.SGD(network.parameters(), lr)
    for step in range(5):
        optimizer.zero_grad()
        loss(network, seed + step).backward()  # type: ignore[no-untyped-call]
        before = [layer.v_norm().detach() for layer in layers]
        c = [lr * layer.v.grad.flatten(1).norm(dim=1) / norm for layer, norm in zip(layers, before, strict=True)]
        optimizer.step()
        for layer, norm, ratio in zip(layers, before, c, strict=True):
            after = layer.v_norm().detach()
            torch.testing.assert_close(after, norm * (1 + ratio**2).sqrt(), rtol=1e-9, atol=0)
            assert (after >= norm * (1 - 1e-14)).all()


@given(seed=st.integers(0, 2**31), lr=st.floats(1e-4, 1.0))
def test_v_norm_grows_by_that_law_in_an_lstm(seed: int, lr: float) -> None:
    """For the weight vectors of the input and of the state, through time."""
    lstm = WeightNormLSTM(3, 4, dtype=torch.float64)
    with torch.no_grad():
        for i, parameter in enumerate(lstm.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed + i))
    y, _ = lstm(random(6, 2, 3, seed=seed))
    y.sin().sum().backward()
    before = [v.detach().norm(dim=1) for v in (lstm.v_ih, lstm.v_hh)]
    torch.optim.SGD(lstm.parameters(), lr).step()
    for v, norm in zip((lstm.v_ih, lstm.v_hh), before, strict=True):
        assert v.grad is not None
        c = lr * v.grad.norm(dim=1) / norm
        assert c.max() > 0
        torch.testing.assert_close(v.detach().norm(dim=1), norm * (1 + c**2).sqrt(), rtol=1e-9, atol=0)
