"""Mean-only batch normalization against equations 7 and 8, batch normalization against torch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wn_dqn.nn.batch_statistics import BatchNormConv2d, BatchNormLinear, adopt_batch_statistics
from wn_dqn.nn.layers import layer_kit

MEAN_ONLY = ("mean-only-bn", "wn-mean-only-bn")
INPUTS = {"linear": (6, 5), "conv2d": (4, 2, 5, 6)}
each_kind = pytest.mark.parametrize("kind", INPUTS)
each_mean_only = pytest.mark.parametrize("name", MEAN_ONLY)
each_batch_statistics = pytest.mark.parametrize("name", [*MEAN_ONLY, "bn"])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(name: str, kind: str) -> Any:
    """A layer with random parameters and statistics, in training mode."""
    layers = layer_kit(name)
    layer = layers.linear(5, 3) if kind == "linear" else layers.conv2d(2, 3, 3, stride=2, padding=1)
    layer = layer.double().train()
    with torch.no_grad():
        for i, tensor in enumerate((*layer.parameters(), *layer.buffers())):
            tensor.copy_(random(*tensor.shape, seed=i + 1))
        if name == "bn":
            layer.running_var.abs_()
    return layer


def units(t: Tensor) -> Tensor:
    """[units, samples]: over the batch and all positions."""
    return t.transpose(0, 1).flatten(1)


def per_unit(values: Tensor, t: Tensor) -> Tensor:
    return values.view(-1, *[1] * (t.ndim - 2))


def pre_activation(layer: Any, kind: str, x: Tensor) -> Tensor:
    """w.x by torch."""
    if kind == "linear":
        return x @ layer.weight.T
    return nn.functional.conv2d(x, layer.weight, stride=2, padding=1)


@each_mean_only
@each_kind
def test_equations_7_and_8(name: str, kind: str) -> None:
    """y = t - mean[t] + b; dL/dt = dL/dy - mean[dL/dy], by hand, all the way to the parameters."""
    layer = make(name, kind)
    x = random(*INPUTS[kind])
    y = layer(x)
    t = pre_activation(layer, kind, x)
    mean = units(t).mean(dim=1)
    torch.testing.assert_close(y, t - per_unit(mean, t) + per_unit(layer.bias, t), rtol=1e-12, atol=1e-12)
    dy = random(*y.shape, seed=20)
    names, parameters = zip(*((name, p) for name, p in layer.named_parameters() if name != "bias"), strict=True)
    gradients = torch.autograd.grad(y, (*parameters, layer.bias), dy)
    dt = dy - per_unit(units(dy).mean(dim=1), dy)  # equation 8
    assert (dt - dy).abs().max() > 0.1
    by_hand = torch.autograd.grad(t, parameters, dt)
    for parameter, ours, theirs in zip(names, gradients, by_hand, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=parameter)
    torch.testing.assert_close(gradients[-1], units(dy).sum(dim=1))


@each_mean_only
@each_kind
def test_mean_only_gradcheck(name: str, kind: str) -> None:
    layer = make(name, kind)
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *parameters: Tensor) -> Any:
        buffers = {"running_mean": layer.running_mean.clone()}
        return torch.func.functional_call(layer, {**dict(zip(names, parameters, strict=True)), **buffers}, (x,))

    inputs = (random(*INPUTS[kind]), *layer.parameters())
    assert torch.autograd.gradcheck(function, tuple(tensor.detach().clone().requires_grad_() for tensor in inputs))


@each_mean_only
@each_kind
def test_running_mean(name: str, kind: str) -> None:
    """A tenth of the way to the batch's mean of w.x in training; not moved, and used, in evaluation."""
    layer = make(name, kind)
    x, before = random(*INPUTS[kind]), layer.running_mean.clone()
    t = pre_activation(layer, kind, x)
    layer(x)
    torch.testing.assert_close(layer.running_mean, 0.9 * before + 0.1 * units(t).mean(dim=1))
    assert not layer.running_mean.requires_grad
    after = layer.running_mean.clone()
    y = layer.eval()(x)
    assert torch.equal(layer.running_mean, after)
    torch.testing.assert_close(y, t + per_unit(layer.bias - after, t), rtol=1e-12, atol=1e-12)


@each_kind
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_torchs(kind: str, training: bool) -> None:
    """A layer without a bias followed by torch's BatchNorm: values, gradients and running statistics."""
    layer = make("bn", kind).train(training)
    plain: Any = (
        nn.Linear(5, 3, bias=False) if kind == "linear" else nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False)
    )
    norm = nn.BatchNorm1d(3) if kind == "linear" else nn.BatchNorm2d(3)
    oracle = nn.Sequential(plain, norm).double().train(training)
    pairs = {
        "w": (layer.weight, plain.weight),
        "gain": (layer.gain, norm.weight),
        "b": (layer.bias, norm.bias),
        "running mean": (layer.running_mean, norm.running_mean),
        "running variance": (layer.running_var, norm.running_var),
    }
    with torch.no_grad():
        for ours, theirs in pairs.values():
            theirs.copy_(ours)
    x = random(*INPUTS[kind])
    y, oracle_y = layer(x), oracle(x)
    torch.testing.assert_close(y, oracle_y, rtol=1e-12, atol=1e-12)
    y.sin().sum().backward()
    oracle_y.sin().sum().backward()
    for name, (ours, theirs) in pairs.items():
        torch.testing.assert_close(ours, theirs, msg=name)
        if isinstance(ours, nn.Parameter):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12, msg=name)


@each_batch_statistics
@each_kind
def test_in_evaluation_mode_a_sample_is_alone(name: str, kind: str) -> None:
    layer = make(name, kind).eval()
    x = random(*INPUTS[kind])
    torch.testing.assert_close(layer(x), torch.cat([layer(sample[None]) for sample in x]), rtol=1e-12, atol=1e-12)


@each_batch_statistics
@each_kind
def test_adopting_a_batch_keeps_the_function_and_makes_it_that_of_training_mode(name: str, kind: str) -> None:
    layer = make(name, kind)
    network = nn.Sequential(layer)
    x, other = random(*INPUTS[kind]), random(*INPUTS[kind], seed=1)
    before = copy.deepcopy(layer).eval()
    adopt_batch_statistics(network, x)
    assert layer.training  # as it was
    in_training = copy.deepcopy(layer)(x)
    layer.eval()
    torch.testing.assert_close(layer(x), before(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer(other), before(other), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(in_training, before(x), rtol=1e-10, atol=1e-10)
    t = units(pre_activation(layer, kind, x))
    torch.testing.assert_close(layer.running_mean, t.mean(dim=1))
    if isinstance(layer, BatchNormLinear | BatchNormConv2d):
        torch.testing.assert_close(layer.running_var, t.var(dim=1, correction=0))


@each_batch_statistics
@each_kind
def test_rescaling_the_output(name: str, kind: str) -> None:
    layer = make(name, kind).eval()
    x, scale, shift = random(*INPUTS[kind]), random(3, seed=30).abs(), random(3, seed=31)
    y = layer(x)
    layer.rescale_output_(scale, shift)
    torch.testing.assert_close(layer(x), per_unit(scale, y) * y + per_unit(shift, y), rtol=1e-12, atol=1e-12)


@each_batch_statistics
def test_statistics_are_saved_with_the_parameters(name: str) -> None:
    layer, other = make(name, "linear"), layer_kit(name).linear(5, 3).double()
    other.load_state_dict(layer.state_dict())
    x = random(2, 5)
    assert torch.equal(other.eval()(x), layer.eval()(x))
