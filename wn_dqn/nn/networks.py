"""Q-networks for large images, small images, and vectors. Each is written once, for the layers of any parameterization.

Shapes: B observations, A actions, F features, N atoms of a distribution.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.config.registry import NETWORKS, import_code
from wn_dqn.config.schema import NetworkSettings
from wn_dqn.errors import UsageError, closest
from wn_dqn.nn.input_normalization import InputNormalization
from wn_dqn.nn.kernels import unit_interval
from wn_dqn.nn.layers import LayerKit, layers_of
from wn_dqn.nn.noisy import noisy_layers
from wn_dqn.nn.spectral_normalization import SpectralNormConv2d, SpectralNormLayer
from wn_dqn.nn.value_distribution import Support


class QNetwork(nn.Module, ABC):
    """Q-values [B, A] from observations [B, *obs_shape] of `obs_dtype`.

    Every parameter and buffer belongs to a :class:`wn_dqn.nn.layers.Layer` from the given kit, or to `normalization`.
    ReLUs work in place: a hook that stores a pre-activation must copy it.
    """

    OUTPUT_LAYERS: ClassVar[tuple[str, ...]] = ("output",)
    """The layers that no ReLU follows. Q-values, or logits, are linear in their outputs."""
    LAST_HIDDEN_LAYERS: ClassVar[tuple[str, ...]] = ("hidden",)
    """The layers before them, to which `sn` applies unless `network.spectral_layers` names others."""

    def __init__(
        self,
        layers: LayerKit,
        obs_shape: Sequence[int],
        num_actions: int,
        settings: NetworkSettings | None = None,
        obs_dtype: torch.dtype = torch.uint8,
    ) -> None:
        """`obs_shape` is [C, H, W] for images or [D] for vectors; bytes (`obs_dtype` uint8) are divided by 255."""
        super().__init__()
        self.obs_shape, self.obs_dtype, self.num_actions = tuple(obs_shape), obs_dtype, num_actions
        self.settings = settings or NetworkSettings()
        self.support = support_of(self.settings)
        """support of the distributions that the network outputs; None if it outputs Q-values"""
        self.folded = layers.folded
        """the parameterization of this network when it is folded, see :func:`wn_dqn.nn.folding.fold`"""
        self.normalization: InputNormalization | None = None
        """normalization of observations, which are float32 vectors; None if they are not normalized"""
        self.build(layers)
        self._choose_spectral_layers()

    def _choose_spectral_layers(self) -> None:
        """Turn spectral normalization on in the chosen layers, and off in all others."""
        layers = {name: layer for name, layer in self.named_modules() if isinstance(layer, SpectralNormLayer)}
        chosen = self.settings.spectral_layers or self.LAST_HIDDEN_LAYERS
        if layers and (missing := [name for name in chosen if name not in layers]):
            raise UsageError(f"network.spectral_layers: there is no layer {missing[0]}; {closest(missing[0], layers)}")
        for name, layer in layers.items():
            if name not in chosen:
                layer.be_plain_()
        if any(isinstance(layers.get(name), SpectralNormConv2d) for name in chosen):
            with torch.no_grad():  # the norm of a convolution depends on the size of its images
                self(torch.zeros(1, *self.obs_shape, dtype=self.obs_dtype))

    @abstractmethod
    def build(self, layers: LayerKit) -> None:
        """Create the layers as attributes, from the constructor's arguments. :meth:`add_head` creates the last two."""

    def with_layers(self, layers: LayerKit) -> Self:
        """A new network of the same shape with other layers, on the CPU."""
        network = type(self)(layers, self.obs_shape, self.num_actions, self.settings, self.obs_dtype)
        network.normalization = copy.deepcopy(self.normalization)
        return network.cpu()

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The head's input [B, F] from the output of :meth:`network_input`, floating point [B, *obs_shape]."""

    def forward(self, obs: Tensor) -> Tensor:
        """Q-values [B, A] from observations [B, *obs_shape]."""
        outputs = self.outputs(obs)
        if self.support is None:
            return outputs
        return self.support.q_values(outputs.to(next(self.parameters()).dtype))  # from bfloat16 under autocast

    def outputs(self, obs: Tensor) -> Tensor:
        """The outputs that the loss takes, for observations [B, *obs_shape]: Q-values [B, A], or logits [B, A, N]."""
        return self.head(self.features(self.network_input(obs)))

    def network_input(self, obs: Tensor) -> Tensor:
        """`obs` [B, *obs_shape] in the dtype of the parameters. If `obs_dtype` is uint8, it is divided by 255."""
        dtype = next(self.parameters()).dtype
        if self.obs_dtype != torch.uint8:
            x = obs.to(dtype)
            return x if self.normalization is None else self.normalization(x)
        return unit_interval(obs, dtype) if obs.ndim == 4 else obs.to(dtype) / 255.0

    def add_head(self, layers: LayerKit, num_features: int, hidden: int) -> None:
        """Make the layers of :meth:`head`, with `hidden` units between features and outputs."""
        linear = layers.head_linear or layers.linear
        self.hidden = linear(num_features, hidden)
        self.output = layers.output(hidden, self.num_actions * self.num_atoms)

    def head(self, features: Tensor) -> Tensor:
        """What :meth:`outputs` gives, from features [B, F]."""
        return self.atoms_apart(self.output(F.relu_(self.hidden(features))))

    @property
    def num_atoms(self) -> int:
        """N, the outputs of an action; 1 without a support."""
        return 1 if self.support is None else self.support.num_atoms

    def atoms_apart(self, outputs: Tensor) -> Tensor:
        """A layer's outputs [B, A N] as [B, A, N]; as they are, [B, A], without a support."""
        return outputs if self.support is None else torch.unflatten(outputs, 1, (-1, self.num_atoms))

    @torch.no_grad()
    def scale_outputs_(self, scale: float) -> None:
        """Multiply all Q-values, or all logits, by `scale`, in the output layers alone."""
        layers = layers_of(self)
        for layer in map(layers.__getitem__, self.OUTPUT_LAYERS):
            shift = next(layer.parameters()).new_zeros(layer.direction_shape[0])
            layer.rescale_output_(torch.full_like(shift, scale), shift)


