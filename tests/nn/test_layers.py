"""What every layer must do, whatever its parameterization; and what is no layer is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.errors import UsageError
from wn_dqn.nn.batch_statistics import adopt_batch_statistics
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.folding import fold
from wn_dqn.nn.layers import BatchStatisticsLayer, Layer, LayerKit, centred, layer_kit, layers_of
from wn_dqn.nn.networks import MlpNetwork
from wn_dqn.nn.recurrent import WeightNormLSTM
from wn_dqn.nn.standard import PLAIN, Linear
from wn_dqn.nn.uniform_init import UNIFORM_INITS, initialize_uniform
from wn_dqn.nn.weight_norm import WeightNormConvTranspose2d

each_parameterization = pytest.mark.parametrize("name", PARAMETERIZATIONS)
INPUTS = {"linear": (6, 5), "conv2d": (4, 2, 5, 6), "transposed": (4, 2, 5, 6)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str, kind: str) -> Layer:
    kit = layer_kit(name)
    layer: Layer = kit.linear(5, 3) if kind == "linear" else kit.conv2d(2, 3, 3, stride=2, padding=1)
    return layer


# With layer normalization no unit is one function of the input alone.
LAYERS = [
    (name, kind) for name, row in PARAMETERIZATIONS.items() if row.start != "own" for kind in ("linear", "conv2d")
]


def each_layer() -> list[Any]:
    made = [pytest.param(make(*each), INPUTS[each[1]], id=f"{each[0]} {each[1]}") for each in LAYERS]
    transposed = pytest.param(WeightNormConvTranspose2d(2, 3, 3), INPUTS["transposed"], id="transposed")
    return [*made, transposed]


@each_parameterization
def test_a_kit_makes_layers_and_only_those_with_statistics_of_the_batch_have_them(name: str) -> None:
    for kind in ("linear", "conv2d"):
        layer = make(name, kind)
        assert isinstance(layer, Layer)
        assert isinstance(layer, BatchStatisticsLayer) == PARAMETERIZATIONS[name].batch_statistics


def test_an_unknown_parameterization_names_the_closest() -> None:
    with pytest.raises(UsageError, match=r"unknown parameterization 'wm'; did you mean .*wn.*\?"):
        layer_kit("wm")


def test_a_layer_that_lacks_a_method_cannot_be_made() -> None:
    class Unfinished(Layer):
        def fold(self) -> tuple[Tensor, Tensor]:
            return self.weight, self.bias

    with pytest.raises(TypeError, match="abstract"):
        Unfinished()  # type: ignore[abstract]


@pytest.mark.survives("a row of weights that is zero", "the unit is off, and its gradients are finite")
@pytest.mark.parametrize("setter", ["set_weight_", "set_direction_"])
@pytest.mark.parametrize(("layer", "input_shape"), each_layer())
def test_a_row_of_zeros_is_a_unit_that_is_off(layer: Layer, input_shape: tuple[int, ...], setter: str) -> None:
    """w = 0 and y = b, in both modes; all that is saved or learned from is finite. The other units are as ever."""
    w = centred(torch.randn(layer.direction_shape, generator=generator()))  # ws has no others
    w[1] = 0.0
    bias = torch.tensor([0.5, -2.0, 3.0])
    if setter == "set_weight_":
        layer.set_weight_(w, bias)
        expected = w
    else:
        layer.set_direction_(w)
        layer.rescale_output_(torch.full((3,), 2.0), bias)
        expected = 2 * w / w.flatten(1).norm(dim=1).clamp(min=1e-9).view(-1, *[1] * (w.ndim - 1))
    x = torch.randn(input_shape, generator=generator(1))
    folded, folded_bias = layer.eval().fold()
    assert not folded[1].any()
    torch.testing.assert_close(folded.detach(), expected)
    torch.testing.assert_close(folded_bias.detach(), bias)
    for training in (False, True):
        layer.train(training)
        layer.zero_grad()
        y = layer(x)
        torch.testing.assert_close(y[:, 1], torch.full_like(y[:, 1], -2.0))
        assert y[:, 0].std() > 0.01
        y.sin().sum().backward()
        for key, parameter in layer.named_parameters():
            assert parameter.isfinite().all(), key
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), key
    assert all(tensor.isfinite().all() for tensor in layer.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@each_parameterization
def test_a_unit_that_is_off_is_off_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    layer = make(name, "linear").to(dtype)
    layer.set_weight_(torch.zeros(3, 5), torch.ones(3))
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert not layer.weight.any()


def test_an_lstm_with_rows_of_zeros_is_finite() -> None:
    lstm = WeightNormLSTM(3, 2)
    ih, hh = torch.randn(8, 3, generator=generator()), torch.zeros(8, 2)
    ih[4] = 0.0
    lstm.set_weights_(ih, hh, torch.zeros(8))
    torch.testing.assert_close(lstm.weight_ih, ih)
    torch.testing.assert_close(lstm.weight_hh, hh)
    y, _ = lstm(torch.randn(4, 2, 3, generator=generator(1)))
    y.sum().backward()
    assert y.isfinite().all()
    for parameter in lstm.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


# --- What is no layer ---


class Strange(MlpNetwork):
    """A network with a parameter, or a buffer, of its own."""

    kind = "parameter"

    def build(self, layers: LayerKit) -> None:
        super().build(layers)
        if self.kind == "parameter":
            self.temperature = nn.Parameter(torch.ones(()))
        elif self.kind == "buffer":
            self.register_buffer("temperature", torch.ones(()))
        else:
            self.temperature = nn.Linear(2, 2)  # type: ignore[assignment]


@pytest.mark.parametrize("kind", ["parameter", "buffer", "module"])
def test_what_belongs_to_no_layer_is_an_error_wherever_it_would_be_left_out(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Strange, "kind", kind)
    network = Strange(layer_kit("wn"), (6,), 3)
    x = torch.randn(20, 6, generator=generator())
    for use in (
        lambda: initialize_from_data(network, x, generator()),
        lambda: initialize_uniform(network, UNIFORM_INITS["torch"], generator()),
        lambda: adopt_batch_statistics(network, x),
        lambda: network.scale_outputs_(0.5),
        lambda: fold(network),
        lambda: layers_of(network),
    ):
        with pytest.raises(UsageError, match=r"temperature\S* of Strange belongs to no layer"):
            use()
    assert "hidden" in layers_of(network, besides=["temperature"] if kind == "module" else [""])


def test_a_layer_that_cannot_be_folded_is_named() -> None:
    class Curved(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).tanh()

        def fold(self) -> tuple[Tensor, Tensor]:
            raise NotImplementedError

    network = MlpNetwork(LayerKit(linear=Curved, conv2d=PLAIN.conv2d), (6,), 3)
    with pytest.raises(UsageError, match=r"the layer trunk\.0, a Curved, has no plain form"):
        fold(network)


def test_the_outermost_layer_answers_for_the_layers_in_it() -> None:
    class Composite(Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.inner = Linear(*sizes)

    network = nn.Sequential(Composite(2, 2), nn.ReLU(), Linear(2, 2))
    assert list(layers_of(network)) == ["0", "2"]
