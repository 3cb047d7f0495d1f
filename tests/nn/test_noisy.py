"""Noisy layers: the paper's formula with noise put in by hand, the mean without, and one start for all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wn_dqn.config import registry
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import NetworkSettings
from wn_dqn.errors import UsageError
from wn_dqn.nn.batch_statistics import adopt_batch_statistics
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.folding import fold
from wn_dqn.nn.initialization import initialize
from wn_dqn.nn.layers import LayerKit, layer_kit
from wn_dqn.nn.networks import DuelingMlpNetwork, MlpNetwork, QNetwork, make_network
from wn_dqn.nn.noisy import Noise, NoisyLayer, noisy_kit, noisy_layers
from wn_dqn.nn.standard import PLAIN

OBS = torch.rand(32, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
each_param = pytest.mark.parametrize("param", PARAMETERIZATIONS)
LINEAR = [name for name, row in PARAMETERIZATIONS.items() if row.start != "own"]


def make_noisy(param: str, kind: type[QNetwork] = MlpNetwork, initial_sigma: float = 0.5) -> QNetwork:
    """5 inputs, 8 units, a head of 6 units, 3 actions, in float64 and not initialized."""
    settings = NetworkSettings(hidden=[8, 6])
    network = kind(noisy_kit(layer_kit(param), initial_sigma), (5,), 3, settings, torch.float32)
    return network.double().eval()


def initialized(param: str, kind: type[QNetwork] = MlpNetwork) -> QNetwork:
    network = make_noisy(param, kind)
    initialize_from_data(network, OBS, torch.Generator().manual_seed(1))
    adopt_batch_statistics(network, OBS)
    return network


def samples(network: QNetwork, seed: int = 0) -> Noise:
    noise = Noise(network, np.random.default_rng(seed))
    noise.draw_("acting")
    noise.draw_("learning", "target", "choosing")
    return noise


@each_param
def test_noise_is_the_papers(param: str) -> None:
    """y = (w + sigma * f(e_out) f(e_in)^T) x + b + sigma_b * f(e_out), layer by layer; w x + b is the layer without."""
    network = initialized(param)
    noise = samples(network)
    with noise.of(network, "acting"), torch.no_grad():
        x: Tensor = F.relu(network.trunk[0](OBS))  # type: ignore[index,operator]
        for name in ("hidden", "output"):
            layer: Any = getattr(network, name)
            of_inputs, of_outputs = layer.noise
            noise_w, noise_b = torch.zeros_like(layer.sigma), torch.zeros_like(layer.sigma_bias)
            for i in range(len(noise_b)):
                noise_b[i] = layer.sigma_bias[i] * of_outputs[i]
                for j in range(noise_w.shape[1]):
                    noise_w[i, j] = layer.sigma[i, j] * of_outputs[i] * of_inputs[j]
            layer.noise = None
            mean = layer(x)
            layer.noise = of_inputs, of_outputs
            if param in LINEAR:
                torch.testing.assert_close(mean, F.linear(x, *layer.fold()), rtol=0, atol=1e-9)
            expected = mean + x @ noise_w.T + noise_b
            torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-9)
            assert (layer(x) - mean).abs().max() > 1e-2
            x = expected.clamp(min=0)


def test_the_noise_is_the_signed_root_of_a_normal_number() -> None:
    """Each sample has numbers of its own; the same generator gives the same."""
    network = initialized("wn")
    noise, again = samples(network), samples(network)
    normal = np.random.default_rng(0).standard_normal(8 + 6 + 6 + 3, dtype=np.float32)
    seen = {}
    for name in ("acting", "learning", "target", "choosing"):
        for each in (noise, again):
            with each.of(network, name):  # type: ignore[arg-type]
                seen[name] = torch.cat([part for layer in noisy_layers(network) for part in layer.noise or ()])
            assert torch.equal(seen.setdefault(name, seen[name]), seen[name])
    expected = [math.copysign(math.sqrt(abs(e)), e) for e in normal.tolist()]
    torch.testing.assert_close(seen["acting"].tolist(), expected, rtol=1e-6, atol=0)
    assert len({tuple(values.tolist()) for values in seen.values()}) == 4
    assert all(layer.noise is None for layer in noisy_layers(network))


def test_the_gradients_are_autograds_of_the_formula() -> None:
    """Of sigma, sigma_bias and what the mean is made of, by finite differences."""
    network = initialized("wn")
    noise = samples(network)
    layer: Any = network.output
    with noise.of(network, "learning"):
        x = OBS[:4, :1].expand(4, 6).contiguous().requires_grad_()
        assert torch.autograd.gradcheck(lambda *_: layer(x), (x, layer.sigma, layer.sigma_bias, layer.g, layer.v))


@each_param
@pytest.mark.parametrize("kind", [MlpNetwork, DuelingMlpNetwork])
def test_without_noise_it_is_the_network_without_noise(param: str, kind: type[QNetwork]) -> None:
    """Every linear layer of the head is noisy and no other is; a folded network has the mean alone."""
    network, plain = initialized(param, kind), kind(layer_kit(param), (5,), 3, NetworkSettings(hidden=[8, 6]))
    plain.obs_dtype = torch.float32
    plain.double().eval()
    initialize_from_data(plain, OBS, torch.Generator().manual_seed(1))
    adopt_batch_statistics(plain, OBS)
    q = plain(OBS)
    assert torch.equal(network(OBS), q)
    noisy_names = {name for name, module in network.named_children() if isinstance(module, NoisyLayer)}
    assert noisy_names == {name for name, _ in network.named_children()} - {"trunk"}
    folded = fold(network)
    assert not noisy_layers(folded)
    torch.testing.assert_close(folded(OBS).double(), q, rtol=0, atol=1e-5)


@pytest.mark.parametrize("param", LINEAR)
@pytest.mark.parametrize("init", ["data", "torch"])
def test_all_parameterizations_start_with_the_same_noise(param: str, init: Any) -> None:
    """sigma_0/sqrt(in) where weights are published ones; rescaled with the outputs where they come from data."""
    networks = [make_noisy(each, DuelingMlpNetwork) for each in ("standard", param)]
    settings = NetworkSettings(hidden=[8, 6], init=init, init_centred=True, output_init_scale=0.1)
    outcomes = []
    for network in networks:
        initialize(network, OBS, settings=settings, generator=torch.Generator().manual_seed(3))
        with samples(network).of(network, "target"):
            outcomes.append(network(OBS))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=0, atol=1e-9)
    hidden: Any = networks[1].hidden_value
    published = torch.full_like(hidden.sigma, 0.5 / math.sqrt(8))
    assert torch.allclose(hidden.sigma, published) == (init == "torch")
    ratio = hidden.sigma.norm(dim=1) / hidden.fold()[0].norm(dim=1)
    if init == "data":
        torch.testing.assert_close(ratio, torch.full_like(ratio, 0.5))


def test_noise_is_rescaled_with_the_output() -> None:
    network = initialized("bn")
    noise, layer = samples(network), network.output
    x = torch.rand(7, 6, dtype=torch.float64)
    with noise.of(network, "acting"), torch.no_grad():
        y = layer(x)
        scale, shift = torch.tensor([2.0, 0.5, -3.0]).double(), torch.tensor([1.0, 0.0, -1.0]).double()
        layer.rescale_output_(scale, shift)
        torch.testing.assert_close(layer(x), scale * y + shift)


class OwnHead(MlpNetwork):
    """A head that knows nothing of noise."""

    def add_head(self, layers: LayerKit, num_features: int, hidden: int) -> None:
        self.only = layers.linear(num_features, self.num_actions)


def test_a_head_that_lacks_what_is_asked_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.NETWORKS, "own", registry.NetworkRow("own", OwnHead))
    with pytest.raises(UsageError, match=r"network own makes a head of its own, without noise: .*network\.noisy=false"):
        make_network(noisy_kit(PLAIN, 0.5), (5,), torch.float32, 3, NetworkSettings(name="own"))
    with pytest.raises(UsageError, match=r"network own makes a head of its own, without atoms: set agent=dqn"):
        make_network(PLAIN, (5,), torch.float32, 3, NetworkSettings(name="own", atoms=51))
    with pytest.raises(UsageError, match=r"network\.noisy needs a class of linear layers"):
        noisy_kit(LayerKit(linear=lambda *sizes: PLAIN.linear(*sizes), conv2d=PLAIN.conv2d), 0.5)