class DuelingHead(QNetwork):
    """Dueling heads (Wang et al. 2016): a state's value and its actions' advantages, each from its own hidden layer.

    Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')  (equation 9). Without the mean, V and A would be determined only up to
    a constant. With atoms, each atom's logits are combined in this way (Hessel et al. 2018, "The integrated agent").
    """

    OUTPUT_LAYERS = ("value", "advantage")
    LAST_HIDDEN_LAYERS = ("hidden_value", "hidden_advantage")

    def add_head(self, layers: LayerKit, num_features: int, hidden: int) -> None:
        """Make the layers of :meth:`head`, with `hidden` units in each of its two streams."""
        linear = layers.head_linear or layers.linear
        self.hidden_value = linear(num_features, hidden)
        self.value = layers.output(hidden, self.num_atoms)
        self.hidden_advantage = linear(num_features, hidden)
        self.advantage = layers.output(hidden, self.num_actions * self.num_atoms)

    def head(self, features: Tensor) -> Tensor:
        """What :meth:`outputs` gives, from features [B, F]."""
        value = self.atoms_apart(self.value(F.relu_(self.hidden_value(features))))  # [B, 1], [B, 1, N]
        advantage = self.atoms_apart(self.advantage(F.relu_(self.hidden_advantage(features))))  # [B, A], [B, A, N]
        dtype = next(self.value.parameters()).dtype  # under autocast both are bfloat16: a large V would
        value, advantage = value.to(dtype), advantage.to(dtype)  # round away the differences of the actions
        return value + (advantage - advantage.mean(dim=1, keepdim=True))


