"""Q-networks of other programs: reading their weights, and writing ours for them.

All of them are the network of Mnih et al. (2015) on four frames, oldest first, divided by 255; what differs is what the
layers are called.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from wn_dqn.envs.atari import atari_spec
from wn_dqn.errors import UsageError, first_line
from wn_dqn.nn.layers import layers_of
from wn_dqn.nn.networks import DuelingHead, NatureNetwork, QNetwork
from wn_dqn.nn.standard import PLAIN

_LAYERS = ("conv1", "conv2", "conv3", "hidden", "output")
_SB3 = ("cnn.0", "cnn.2", "cnn.4", "linear.0")
_OBS_SHAPE = atari_spec("", ()).obs_shape
NAMES: dict[str, tuple[str, ...]] = {
    "wn_dqn": _LAYERS,
    "CleanRL": ("network.0", "network.2", "network.4", "network.7", "network.9"),
    "Stable-Baselines3": (*(f"q_net.features_extractor.{name}" for name in _SB3), "q_net.q_net.0"),
    "Stable-Baselines3's q_net": (*(f"features_extractor.{name}" for name in _SB3), "q_net.0"),
}
"""What each program calls the five layers, in their order."""


def read_weights(path: Path) -> QNetwork:
    """The Q-network in a .safetensors, .pt, .pth or .cleanrl_model file, or in Stable-Baselines3's .zip.

    UsageError if the file cannot be read, holds anything but tensors (nothing in it is ever run), or no such network.
    """
    state = _read_tensors(path)
    if all(f"{name}.weight" in state for name in DuelingHead.OUTPUT_LAYERS):
        raise UsageError(f"{path} holds a network with dueling heads; only plain Nature networks are imported")
    program = next((name for name, layers in NAMES.items() if f"{layers[0]}.weight" in state), None)
    if program is None:
        known = ", ".join(f"{layers[0]}.weight ({name})" for name, layers in NAMES.items())
        raise UsageError(f"{path} holds no Q-network that is known here: it has none of {known}")
    names = {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in zip(_LAYERS, NAMES[program], strict=True)
        for kind in ("weight", "bias")
    }
    for theirs in names.values():
        if theirs not in state:
            raise UsageError(f"{path} looks like {program}, but has no {theirs}")
    bias = state[names["output.bias"]]
    network = NatureNetwork(PLAIN, _OBS_SHAPE, max(bias.numel(), 1))
    for ours, parameter in network.named_parameters():
        tensor = state[names[ours]]
        if tensor.shape != parameter.shape:
            raise UsageError(
                f"{path}: {names[ours]} has shape {list(tensor.shape)}; the Nature network has {list(parameter.shape)}"
            )
        if not (tensor.is_floating_point() and tensor.isfinite().all()):
            raise UsageError(f"{path}: {names[ours]} holds what is no finite number")
        with torch.no_grad():
            parameter.copy_(tensor)
    return network.requires_grad_(False)


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            return load_safetensors(path.read_bytes())
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                state = _load_pickled_tensors(archive.read("policy.pth"))
        elif suffix in (".pt", ".pth", ".cleanrl_model"):
            state = _load_pickled_tensors(path.read_bytes())
        else:
            valid = ".safetensors, .pt, .pth, .cleanrl_model, .zip (Stable-Baselines3)"
            raise UsageError(f"{path} is no kind of file that is read here; valid: {valid}")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except KeyError:
        raise UsageError(f"{path} has no policy.pth in it: it was not saved by Stable-Baselines3") from None
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} holds more than tensors, and that is never loaded; save it again with "
            "torch.save(network.state_dict(), ...)"
        ) from None
    except (SafetensorError, zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:
        raise UsageError(f"{path} is damaged: {first_line(error)}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} holds no state_dict: a mapping of names to tensors")
    return state


def _load_pickled_tensors(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def assign(network: QNetwork, plain: QNetwork) -> None:
    """Set `network` to compute what `plain` does, layer by layer; under weight normalization v = w and g = ||w||.

    UsageError if their layers are not the same by name.
    """
    layers, plain_layers = layers_of(network), layers_of(plain)
    if layers.keys() != plain_layers.keys():
        raise UsageError(f"the network has the layers {', '.join(plain_layers)}; here are {', '.join(layers)}")
    for name, layer in layers.items():
        layer.set_weight_(*plain_layers[name].fold())
