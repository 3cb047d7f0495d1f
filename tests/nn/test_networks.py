"""Every network and its dueling form, against plain torch.nn.Sequentials or by hand, for every parameterization."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import NetworkSettings
from wn_dqn.errors import UsageError
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.folding import fold
from wn_dqn.nn.layers import LayerKit, centred, layer_kit, layers_of
from wn_dqn.nn.networks import (
    DuelingMinAtarNetwork,
    DuelingMlpNetwork,
    DuelingNatureNetwork,
    MinAtarNetwork,
    MlpNetwork,
    NatureNetwork,
    PaddedNatureNetwork,
    QNetwork,
    make_network,
    network_name,
)

OBS_SHAPE = (4, 84, 84)

NUM_ACTIONS = 6
LAYERS = ["conv1", "conv2", "conv3", "hidden", "output"]
DUELING_LAYERS = ["conv1", "conv2", "conv3", "hidden_value", "value", "hidden_advantage", "advantage"]
each_parameterization = pytest.mark.parametrize("name", PARAMETERIZATIONS)
# With layer normalization there is no plain network of torch's that computes the same.
each_linear_parameterization = pytest.mark.parametrize(
    "name", [name for name, row in PARAMETERIZATIONS.items() if row.start != "own"]
)
each_network = pytest.mark.parametrize("kind", [NatureNetwork, DuelingNatureNetwork])


def observations(num: int = 3) -> Tensor:
    return torch.randint(0, 256, (num, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def random_network(name: str, dtype: torch.dtype = torch.float32, kind: Any = NatureNetwork) -> NatureNetwork:
    """A network whose weights have the scale of an initialized one, in evaluation mode, as the agent keeps it."""
    network = kind(layer_kit(name), OBS_SHAPE, NUM_ACTIONS).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    for layer in layers_of(network).values():
        layer.set_direction_(centred(torch.randn(layer.direction_shape, generator=generator)))
        units = layer.direction_shape[0]
        layer.rescale_output_(torch.rand(units, generator=generator) + 1, torch.randn(units, generator=generator))
    return network


def plain_network(network: NatureNetwork) -> nn.Sequential:
    """The same network out of torch's own layers, in torch's own memory format, on inputs in [0, 1]."""
    plain = nn.Sequential(
        nn.Conv2d(4, 32, kernel_size=8, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=4, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, kernel_size=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, NUM_ACTIONS),
    ).to(next(network.parameters()).dtype)
    copy_weights(plain, network)
    return plain


@torch.no_grad()
def copy_weights(plain: nn.Sequential, network: QNetwork) -> None:
    layers = [layer for layer in plain if isinstance(layer, nn.Conv2d | nn.Linear)]
    for ours, theirs in zip(layers, layers_of(network).values(), strict=True):
        for parameter, folded in zip(ours.parameters(), theirs.fold(), strict=True):
            parameter.copy_(folded)


@each_parameterization
@pytest.mark.parametrize("num_actions", [3, 18])
@torch.no_grad()
def test_shapes(name: str, num_actions: int) -> None:
    network = NatureNetwork(layer_kit(name), OBS_SHAPE, num_actions)
    shapes = []
    for layer in layers_of(network).values():
        layer.register_forward_hook(lambda _layer, _inputs, t: shapes.append(tuple(t.shape)))
    q = network(observations(2))
    assert shapes == [(2, 32, 20, 20), (2, 64, 9, 9), (2, 64, 7, 7), (2, 512), (2, num_actions)]
    assert q.dtype == torch.float32


UNITS = 32 + 64 + 64 + 512 + 6


@pytest.mark.parametrize(
    ("name", "scales", "statistics"),
    [
        ("standard", 0, 0),
        ("wn", UNITS, 0),
        ("wn-exp", UNITS, 0),
        ("mean-only-bn", 0, UNITS),
        ("wn-mean-only-bn", UNITS, UNITS),
        ("bn", UNITS, 2 * UNITS),
    ],
)
def test_number_of_parameters(name: str, scales: int, statistics: int) -> None:
    """8,224 + 32,832 + 36,928 + 1,606,144 + 3,078, weights and biases; a scale and running statistics per unit."""
    network = NatureNetwork(layer_kit(name), OBS_SHAPE, 6)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_687_206 + scales
    assert sum(buffer.numel() for buffer in network.buffers()) == statistics


@each_linear_parameterization
def test_equals_a_plain_network_with_the_same_weights(name: str) -> None:
    """In values, and in the gradients of the biases, which every layer's backward pass feeds."""
    network = random_network(name, torch.float64)
    plain = plain_network(network)
    obs = observations()
    q, plain_q = network(obs), plain(obs.double() / 255)
    assert q.std() > 0.01
    torch.testing.assert_close(q, plain_q, rtol=1e-12, atol=1e-12)
    q.sin().sum().backward()
    plain_q.sin().sum().backward()
    plain_biases = [parameter.grad for parameter in plain.parameters() if parameter.ndim == 1]
    for layer, plain_bias in zip(layers_of(network).values(), plain_biases, strict=True):
        torch.testing.assert_close(layer.bias.grad, plain_bias, rtol=1e-10, atol=1e-12)


