"""IMPALA's network against the same network written in torch's own modules, and its initialization from data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import NetworkSettings
from wn_dqn.nn.batch_statistics import adopt_batch_statistics
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.folding import fold
from wn_dqn.nn.impala import ImpalaNetwork
from wn_dqn.nn.layer_statistics import forward_with_hooks, unit_statistics
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.networks import make_network
from wn_dqn.nn.standard import PLAIN

SHAPE = (2, 11, 14)
OBS = torch.randint(0, 256, (24, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImpalaNetwork, "CHANNELS", (3, 4, 4))
    monkeypatch.setattr(ImpalaNetwork, "HIDDEN_UNITS", 9)


def make(param: str, **settings: Any) -> Any:
    network = make_network(
        layer_kit(param), SHAPE, torch.uint8, 5, NetworkSettings(name="impala", **settings), normalize=False
    )
    network.double().eval()
    initialize_from_data(network, OBS, torch.Generator().manual_seed(1), centre=True)
    adopt_batch_statistics(network, OBS)
    return network


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding="same"),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x  # type: ignore[no-any-return]


# With layer normalization a network is another function.
LINEAR = [name for name, row in PARAMETERIZATIONS.items() if row.start != "own"]


def in_torchs_modules() -> nn.Sequential:
    """As the paper's figure shows it."""
    modules: list[nn.Module] = []
    for before, channels in ((2, 3), (3, 4), (4, 4)):
        modules += [nn.Conv2d(before, channels, 3, padding="same"), nn.MaxPool2d(3, 2, padding=1)]
        modules += [Residual(channels), Residual(channels)]
    return nn.Sequential(*modules, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 2, 9), nn.ReLU(), nn.Linear(9, 5))


@pytest.mark.parametrize("param", LINEAR)
def test_it_is_the_network_of_the_figure(param: str) -> None:
    """Folded weights, put into torch's modules in their order, give the same Q-values."""
    network, theirs = make(param), in_torchs_modules().double()
    layers = [module for module in theirs.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer, ours in zip(layers, layers_of(network).values(), strict=True):
            weight, bias = ours.fold()
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        expected = theirs(OBS.double() / 255)
    torch.testing.assert_close(network(OBS).detach(), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(fold(network)(OBS).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dueling", [False, True])
def test_one_pass_over_the_data_initializes_every_layer(dueling: bool) -> None:
    """Those behind residual sums included: each puts out mean 0 and variance 1, and all arms the same."""
    network = make("wn", dueling=dueling)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda _layer, _inputs, t: seen.update({name: unit_statistics(t)})

    forward_with_hooks(network, OBS, {layer: keep(name) for name, layer in layers_of(network).items()})
    assert len(seen) == 15 + (4 if dueling else 2)
    for name, (mean, var) in seen.items():
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-9, msg=name)
        torch.testing.assert_close(var, torch.ones_like(var), rtol=0, atol=1e-9, msg=name)
    q = network(OBS)
    for param in LINEAR:
        torch.testing.assert_close(make(param, dueling=dueling)(OBS), q, rtol=0, atol=1e-9, msg=param)


def test_the_widths_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for width, features in ((1, 3872), (2, 7744)):
        network: Any = ImpalaNetwork(PLAIN, (4, 84, 84), 6, NetworkSettings(width=width))
        assert [section.conv.weight.shape[0] for section in network.sections] == [16 * width, 32 * width, 32 * width]
        assert network.hidden.weight.shape == (256, features)
        assert network.features(torch.zeros(1, 4, 84, 84)).shape == (1, features)


def test_auto_never_means_it() -> None:
    for shape in ((4, 84, 84), (4, 10, 10)):
        network = make_network(PLAIN, shape, torch.uint8, 3, NetworkSettings())
        assert not isinstance(network, ImpalaNetwork)
