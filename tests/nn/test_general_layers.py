"""Layers for the paper's other networks, against torch's own weight norm: transposed convolutions, LSTMs, ResNets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.errors import UsageError
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.layers import layer_kit, layers_of
from wn_dqn.nn.recurrent import WeightNormLSTM
from wn_dqn.nn.weight_norm import WeightNormConv2d, WeightNormConvTranspose2d, WeightNormLinear


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def assert_close(pairs: dict[str, tuple[Tensor | None, Tensor | None]]) -> None:
    for name, (ours, theirs) in pairs.items():
        assert theirs is not None
        assert theirs.abs().max() > 1e-3, f"{name} shows nothing"
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=f"{name} differs")


# --- Transposed convolutions ---


@pytest.mark.parametrize(
    "geometry", [{}, {"stride": 2, "padding": 1}, {"stride": 3, "padding": 2, "output_padding": 1}], ids=str
)
def test_transposed_convolution_equals_torchs(geometry: dict[str, int]) -> None:
    """Whose weights have the input first, and are normalized over all but dimension 1."""
    layer = WeightNormConvTranspose2d(3, 4, 5, dtype=torch.float64, **geometry)
    oracle: Any = weight_norm(nn.ConvTranspose2d(3, 4, 5, dtype=torch.float64, **geometry), dim=1)  # type: ignore[arg-type]
    parametrization = oracle.parametrizations.weight
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(random(*parameter.shape, seed=i))
        parametrization.original0.copy_(layer.g.view(1, -1, 1, 1))
        parametrization.original1.copy_(layer.v.transpose(0, 1))
        oracle.bias.copy_(layer.bias)
    x, oracle_x = (random(2, 3, 4, 6, seed=9).requires_grad_() for _ in range(2))
    y, oracle_y = layer(x), oracle(oracle_x)
    y.sin().sum().backward()
    oracle_y.sin().sum().backward()
    assert_close(
        {
            "y": (y, oracle_y),
            "w": (layer.weight.transpose(0, 1), oracle.weight),
            "dL/dx": (x.grad, oracle_x.grad),
            "dL/dg": (layer.g.grad, parametrization.original0.grad.flatten()),
            "dL/dv": (layer.v.grad, parametrization.original1.grad.transpose(0, 1)),
            "dL/db": (layer.bias.grad, oracle.bias.grad),
        }
    )


# --- LSTMs ---


def lstm_and_oracle(input_size: int, hidden_size: int) -> tuple[WeightNormLSTM, Any]:
    """With random v, g and bias in both; torch's has two biases, of which only the sum counts."""
    layer = WeightNormLSTM(input_size, hidden_size, dtype=torch.float64)
    oracle: Any = nn.LSTM(input_size, hidden_size, dtype=torch.float64)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        weight_norm(oracle, name)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(random(*parameter.shape, seed=i))
        for name, v, g in (("weight_ih_l0", layer.v_ih, layer.g_ih), ("weight_hh_l0", layer.v_hh, layer.g_hh)):
            oracle.parametrizations[name].original0.copy_(g.unsqueeze(1))
            oracle.parametrizations[name].original1.copy_(v)
        oracle.bias_ih_l0.copy_(0.25 * layer.bias)
        oracle.bias_hh_l0.copy_(0.75 * layer.bias)
    return layer, oracle


@pytest.mark.parametrize("with_state", [False, True])
def test_lstm_equals_torchs(with_state: bool) -> None:
    layer, oracle = lstm_and_oracle(3, 4)
    x, oracle_x = (random(7, 2, 3, seed=9).requires_grad_() for _ in range(2))
    state = (random(2, 4, seed=10), random(2, 4, seed=11)) if with_state else None
    y, (h, c) = layer(x, state)
    oracle_y, (oracle_h, oracle_c) = oracle(oracle_x, state and tuple(tensor.unsqueeze(0) for tensor in state))
    (y.sin().sum() + c.cos().sum()).backward()
    (oracle_y.sin().sum() + oracle_c.cos().sum()).backward()
    ih, hh = oracle.parametrizations.weight_ih_l0, oracle.parametrizations.weight_hh_l0
    assert_close(
        {
            "y": (y, oracle_y),
            "h": (h, oracle_h[0]),
            "c": (c, oracle_c[0]),
            "dL/dx": (x.grad, oracle_x.grad),
            "dL/dg of the input": (layer.g_ih.grad, ih.original0.grad.flatten()),
            "dL/dv of the input": (layer.v_ih.grad, ih.original1.grad),
            "dL/dg of the state": (layer.g_hh.grad, hh.original0.grad.flatten()),
            "dL/dv of the state": (layer.v_hh.grad, hh.original1.grad),
            "dL/db": (layer.bias.grad, oracle.bias_ih_l0.grad),
        }
    )


