"""Data-dependent initialization on frames of real games, against equations 5 and 6 in NumPy, and at its edges."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from rounding import rounded_differently, summed_in_random_orders
from stacked import Stacked
from torch import Tensor, nn

from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.envs.atari import AtariEnv
from wn_dqn.envs.catch import Catch
from wn_dqn.envs.rules import EnvRules
from wn_dqn.nn.data_dependent_init import InitReport, initialize_from_data
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.networks import DuelingNatureNetwork, NatureNetwork

OBS_SHAPE = (4, 84, 84)

NUM_ACTIONS = 6
each_parameterization = pytest.mark.parametrize("name", PARAMETERIZATIONS)
# Layer normalization mixes units: what concerns one unit alone is not true of it.
LINEAR = [name for name, row in PARAMETERIZATIONS.items() if row.start != "own"]
# On the Nature network: the others differ from standard or wn in nothing that a start has.
NATURE = [name for name in PARAMETERIZATIONS if name not in ("wn-projected", "sn", "ln-wn-projected")]
each_linear_parameterization = pytest.mark.parametrize("name", LINEAR)


BATCH_SIZE = 256


def play(env: Any, steps: int) -> Tensor:
    """Observations of `steps` steps of random play, shuffled: first a batch, then some that it lacks."""
    rng = np.random.default_rng(0)
    seen = [env.reset(np.arange(env.num_envs))]
    for _ in range(steps):
        env.send(rng.integers(0, env.num_actions, env.num_envs))
        seen.append(env.receive().obs.copy())
    drawn = rng.permutation(env.num_envs * (steps + 1))[: BATCH_SIZE + 64]
    return torch.from_numpy(np.concatenate(seen)[drawn])


@pytest.fixture(scope="module", params=["catch", "space_invaders"])
def frames(request: pytest.FixtureRequest) -> Tensor:
    env = Catch(8) if request.param == "catch" else AtariEnv(request.param, 8, EnvRules(), num_threads=1)
    return play(Stacked(env), 300)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def q_network(name: str) -> NatureNetwork:
    return NatureNetwork(layer_kit(name), OBS_SHAPE, NUM_ACTIONS).eval()


def small_network(name: str) -> nn.Sequential:
    linear = layer_kit(name).linear
    return nn.Sequential(linear(6, 5), nn.ReLU(), linear(5, 4), nn.ReLU(), linear(4, 3)).eval()


def initialized(network: nn.Module, batch: Tensor, seed: int = 0, **how: Any) -> tuple[nn.Module, InitReport]:
    return network, initialize_from_data(network, batch, generator(seed), **how)


@torch.no_grad()
def pre_activations(network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """What every layer puts out in a fresh forward pass, as [units, samples] in float64."""
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(
            lambda _layer, _inputs, t, name=name: seen.update({name: t.clone().double().transpose(0, 1).flatten(1)})
        )
        for name, layer in layers_of(network).items()
    ]
    network(batch)
    for hook in hooks:
        hook.remove()
    return seen


def has_hooks(network: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.fixture(scope="module")
def networks(frames: Tensor) -> dict[str, tuple[nn.Module, InitReport]]:
    return {name: initialized(q_network(name), frames[:BATCH_SIZE], centre=True) for name in NATURE}


@pytest.mark.parametrize("name", NATURE)
def test_every_pre_activation_has_zero_mean_and_unit_variance(name: str, frames: Tensor, networks: Any) -> None:
    batch = frames[:BATCH_SIZE]
    network, report = networks[name]
    assert report == InitReport(BATCH_SIZE, dict.fromkeys(("conv1", "conv2", "conv3", "hidden", "output"), 0))
    for layer, t in pre_activations(network, batch).items():
        std, mean = torch.std_mean(t, dim=1, correction=0)
        assert mean.abs().max() < 1e-5, layer
        assert (std - 1).abs().max() < 1e-4, layer


@pytest.mark.parametrize(("name", "kind"), [*((name, NatureNetwork) for name in NATURE), ("wn", DuelingNatureNetwork)])
def test_in_float64_they_are_exact(name: str, kind: type[NatureNetwork], frames: Tensor) -> None:
    batch = frames[:32]
    network, report = initialized(kind(layer_kit(name), OBS_SHAPE, NUM_ACTIONS).eval().double(), batch)
    seen = pre_activations(network, batch)
    assert seen.keys() == report.dead_units.keys() == dict(network.named_children()).keys()
    for layer, t in seen.items():
        std, mean = torch.std_mean(t, dim=1, correction=0)
        assert mean.abs().max() < 1e-12, layer
        assert (std - 1).abs().max() < 1e-12, layer


@torch.no_grad()
def test_every_parameterization_starts_as_the_same_function(frames: Tensor, networks: Any) -> None:
    """On the batch and on other frames; on images of no game, whose Q-values are large, in relation to them.

    But for those with a start of their own, which is another one.
    """
    standard = networks["standard"][0]
    noise = torch.randint(0, 256, (32, 4, 84, 84), dtype=torch.uint8, generator=generator(1))
    for other in (frames, frames[:64].flip(2), noise):
        q = standard(other)
        assert q.std(dim=0).min() > 0.1
        for name in set(NATURE) - set(LINEAR):
            assert (networks[name][0](other) - q).abs().max() > 0.1, name
        for name in set(NATURE) & set(LINEAR):
            # float32, whose sums round by up to 2.4e-5; compare_parameterizations.py prints 3e-6 in float64.
            assert (networks[name][0](other) - q).abs().max() < 5e-5 * max(1.0, q.abs().max().item() / 5), name


@each_linear_parameterization
def test_equations_5_and_6_in_numpy(name: str) -> None:
    """Layer by layer and unit by unit: t = v.x/||v||, g = 1/std[t], b = -mean[t]/std[t], x' = relu(g t + b)."""
    batch = torch.randn(40, 6, generator=generator(7), dtype=torch.float64) + 0.5
    network, report = initialized(small_network(name).double(), batch, seed=3, centre=name == "ws")
    draws = generator(3)
    x = batch.numpy()
    for layer in layers_of(network).values():
        v = torch.empty(layer.direction_shape).normal_(0.0, 0.05, generator=draws).double().numpy()
        if name == "ws":
            v -= v.mean(axis=1, keepdims=True)
        outputs = []
        for unit, direction in enumerate(v):
            t = np.array([direction @ sample for sample in x]) / np.sqrt((direction**2).sum())
            mean = t.sum() / len(t)
            std = np.sqrt(((t - mean) ** 2).sum() / len(t))
            w = direction / np.sqrt((direction**2).sum()) / std
            np.testing.assert_allclose(layer.fold()[0][unit].detach(), w, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(layer.bias[unit].item(), -mean / std, rtol=1e-5, atol=1e-6)
            if hasattr(layer, "v_norm"):
                unit_v = direction / np.sqrt((direction**2).sum()) if name == "wn-projected" else direction
                np.testing.assert_allclose(layer.v[unit].detach(), unit_v, rtol=1e-6, atol=1e-7)
                np.testing.assert_allclose(layer.g[unit].item(), 1 / std, rtol=1e-5)
            outputs.append((t - mean) / std)
        x = np.maximum(np.stack(outputs, axis=1), 0)
    assert report == InitReport(40, {"0": 0, "2": 0, "4": 0})


@each_linear_parameterization
@pytest.mark.parametrize("value", [0.0, 0.3, 1000.0])
def test_units_that_are_constant_on_the_batch_are_centred_and_reported(name: str, value: float) -> None:
    batch = torch.full((9, 6), value)
    network, report = initialized(small_network(name), batch)
    assert report.dead_units == {"0": 5, "2": 4, "4": 3}
    for layer, t in pre_activations(network, batch).items():
        assert t.abs().max() <= 1e-6 * max(value, 1.0), layer
    for layer in layers_of(network).values():
        torch.testing.assert_close(layer.fold()[0].detach().norm(dim=1), torch.ones(len(layer.bias)))
        assert layer.bias.isfinite().all()


@each_linear_parameterization
@pytest.mark.parametrize(
    "filters",
    [
        pytest.param([[[1.0, 0.3], [-0.4, -0.9]], [[0.0, 0.0], [0.0, 0.0]]], id="blank"),
        pytest.param(
            [[[0.0, 0.0], [0.0, 0.0]], [[0.7, 0.7], [-0.7, -0.7]]],
            id="cancelling",
        ),
    ],
)
def test_one_dead_unit_among_others(name: str, filters: list[Any]) -> None:
    """Channel 0 is constant, channel 1 the same in every row: a unit that sees no more is centred, not blown up."""
    network = nn.Sequential(layer_kit(name).conv2d(2, 3, 2)).eval()
    layer: Any = network[0]
    set_direction = layer.set_direction_

    def with_a_blind_unit(v: Tensor) -> None:
        v[1] = torch.tensor(filters)
        set_direction(v)

    layer.set_direction_ = with_a_blind_unit
    images = torch.rand(5, 2, 1, 7, generator=generator(2)).expand(5, 2, 7, 7).clone()
    images[:, 0] = 0.6
    with rounded_differently(network, generator(3)):
        assert initialized(network, images)[1].dead_units == {"0": 1}
    _, report = initialized(network, images)
    assert report.dead_units == {"0": 1}
    assert layer.fold()[0][1].norm().item() == pytest.approx(1.0)
    std, mean = torch.std_mean(pre_activations(network, images)["0"], dim=1, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-6)
    torch.testing.assert_close(std, torch.tensor([1.0, 0.0, 1.0], dtype=std.dtype), rtol=0, atol=1e-6)


@each_linear_parameterization
@pytest.mark.parametrize("value", [0.0, 0.3, 1000.0])
def test_rounding_revives_no_unit_that_is_constant(name: str, value: float) -> None:
    """Nor does what rounding leaves of a dead unit reach the next layer."""
    for seed in range(5):
        network = small_network(name)
        with rounded_differently(network, generator(seed)):
            _, report = initialized(network, torch.full((9, 6), value), seed)
        assert report.dead_units == {"0": 5, "2": 4, "4": 3}
        for layer in layers_of(network).values():
            torch.testing.assert_close(layer.fold()[0].detach().norm(dim=1), torch.ones(len(layer.bias)))


@each_parameterization
def test_rounding_kills_no_unit_that_varies_little(name: str) -> None:
    for seed in range(5):
        network = small_network(name)
        with rounded_differently(network, generator(seed)):
            _, report = initialized(network, 1.0 + 1e-3 * torch.randn(50, 6, generator=generator(4)), seed)
        assert sum(report.dead_units.values()) == 0


@pytest.mark.parametrize("fan_in", [6, 256, 3136])
def test_constant_units_are_dead_in_whatever_order_sums_are_added(fan_in: int) -> None:
    """As wide as the Nature network's layers; weights at random, all equal, and cancelling."""
    layer: Any = layer_kit("standard").linear(fan_in, 6)
    set_direction = layer.set_direction_

    def with_chosen_units(v: Tensor) -> None:
        v[0], v[1], v[1, ::2] = 0.7, 0.7, -0.7
        set_direction(v)

    layer.set_direction_ = with_chosen_units
    orders = generator(5)
    hook = layer.register_forward_hook(
        lambda layer, inputs, _t: summed_in_random_orders(inputs[0], layer.weight.detach(), orders)
    )
    for sample in (torch.full((fan_in,), 0.3), torch.rand(fan_in, generator=generator(6))):
        report = initialize_from_data(nn.Sequential(layer), sample.expand(16, fan_in), generator())
        assert report.dead_units == {"0": 6}
    varying = torch.rand(fan_in, generator=generator(6)) + 0.05 * torch.randn(16, fan_in, generator=generator(7))
    assert initialize_from_data(nn.Sequential(layer), varying, generator()).dead_units == {"0": 0}
    hook.remove()


@pytest.mark.parametrize("value", [1, 200])
def test_blank_frames_leave_no_unit_of_the_nature_network_alive(value: int) -> None:
    _, report = initialized(q_network("wn"), torch.full((16, 4, 84, 84), value, dtype=torch.uint8))
    assert report.dead_units == {"conv1": 32, "conv2": 64, "conv3": 64, "hidden": 512, "output": NUM_ACTIONS}


@each_parameterization
def test_a_unit_that_varies_little_is_not_dead(name: str) -> None:
    batch = 1.0 + 1e-3 * torch.randn(50, 6, generator=generator(4))
    network, report = initialized(small_network(name), batch)
    assert sum(report.dead_units.values()) == 0
    for t in pre_activations(network, batch).values():
        torch.testing.assert_close(t.std(dim=1, correction=0), torch.ones(len(t), dtype=t.dtype), rtol=0, atol=1e-3)


@each_parameterization
def test_the_seed_decides_and_nothing_else(name: str) -> None:
    batch = torch.randn(30, 6, generator=generator(6))
    network, _ = initialized(small_network(name), batch, seed=1)
    torch.rand(3)  # the global generator is of no account
    for layer in layers_of(again := small_network(name)).values():  # nor is what the parameters were before
        nn.init.constant_(layer.bias, 3.0)
    initialized(again, batch, seed=1)
    other, _ = initialized(small_network(name), batch, seed=2)
    for first, second in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    for layer, other_layer in zip(*(layers_of(each).values() for each in (network, other)), strict=True):
        assert not torch.equal(layer.weight, other_layer.weight)
        assert not torch.equal(layer.bias, other_layer.bias)


@each_parameterization
def test_one_forward_pass_that_leaves_no_trace(name: str) -> None:
    network = small_network(name)
    network.forward = Mock(wraps=network.forward)  # type: ignore[method-assign]
    initialized(network, torch.randn(30, 6, generator=generator(8)))
    network.forward.assert_called_once()
    assert not has_hooks(network)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


@each_parameterization
def test_no_hook_is_left_when_the_forward_pass_fails(name: str) -> None:
    network = small_network(name)
    with pytest.raises(RuntimeError, match="shape"):
        initialized(network, torch.zeros(30, 7))
    assert not has_hooks(network)


@each_parameterization
def test_layers_are_rescaled_with_a_scale_and_a_shift_per_unit_in_their_own_dtype(name: str) -> None:
    network = small_network(name)
    layers = layers_of(network)
    for layer in layers.values():
        layer.rescale_output_ = Mock(wraps=layer.rescale_output_)
    initialized(network, torch.randn(30, 6, generator=generator(9)))
    for layer in layers.values():
        for call in layer.rescale_output_.call_args_list:
            assert [argument.shape for argument in call.args] == [layer.bias.shape, layer.bias.shape]
            assert all(argument.dtype == layer.bias.dtype for argument in call.args)


@each_parameterization
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(name: str) -> None:
    batch = torch.randn(30, 6, generator=generator(9))
    network, _ = initialized(small_network(name), batch)
    on_gpu, _ = initialized(small_network(name).cuda(), batch.cuda())
    for ours, theirs in zip(on_gpu.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-3)