@each_linear_parameterization
@torch.no_grad()
def test_float32_differs_by_rounding_only(name: str) -> None:
    network = random_network(name)
    obs = observations()
    torch.testing.assert_close(network(obs), plain_network(network)(obs.float() / 255), rtol=1e-5, atol=1e-5)


def test_only_the_layers_differ_between_parameterizations() -> None:
    """Any pair of constructors makes the network, and its modules are these layers and nothing else."""
    plain = LayerKit(linear=nn.Linear, conv2d=nn.Conv2d)
    for layers in (*map(layer_kit, PARAMETERIZATIONS), plain):
        network = NatureNetwork(layers, OBS_SHAPE, NUM_ACTIONS)
        assert {name: type(module) for name, module in network.named_children()} == dict(
            zip(LAYERS, [layers.conv2d] * 3 + [layers.linear, layers.last or layers.linear], strict=True)
        )
    q = random_network("standard")(observations())
    for name in (name for name, row in PARAMETERIZATIONS.items() if row.start != "own"):
        torch.testing.assert_close(random_network(name)(observations()), q, rtol=1e-5, atol=1e-5, msg=name)


def test_layers_of_are_named_in_order() -> None:
    for layers in map(layer_kit, PARAMETERIZATIONS):
        assert list(layers_of(NatureNetwork(layers, OBS_SHAPE, NUM_ACTIONS))) == LAYERS
        assert list(layers_of(DuelingNatureNetwork(layers, OBS_SHAPE, NUM_ACTIONS))) == DUELING_LAYERS


@each_network
@each_parameterization
@torch.no_grad()
def test_q_values_are_scaled_in_the_output_layers_alone(name: str, kind: Any) -> None:
    network = random_network(name, kind=kind)
    scaled = copy.deepcopy(network)
    scaled.scale_outputs_(0.25)
    torch.testing.assert_close(scaled(observations()), 0.25 * network(observations()))
    for key, before in network.state_dict().items():
        is_output = key.split(".")[0] in ("output", "value", "advantage")
        assert is_output or torch.equal(scaled.state_dict()[key], before), key


# --- Dueling heads ---


@torch.no_grad()
def test_dueling_by_hand() -> None:
    """Equation 9 for two samples and three actions, of which the features 0 and 1 are all that counts."""
    network = DuelingNatureNetwork(layer_kit("standard"), OBS_SHAPE, 3)  # all zero
    hidden_value, value, hidden_advantage, advantage = list(layers_of(network).values())[3:]
    hidden_value.weight[0, 0], hidden_value.weight[1, 1] = 1.0, -1.0
    value.weight[0, 0], value.weight[0, 1] = 0.5, 7.0
    hidden_advantage.weight[0, 1] = 2.0
    advantage.weight[:, 0] = torch.tensor([0.5, -1.0, 2.0])
    advantage.bias[0] = 3.0
    features = torch.zeros(2, 3136)
    features[:, :2] = torch.tensor([[3.0, 1.0], [8.0, 2.0]])
    # V = 0.5 relu(x0) + 7 relu(-x1): 1.5 and 4. A = relu(2 x1) [0.5, -1, 2] + [3, 0, 0]: [4, -2, 4], mean 2, and
    # [5, -4, 8], mean 3.
    expected = torch.tensor([[1.5 + 2, 1.5 - 4, 1.5 + 2], [4.0 + 2, 4.0 - 7, 4.0 + 5]])
    torch.testing.assert_close(network.head(features), expected)
    advantage.bias += 10.0  # no constant hides in the advantages
    torch.testing.assert_close(network.head(features), expected)
    value.bias += 10.0
    torch.testing.assert_close(network.head(features), expected + 10)