def test_lstm_in_pieces_is_the_lstm() -> None:
    layer, _ = lstm_and_oracle(3, 4)
    x = random(7, 2, 3)
    whole, _ = layer(x)
    first, state = layer(x[:4])
    second, _ = layer(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)  # sums of other lengths


def test_lstm_starts_in_torchs_range_with_g_the_norm_of_v() -> None:
    layer = WeightNormLSTM(30, 25)
    layer.initialize_(generator())
    for v, g, weight in ((layer.v_ih, layer.g_ih, layer.weight_ih), (layer.v_hh, layer.g_hh, layer.weight_hh)):
        torch.testing.assert_close(g, v.norm(dim=1))
        torch.testing.assert_close(weight, v)
        assert 0.19 < v.abs().max() <= 0.2  # 1/sqrt(25)
    assert 0.15 < layer.bias.abs().max() <= 0.2


def test_data_dependent_initialization_passes_named_recurrent_layers_by() -> None:
    """Section 3: recurrent models have to resort to standard methods. In silence none is passed by."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.lstm, self.after = WeightNormLinear(5, 3), WeightNormLSTM(3, 4), WeightNormLinear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.lstm(self.before(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            q: Tensor = self.after(y.flatten(0, 1))
            return q

    network = Recurrent()
    network.lstm.initialize_(generator(1))
    weights = network.lstm.weight_hh.clone()
    x = torch.randn(6, 8, 5, generator=generator(2))
    with pytest.raises(UsageError, match=r"lstm\.v_ih of Recurrent belongs to no layer"):
        initialize_from_data(network, x, generator())
    report = initialize_from_data(network, x, generator(), besides=["lstm"])
    assert list(report.dead_units) == list(layers_of(network, ["lstm"])) == ["before", "after"]
    assert torch.equal(network.lstm.weight_hh, weights)
    std, mean = torch.std_mean(network(x), dim=0, correction=0)
    torch.testing.assert_close(mean, torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(std, torch.ones(2), rtol=0, atol=1e-4)


# --- Residual networks (He et al. 2016), as in the paper's convolutional auto-encoder ---


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), halved in size and projected if `stride` is 2."""

    def __init__(self, conv2d: Any, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv2d(channels, out_channels, 3, stride=stride, padding=1)
        self.conv2 = conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if stride == 1 else conv2d(channels, out_channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        skipped: Tensor = self.skip(x)
        return skipped + self.conv2(F.relu(self.conv1(F.relu(x))))


def residual_network(conv2d: Any) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(conv2d, 3, 4, 2), ResidualBlock(conv2d, 4, 4, 1)).double()


def test_residual_network_equals_torchs() -> None:
    network = residual_network(WeightNormConv2d)
    oracle: Any = residual_network(lambda *args, **kwargs: weight_norm(nn.Conv2d(*args, **kwargs)))
    x = random(5, 3, 8, 8)
    initialize_from_data(network, x, generator())
    convolutions = [(layer, oracle.get_submodule(name)) for name, layer in layers_of(network).items()]
    with torch.no_grad():
        for layer, theirs in convolutions:
            theirs.parametrizations.weight.original0.copy_(layer.g.view(-1, 1, 1, 1))
            theirs.parametrizations.weight.original1.copy_(layer.v)
            theirs.bias.copy_(layer.bias)
    y, oracle_y = network(x), oracle(x)
    y.sin().sum().backward()
    oracle_y.sin().sum().backward()
    assert_close({"y": (y, oracle_y)})
    assert len(convolutions) == 5
    for layer, theirs in convolutions:
        parametrization = theirs.parametrizations.weight
        assert_close(
            {
                "dL/dg": (layer.g.grad, parametrization.original0.grad.flatten()),
                "dL/dv": (layer.v.grad, parametrization.original1.grad),
                "dL/db": (layer.bias.grad, theirs.bias.grad),
            }
        )


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_every_pre_activation_of_a_residual_network_and_a_decoder_is_normalized(name: str) -> None:
    """By the data-dependent initialization, each layer seeing its initialized input; any layers, in any graph."""
    network = nn.Sequential(
        residual_network(layer_kit(name).conv2d),
        nn.ReLU(),
        WeightNormConvTranspose2d(4, 3, 4, stride=2, padding=1),
    )
    network = network.double().eval()
    x = random(20, 3, 8, 8)
    initialize_from_data(network, x, generator())
    seen: dict[str, Tensor] = {}
    for layer_name, layer in layers_of(network).items():
        layer.register_forward_hook(
            lambda _layer, _inputs, t, layer_name=layer_name: seen.update({layer_name: t.transpose(0, 1).flatten(1)})
        )
    network(x)
    assert len(seen) == 6
    for layer_name, t in seen.items():
        std, mean = torch.std_mean(t, dim=1, correction=0)
        assert mean.abs().max() < 1e-12, layer_name
        assert (std - 1).abs().max() < 1e-12, layer_name
