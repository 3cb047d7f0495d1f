"""Layer normalization against torch's own modules; normalize-and-project's norms; what neither of them does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wn_dqn.config.schema import OptimizerSettings
from wn_dqn.nn.folding import fold
from wn_dqn.nn.layer_normalization import LayerNormConv2d, LayerNormLayer, LayerNormLinear
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.networks import DuelingMinAtarNetwork, MinAtarNetwork
from wn_dqn.nn.optimizers import make_optimizer

OBS_SHAPE = (4, 10, 10)
each_param = pytest.mark.parametrize("param", ["ln", "ln-wn-projected"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomized(layer: Any) -> Any:
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed)))
    return layer


def observations(num: int = 6) -> Tensor:
    return torch.randint(0, 2, (num, *OBS_SHAPE), generator=generator()).bool()


def make(param: str, kind: Any = MinAtarNetwork) -> Any:
    network = kind(layer_kit(param), OBS_SHAPE, 3, obs_dtype=torch.bool).eval()
    for seed, layer in enumerate(layers_of(network).values()):
        layer.set_direction_(torch.randn(layer.direction_shape, generator=generator(seed)))
        units = layer.direction_shape[0]
        layer.rescale_output_(torch.rand(units, generator=generator(9)) + 1, torch.randn(units, generator=generator(8)))
    return network


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("batch", [1, 5])
def test_it_is_torchs_layer_norm_in_value_and_gradient(kind: str, batch: int) -> None:
    """Of a layer without bias; of a convolution, over all channels and positions, with a gain for each channel."""
    x = torch.randn(batch, 4, *[6, 7] * (kind == "conv"), generator=generator(5)).double()
    if kind == "linear":
        ours, theirs = randomized(LayerNormLinear(4, 3)).double(), nn.Linear(4, 3, bias=False).double()
        t_shape: tuple[int, ...] = (3,)
    else:
        ours, theirs = randomized(LayerNormConv2d(4, 3, 2)).double(), nn.Conv2d(4, 3, 2, bias=False).double()
        t_shape = (3, 5, 6)
    norm = nn.LayerNorm(t_shape, elementwise_affine=False).double()
    gain, bias = (each.detach().clone().requires_grad_() for each in (ours.gain, ours.bias))
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    per_unit = (-1, *[1] * (len(t_shape) - 1))
    expected = gain.view(per_unit) * norm(theirs(x)) + bias.view(per_unit)
    y = ours(x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    y.sin().sum().backward()
    expected.sin().sum().backward()
    for our, their in ((ours.weight, theirs.weight), (ours.gain, gain), (ours.bias, bias)):
        torch.testing.assert_close(our.grad, their.grad, rtol=1e-8, atol=1e-9)


@each_param
@pytest.mark.parametrize("kind", [MinAtarNetwork, DuelingMinAtarNetwork])
def test_it_is_before_every_relu_and_not_on_the_output(param: str, kind: Any) -> None:
    """And the scale of hidden weights changes nothing; that of the output's does."""
    network = make(param, kind)
    layers = layers_of(network)
    plain = {name for name, layer in layers.items() if not isinstance(layer, LayerNormLayer)}
    assert plain == set(kind.OUTPUT_LAYERS)
    q = network(observations())
    with torch.no_grad():
        for name in layers.keys() - plain:
            layers[name].weight *= 3.0
        torch.testing.assert_close(network(observations()), q, rtol=1e-3, atol=1e-3)
        layers[plain.pop()].weight *= 3.0
    assert (network(observations()) - q).abs().max() > 0.1


@each_param
def test_a_folded_network_keeps_it(param: str) -> None:
    network = make(param)
    folded = fold(network)
    assert {key: type(layer) for key, layer in layers_of(folded).items()} == {
        key: type(layer) for key, layer in layers_of(make("ln")).items()
    }
    assert not list(folded.buffers())
    torch.testing.assert_close(folded(observations()), network(observations()))


def test_the_norm_of_each_layer_is_that_which_it_began_with() -> None:
    """Of all its weights together, whatever the steps; a unit's own norm moves."""
    network = make("ln-wn-projected")
    layers: dict[str, Any] = layers_of(network)  # type: ignore[assignment]
    first = {name: layer.weight.norm().item() for name, layer in layers.items()}
    unit = layers["hidden"].weight[0].norm().item()
    optimizer = make_optimizer(network, OptimizerSettings(learning_rate=1e-2, beta1=0.5, epsilon=1e-8))
    for step in range(300):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator(step))
        optimizer.step()
    for name, layer in layers.items():
        assert layer.weight.norm().item() == pytest.approx(first[name], rel=1e-6), name
        assert layer.first_norm.item() == pytest.approx(first[name], rel=1e-6), name
    assert abs(layers["hidden"].weight[0].norm().item() - unit) > 0.01
    assert network.state_dict().keys() > {f"{name}.first_norm" for name in layers}