class NatureNetwork(QNetwork):
    """The network of Mnih et al. (2015, Methods, "Model architecture"), for images [C, H, W].

    Convolutions run in channels_last, which is faster on CPUs and on GPUs; it changes no value beyond rounding.
    """

    CHANNELS: ClassVar[tuple[int, int, int]] = (32, 64, 64)
    """of the three convolutions"""
    HIDDEN_UNITS: ClassVar[int] = 512
    """of each hidden layer of the head"""

    def build(self, layers: LayerKit) -> None:
        """Three convolutions, and the head."""
        channels, *sides = self.obs_shape
        first, second, third = self.CHANNELS
        self.conv1 = layers.conv2d(channels, first, 8, stride=4)  # of 84x84 -> [B, 32, 20, 20]
        self.conv2 = layers.conv2d(first, second, 4, stride=2)  # -> [B, 64, 9, 9]
        self.conv3 = layers.conv2d(second, third, 3, stride=1)  # -> [B, 64, 7, 7]
        self.add_head(layers, third * math.prod(map(self.last_side, sides)), self.HIDDEN_UNITS)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def last_side(self, side: int) -> int:
        """Height or width after the three convolutions, of images with `side`; UsageError if they are too small."""
        left = side
        for kernel, stride in ((8, 4), (4, 2), (3, 1)):
            left = (left - kernel) // stride + 1
            if left < 1:
                raise UsageError(f"images {side} pixels wide or high are too small for the network nature: 36 at least")
        return left

    def features(self, x: Tensor) -> Tensor:
        """The output of the convolutions for images [B, C, H, W]: [B, F], F = 3136 for 84x84."""
        x = F.relu_(self.conv1(x))
        x = F.relu_(self.conv2(x))
        return F.relu_(self.conv3(x).flatten(1))


class PaddedNatureNetwork(NatureNetwork):
    """The Nature network with padded convolutions, as in Dopamine: [B, 64, 11, 11] before the head.

    The padding is SAME of TensorFlow and JAX. The output of a convolution with stride s has side ceil(side / s). If the
    total width of the border is odd, the larger part is at the right and at the bottom.
    """

    def last_side(self, side: int) -> int:
        """Height or width after the three convolutions, of images with `side`."""
        return math.ceil(side / 8)

    def features(self, x: Tensor) -> Tensor:
        """The output of the convolutions for images [B, C, H, W]: [B, F], F = 7744 for 84x84."""
        x = F.relu_(self.conv1(_same_padding(x, 8, 4)))
        x = F.relu_(self.conv2(_same_padding(x, 4, 2)))
        return F.relu_(self.conv3(_same_padding(x, 3, 1)).flatten(1))