@pytest.mark.parametrize("name", [*list(PARAMETERIZATIONS)[:6], "sn"])
def test_dueling_equals_a_plain_network_with_the_same_weights(name: str) -> None:
    """In values, and in the gradients of the biases: both streams reach the convolutions."""
    network = random_network(name, torch.float64, DuelingNatureNetwork)
    convolutions = plain_network(random_network(name, torch.float64))[:7]
    streams = [
        nn.Sequential(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, outputs)).double() for outputs in (1, NUM_ACTIONS)
    ]
    layers = [layer for part in (convolutions, *streams) for layer in part if isinstance(layer, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for plain, ours in zip(layers, layers_of(network).values(), strict=True):
            for parameter, folded in zip(plain.parameters(), ours.fold(), strict=True):
                parameter.copy_(folded)
    value, advantage = (stream(convolutions(observations().double() / 255)) for stream in streams)
    plain_q = torch.stack([value[:, 0] + a - sum(advantage.T) / NUM_ACTIONS for a in advantage.T], dim=1)
    q = network(observations())
    assert q.std() > 0.01
    torch.testing.assert_close(q, plain_q, rtol=1e-12, atol=1e-12)
    q.sin().sum().backward()
    plain_q.sin().sum().backward()
    for plain, ours in zip(layers, layers_of(network).values(), strict=True):
        torch.testing.assert_close(ours.bias.grad, plain.bias.grad, rtol=1e-10, atol=1e-12)


@each_parameterization
@torch.no_grad()
def test_pixels_are_scaled_to_one_and_left_alone(name: str) -> None:
    network = random_network(name)
    obs = observations()
    for given in (obs, obs.contiguous(memory_format=torch.channels_last)):
        inputs: list[Tensor] = []
        hook = network.conv1.register_forward_pre_hook(lambda _layer, args, inputs=inputs: inputs.append(args[0]))
        network(given)
        hook.remove()
        assert torch.equal(inputs[0], obs.float() / 255)
        assert torch.equal(given, observations())


@each_parameterization
def test_convolutions_run_in_channels_last(name: str) -> None:
    network = random_network(name)

    def is_channels_last(tensor: Tensor | None) -> bool:
        return tensor is not None and tensor.is_contiguous(memory_format=torch.channels_last)

    outputs: list[Tensor] = []
    for convolution in (network.conv1, network.conv2, network.conv3):
        convolution.register_forward_hook(lambda _layer, _inputs, t: outputs.append(t))
    network(observations()).sum().backward()
    kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    assert len(kernels) == len(outputs) == 3
    for tensor in (*outputs, *kernels, *(kernel.grad for kernel in kernels)):
        assert is_channels_last(tensor)
    assert all(is_channels_last(parameter) for parameter in copy.deepcopy(network).parameters() if parameter.ndim == 4)


@each_parameterization
@torch.no_grad()
def test_the_batch_does_not_change_a_sample(name: str) -> None:
    network = random_network(name)
    obs = observations(5)
    alone = torch.cat([network(obs[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(network(obs), alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_dueling_heads_are_added_in_full_precision() -> None:
    """Under autocast what the layers put out is bfloat16: a large value would swallow the advantages' differences."""
    network = random_network("wn", kind=DuelingNatureNetwork)
    network.get_parameter("value.bias").fill_(100.0)
    outputs: dict[str, Tensor] = {}
    for name in ("value", "advantage"):
        network.get_submodule(name).register_forward_hook(
            lambda _layer, _inputs, t, name=name: outputs.__setitem__(name, t.float())
        )
    with torch.autocast("cpu", torch.bfloat16):
        q = network(observations())
    advantage = outputs["advantage"] - outputs["advantage"].mean(dim=1, keepdim=True)
    assert q.dtype == torch.float32
    assert torch.equal(q, outputs["value"] + advantage)


# --- Other shapes ---

EACH_OBSERVATION = pytest.mark.parametrize(
    ("obs_shape", "dtype"),
    [
        ((4, 84, 84), "uint8"),
        ((1, 36, 50), "uint8"),
        ((6, 40, 36), "bool"),
        ((4, 10, 10), "bool"),
        ((3, 12, 9), "uint8"),
        ((5,), "float32"),
        ((7,), "uint8"),
    ],
    ids=str,
)


def examples(obs_shape: tuple[int, ...], dtype: str, num: int = 40) -> Tensor:
    """Random observations [num, *obs_shape]."""
    generator = torch.Generator().manual_seed(2)
    if dtype == "float32":
        return torch.randn(num, *obs_shape, generator=generator)
    upper = 2 if dtype == "bool" else 256
    return torch.randint(0, upper, (num, *obs_shape), generator=generator).to(getattr(torch, dtype))


@pytest.mark.parametrize("name", ["wn", "bn", "ws", "ln", "sn", "ln-wn-projected"])
@pytest.mark.parametrize("dueling", [False, True])
@EACH_OBSERVATION
@torch.no_grad()
def test_every_kind_of_observation_has_a_network_that_starts_from_data(
    name: str, dueling: bool, obs_shape: tuple[int, ...], dtype: str
) -> None:
    """Normalized Q-values, the same in every parameterization that starts as the others, and folded the same."""
    obs, settings = examples(obs_shape, dtype), NetworkSettings(dueling=dueling)

    def initialized(param: str) -> QNetwork:
        network = make_network(layer_kit(param), obs_shape, getattr(torch, dtype), NUM_ACTIONS, settings).eval()
        report = initialize_from_data(network, obs, torch.Generator().manual_seed(3), centre=True)
        assert sum(report.dead_units.values()) == 0
        return network

    network = initialized(name)
    kinds = {3: (NatureNetwork, DuelingNatureNetwork), 1: (MlpNetwork, DuelingMlpNetwork)}
    kinds[3] = kinds[3] if min(obs_shape[-2:]) >= 36 else (MinAtarNetwork, DuelingMinAtarNetwork)
    assert type(network) is kinds[len(obs_shape)][dueling]
    q = network(obs)
    assert (q.shape, q.dtype) == ((len(obs), NUM_ACTIONS), torch.float32)
    torch.testing.assert_close(q.mean(), torch.zeros(()), rtol=0, atol=1e-5)
    assert q.std() > 0.5
    if PARAMETERIZATIONS[name].start != "own":
        torch.testing.assert_close(initialized("standard")(obs), q, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fold(network)(obs), q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 1 / 255), ("bool", 1.0), ("float32", 1.0)])
@pytest.mark.parametrize("obs_shape", [(2, 36, 36), (6,)])
def test_bytes_are_scaled_and_nothing_else_is(obs_shape: tuple[int, ...], dtype: str, scale: float) -> None:
    """Floats that hold bytes are bytes to the network: that is how a gradient reaches them."""
    network = make_network(layer_kit("wn"), obs_shape, getattr(torch, dtype), 2, NetworkSettings())
    obs = examples(obs_shape, dtype)
    for given in (obs, obs.float()):
        torch.testing.assert_close(network.network_input(given), obs.float() * scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("side", "name"), [(3, "minatar"), (10, "minatar"), (35, "minatar"), (36, "nature")])
def test_auto_chooses_by_the_size_of_images(side: int, name: str) -> None:
    assert network_name((4, side, 84), NetworkSettings()) == network_name((4, 84, side), NetworkSettings()) == name


@pytest.mark.parametrize("name", ["standard", "wn"])
def test_the_padded_network_is_the_plain_one_with_borders_worked_out_by_hand(name: str) -> None:
    """84 -> 21 with 2 and 2 zeros, 21 -> 11 with 1 and 2, 11 -> 11 with 1 and 1: 7,744 features."""
    network = random_network(name, torch.float64, PaddedNatureNetwork)
    plain = nn.Sequential(
        nn.ZeroPad2d(2),
        nn.Conv2d(4, 32, 8, 4),
        nn.ReLU(),
        nn.ZeroPad2d((1, 2, 1, 2)),
        nn.Conv2d(32, 64, 4, 2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(7744, 512),
        nn.ReLU(),
        nn.Linear(512, NUM_ACTIONS),
    ).double()
    copy_weights(plain, network)
    torch.testing.assert_close(network(observations()), plain(observations().double() / 255), rtol=1e-9, atol=1e-9)
    if name == "standard":  # as many as Dopamine's network has with 6 actions
        assert sum(p.numel() for p in network.parameters()) == 8224 + 32832 + 36928 + 3965440 + 3078


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_the_minatar_network_is_the_plain_one(dtype: torch.dtype) -> None:
    """16 filters of 3x3, 128 units: 1,024 features of images of 10x10."""
    network = make_network(layer_kit("standard"), (4, 10, 10), dtype, 3, NetworkSettings(name="minatar"))
    plain = nn.Sequential(
        nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 3)
    )
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))
    obs = examples((4, 10, 10), str(dtype).removeprefix("torch."), 5)
    torch.testing.assert_close(network(obs), plain(obs.float() / (1 if dtype == torch.bool else 255)))


def test_a_perceptron_by_hand() -> None:
    settings = NetworkSettings(hidden=[2, 3])
    network = MlpNetwork(layer_kit("wn"), (2,), 2, settings, torch.float32)
    layers = layers_of(network)
    assert {name: tuple(layer.direction_shape) for name, layer in layers.items()} == {
        "trunk.0": (2, 2),
        "hidden": (3, 2),
        "output": (2, 3),
    }
    layers["trunk.0"].set_weight_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([0.0, -1.0]))
    layers["hidden"].set_weight_(torch.tensor([[1.0, 1.0], [-1.0, 0.0], [0.0, 3.0]]), torch.tensor([0.5, 0.0, 0.0]))
    layers["output"].set_weight_(torch.tensor([[1.0, 9.0, 0.0], [0.0, 0.0, -1.0]]), torch.tensor([0.0, 4.0]))
    # [3, 1]: relu [2, 1]; relu [3.5, -2, 3] = [3.5, 0, 3]; [3.5, 1]. [0, 1]: relu [-1, 1] = [0, 1]; [1.5, 0, 3]
    q = network(torch.tensor([[3.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(q, torch.tensor([[3.5, 1.0], [1.5, 1.0]]))


def test_one_hidden_layer_is_the_heads() -> None:
    network = MlpNetwork(layer_kit("standard"), (2,), 2, NetworkSettings(hidden=[5]), torch.float32)
    assert [(name, tuple(layer.direction_shape)) for name, layer in layers_of(network).items()] == [
        ("hidden", (5, 2)),
        ("output", (2, 5)),
    ]


@pytest.mark.parametrize(
    ("name", "obs_shape", "message"),
    [
        ("nature", (6,), r"network\.name nature is not for observations of shape \[6\]; .*mlp"),
        ("mlp", (4, 84, 84), r"network\.name mlp is not for observations of shape \[4, 84, 84\]; .*nature"),
        ("auto", (4, 5), r"network\.name auto is not for observations of shape \[4, 5\]"),
        ("nature", (4, 35, 84), "images 35 pixels wide or high are too small for the network nature: 36 at least"),
        ("minatar", (4, 2, 84), "images of 2x84 are too small for the network minatar: 3x3 at least"),
        ("auto", (4, 2, 84), r"network\.name auto is not for observations of shape \[4, 2, 84\]"),
    ],
)
def test_a_network_that_does_not_fit_is_an_error(name: str, obs_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_network(layer_kit("wn"), obs_shape, torch.uint8, 3, NetworkSettings(name=name))
