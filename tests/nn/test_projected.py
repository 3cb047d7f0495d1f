"""Projected weight normalization, and projection and decay within an optimizer's step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from wn_dqn.config.schema import OptimizerSettings
from wn_dqn.nn import kernels
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.optimizers import OPTIMIZERS, load_optimizer_state, make_optimizer, optimizer_state
from wn_dqn.nn.weight_norm import first_order


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def settings(name: str = "adamax", **values: Any) -> OptimizerSettings:
    return OptimizerSettings(name=name, **{"learning_rate": 1e-2, "beta1": 0.5, "epsilon": 1e-8, **values})


def network(param: str, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A convolution in channels_last, a wide layer, one of a single input, and the last one."""
    kit = layer_kit(param)
    made = nn.Sequential(kit.conv2d(2, 3, 3), nn.Flatten(), kit.linear(12, 1), kit.linear(1, 4), kit.output(4, 2))
    made.to(dtype)
    for seed, layer in enumerate(layers_of(made).values()):
        w = torch.randn(layer.direction_shape, generator=generator(seed))
        layer.set_weight_(w, torch.zeros(len(w)))
    made[0].to(memory_format=torch.channels_last)
    return made


def update(optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps along random gradients."""
    for step in steps:
        draws = generator(step)
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.empty_like(param).normal_(generator=draws)
        optimizer.step()


def unit_norms(model: nn.Module) -> Tensor:
    """Of the weight vectors that the layers keep at 1, in float64."""
    layers = layers_of(model).values()
    kept = [layer.get_parameter(name) for layer in layers for name, norm in layer.kept_norms().items() if norm == 1.0]
    return torch.cat([param.detach().double().flatten(1).norm(dim=1) for param in kept])


@pytest.mark.parametrize("param", ["wn", "wn-projected"])
@given(
    out=st.integers(1, 5), fan_in=st.integers(1, 6), batch=st.integers(1, 4), kind=st.sampled_from(["linear", "conv"]),
    fast=st.booleans(), zero=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_torchs_weight_norm_in_value_and_gradient(
    param: str, out: int, fan_in: int, batch: int, kind: str, fast: bool, zero: bool, seed: int
) -> None:
    """Of any shape: one input, one sample, and a unit that is off."""
    kit, draws = layer_kit(param), generator(seed)
    ours: Any = kit.linear(fan_in, out) if kind == "linear" else kit.conv2d(fan_in, out, 2)
    theirs: Any = nn.Linear(fan_in, out) if kind == "linear" else nn.Conv2d(fan_in, out, 2)
    weight = torch.randn(ours.direction_shape, generator=draws)
    weight[0] *= not zero
    ours.set_weight_(weight, torch.randn(out, generator=draws))
    ours, theirs = ours.double(), parametrizations.weight_norm(theirs.double())
    parameters = theirs.parametrizations.weight
    with torch.no_grad():
        parameters.original0.copy_(ours.g.view_as(parameters.original0))
        parameters.original1.copy_(ours.v)
        theirs.bias.copy_(ours.bias)
    x = torch.randn(batch, fan_in, *[3, 3] * (kind == "conv"), generator=draws).double()
    outcomes = []
    for layer in (ours, theirs):
        input_ = x.clone().requires_grad_()
        with first_order() if fast else torch.enable_grad():
            y = layer(input_)
        y.sin().sum().backward()
        outcomes.append((y, input_.grad, layer.bias.grad))
    for our, their in zip(*outcomes, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.g.grad, parameters.original0.grad.flatten(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.v.grad, parameters.original1.grad, rtol=1e-6, atol=1e-6)


def test_norms_are_one_after_ten_thousand_updates() -> None:
    """The norms after a step by the C kernel, or by torch on a machine without a compiler."""
    model = nn.Sequential(network("wn-projected")[2])
    assert (unit_norms(model) - 1).abs().max() < 1e-6
    optimizer = make_optimizer(model, settings())
    update(optimizer, range(10_000))
    assert (unit_norms(model) - 1).abs().max() < 1e-6
    assert all(param.isfinite().all() for param in model.parameters())


@pytest.mark.parametrize("param", ["wn-projected", "wn-all"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_projects(name: str, param: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With kernels and without them in the same bits."""
    ends = []
    for found in (kernels.find_kernels(), kernels.Found(None)):
        monkeypatch.setattr(kernels, "find_kernels", lambda found=found: found)
        model = network(param)
        update(make_optimizer(model, settings(name)), range(3))
        assert (unit_norms(model) - 1).abs().max() < 1e-6
        ends.append([each.detach().clone() for each in model.parameters()])
    for ours, theirs in zip(*ends, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("param", ["wn-projected", "ln-wn-projected"])
def test_the_step_is_adamaxs_and_the_projection_that_of_a_loop(param: str) -> None:
    """Against torch's Adamax in float64, each vector or each matrix then divided by its norm."""
    model = network(param, torch.float64)
    oracle = copy.deepcopy(model)
    kept = [(name, layer) for name, layer in layers_of(oracle).items() if layer.kept_norms()]
    first = {name: [layer.get_parameter(key).detach().norm() for key in layer.kept_norms()] for name, layer in kept}
    reference = torch.optim.Adamax(oracle.parameters(), lr=1e-2, betas=(0.5, 0.999), eps=1e-8, foreach=False)
    optimizer = make_optimizer(model, settings())
    for step in range(5):
        for ours, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
            ours.grad = torch.randn(ours.shape, generator=generator(step)).double()
            theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
        with torch.no_grad():
            for name, layer in kept:
                for key, norm in layer.kept_norms().items():
                    weight = layer.get_parameter(key)
                    if isinstance(norm, Tensor):
                        weight *= first[name][0] / weight.norm()
                    else:
                        for row in weight:
                            row /= row.norm()
    for ours, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_decay_is_adamws() -> None:
    """w of the output layer decays and nothing else does; the rate of a schedule counts."""
    model = network("wn-all", torch.float64)
    last: Any = model[-1]
    decayed, free = nn.Parameter(last.weight.detach().clone()), nn.Parameter(last.bias.detach().clone())
    optimizer = make_optimizer(model, settings("adam"))
    reference = torch.optim.AdamW(
        [{"params": [decayed], "weight_decay": 1e-2}, {"params": [free], "weight_decay": 0.0}],
        lr=1e-2, betas=(0.5, 0.999), eps=1e-8,
    )  # fmt: skip
    for step, rate in enumerate((1e-2, 1e-2, 1e-3)):
        for group in (*optimizer.param_groups, *reference.param_groups):
            group["lr"] = rate
        update(optimizer, range(step, step + 1))
        decayed.grad, free.grad = last.weight.grad.clone(), last.bias.grad.clone()
        reference.step()
    torch.testing.assert_close(last.weight, decayed, rtol=0, atol=1e-14)
    torch.testing.assert_close(last.bias, free, rtol=0, atol=1e-14)


@pytest.mark.parametrize("param", ["wn-projected", "ln-wn-projected", "wn-all"])
def test_a_restored_optimizer_goes_on_with_the_projection(param: str) -> None:
    """In the same bits; and a copy of both, as the instruments make it, projects what it has copied."""
    model, other = network(param), network(param)
    optimizer = make_optimizer(model, settings())
    update(optimizer, range(3))
    restored = make_optimizer(other, settings())
    other.load_state_dict(model.state_dict())
    load_optimizer_state(restored, optimizer_state(optimizer))
    copied, copied_optimizer = copy.deepcopy((model, optimizer))
    for each in (optimizer, restored, copied_optimizer):
        update(each, range(3, 6))
    for ours, restored_, copied_ in zip(*(each.parameters() for each in (model, other, copied)), strict=True):
        assert torch.equal(ours, restored_)
        assert torch.equal(ours, copied_)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    model = network("wn-projected")
    with torch.no_grad():
        model[0].v.mul_(2.0)  # type: ignore[operator,union-attr]
    optimizer = make_optimizer(model, settings())
    model[3].v.grad = torch.ones_like(model[3].v)  # type: ignore[arg-type,union-attr]
    optimizer.step()
    torch.testing.assert_close(model[0].v.detach().flatten(1).norm(dim=1), torch.full((3,), 2.0))  # type: ignore[operator,union-attr]