def _same_padding(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad images [B, C, H, W] with zeros, so that a convolution's output has side ceil(side / stride)."""
    border: list[int] = []  # left, right, top, bottom
    for side in reversed(x.shape[2:]):
        width = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        border += [width // 2, width - width // 2]
    return F.pad(x, border)


class MinAtarNetwork(QNetwork):
    """The network of Young & Tian (2019, section 3.1), for small images [C, H, W] such as those of MinAtar."""

    CHANNELS: ClassVar[int] = 16
    """of the convolution"""
    HIDDEN_UNITS: ClassVar[int] = 128
    """of each hidden layer of the head"""

    def build(self, layers: LayerKit) -> None:
        """A convolution of 3x3 with stride 1, and the head."""
        channels, height, width = self.obs_shape
        if min(height, width) < 3:
            raise UsageError(f"images of {height}x{width} are too small for the network minatar: 3x3 at least")
        self.conv = layers.conv2d(channels, self.CHANNELS, 3, stride=1)  # of 10x10 -> [B, 16, 8, 8]
        self.add_head(layers, self.CHANNELS * (height - 2) * (width - 2), self.HIDDEN_UNITS)

    def features(self, x: Tensor) -> Tensor:
        """The output of the convolution for images [B, C, H, W]: [B, F], F = 1024 for 10x10."""
        return F.relu_(self.conv(x)).flatten(1)


class MlpNetwork(QNetwork):
    """A multilayer perceptron for vectors [D]: ReLU layers with the sizes `network.hidden`; the last is the head's."""

    def build(self, layers: LayerKit) -> None:
        """Linear layers; the last two form the head."""
        *sizes, hidden = self.settings.hidden
        widths = [*self.obs_shape, *sizes]
        self.trunk = nn.ModuleList(layers.linear(*pair) for pair in zip(widths, sizes, strict=False))
        self.add_head(layers, widths[-1], hidden)

    def features(self, x: Tensor) -> Tensor:
        """The output [B, F] of the hidden layers before the head, for vectors [B, D]; the vectors if there are none."""
        for layer in self.trunk:
            x = F.relu_(layer(x))
        return x


class DuelingNatureNetwork(DuelingHead, NatureNetwork):
    """The Nature network's convolutions under dueling heads."""


class DuelingPaddedNatureNetwork(DuelingHead, PaddedNatureNetwork):
    """The padded Nature network's convolutions under dueling heads."""


class DuelingMinAtarNetwork(DuelingHead, MinAtarNetwork):
    """The MinAtar network's convolution under dueling heads."""


class DuelingMlpNetwork(DuelingHead, MlpNetwork):
    """A perceptron under dueling heads."""


def support_of(settings: NetworkSettings) -> Support | None:
    """The support of the distributions that a network with these settings outputs; None for Q-values."""
    return None if settings.atoms is None else Support(settings.v_min, settings.v_max, settings.atoms)


def make_network(
    layers: LayerKit,
    obs_shape: Sequence[int],
    obs_dtype: torch.dtype,
    num_actions: int,
    settings: NetworkSettings,
    *,
    normalize: bool = False,
) -> QNetwork:
    """The network that `settings` name, for observations [*obs_shape] of `obs_dtype`.

    `normalize` normalizes observations. Raises UsageError if the network does not take such observations, or if it has
    a parameter outside of its layers.
    """
    name = network_name(obs_shape, settings)
    row = NETWORKS[name]
    code = row.dueling if settings.dueling else row.code
    if code is None:
        raise UsageError(f"the network {name} has no dueling form: set network.dueling=false")
    network: QNetwork = import_code(code)(layers, obs_shape, num_actions, settings, obs_dtype)
    if normalize:
        if len(obs_shape) != 1 or obs_dtype != torch.float32:
            kind = str(obs_dtype).removeprefix("torch.")
            raise UsageError(
                f"environment.normalize_observations is for vectors of float32, not for {kind} {list(obs_shape)}"
            )
        network.normalization = InputNormalization(*obs_shape)
    _require_head(network, layers, name)
    return network


def _require_head(network: QNetwork, layers: LayerKit, name: str) -> None:
    """Raise UsageError unless the head has the atoms and noise of the settings. A network may define its own head."""
    made = layers_of(network)
    output = made.get(network.OUTPUT_LAYERS[-1])
    if network.support and (output is None or output.direction_shape[0] != network.num_actions * network.num_atoms):
        raise UsageError(f"the network {name} makes a head of its own, without atoms: set agent=dqn")
    if layers.head_linear is not None and not noisy_layers(network):
        raise UsageError(f"the network {name} makes a head of its own, without noise: set network.noisy=false")


def network_name(obs_shape: Sequence[int], settings: NetworkSettings) -> str:
    """The name of the network for observations [*obs_shape]; ``auto`` is the first network that takes them.

    Raises UsageError if the network that `settings` name does not take such observations.
    """
    ndim = len(obs_shape)
    name = settings.name
    if name == "auto":
        side = min(obs_shape[1:], default=1)
        name = next((name for name, row in NETWORKS.items() if row.obs_ndim == ndim and side >= row.min_side), "")
    fitting = [name for name, row in NETWORKS.items() if row.obs_ndim in (ndim, None)]
    if name not in fitting:
        raise UsageError(
            f"network.name {settings.name} is not for observations of shape {list(obs_shape)}; "
            f"{closest(settings.name, fitting)}"
        )
    return name
