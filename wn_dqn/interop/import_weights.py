"""Reads the weights of other programs' Q-networks.

All of them are the network of Mnih et al. (2015) on four frames, oldest first, divided by 255. They differ only in the
names of the layers.
"""

from __future__ import annotations

import io
import lzma
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from wn_dqn.envs.atari import atari_spec
from wn_dqn.errors import UsageError, first_line
from wn_dqn.nn.layers import layers_of
from wn_dqn.nn.networks import DuelingHead, NatureNetwork, QNetwork
from wn_dqn.nn.standard import PLAIN
from wn_dqn.runs.checkpoint import load_safetensors
from wn_dqn.system import reading
from wn_dqn.system.reading import MIB

_LAYERS = ("conv1", "conv2", "conv3", "hidden", "output")
_SB3 = ("cnn.0", "cnn.2", "cnn.4", "linear.0")
_OBS_SHAPE = atari_spec("", ()).obs_shape
MAX_BYTES = 512 * MIB  # a Nature network has 7 MB; Stable-Baselines3 adds its optimizer's state
_MAX_HEADER_BYTES = MIB
_MAX_ACTIONS = 1000
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, torch.compile
# All names in the pickle of a state_dict of plain tensors.
_PLAIN = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Float|Double|Half|BFloat16|Long|Int)Storage"
)
_PICKLES_BEFORE_NUMBERS = 5
_DAMAGES = (
    *(SafetensorError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, MemoryError),
)
"""errors that a damaged file can raise"""
NAMES: dict[str, tuple[str, ...]] = {
    "wn_dqn": _LAYERS,
    "CleanRL": ("network.0", "network.2", "network.4", "network.7", "network.9"),
    "Stable-Baselines3": (*(f"q_net.features_extractor.{name}" for name in _SB3), "q_net.q_net.0"),
    "Stable-Baselines3's q_net": (*(f"features_extractor.{name}" for name in _SB3), "q_net.0"),
}
"""each program's names of the five layers, in order"""


def read_weights(path: Path) -> QNetwork:
    """The Q-network in a .safetensors, .pt, .pth or .cleanrl_model file, or in Stable-Baselines3's .zip.

    Raises UsageError if the file cannot be read, or contains no such network, or anything else than tensors. No code in
    it is ever run.
    """
    state = _without_prefix(read_tensors(path))
    if all(f"{name}.weight" in state for name in DuelingHead.OUTPUT_LAYERS):
        raise UsageError(f"{path} holds a network with dueling heads; only plain Nature networks are imported")
    program = next((name for name, layers in NAMES.items() if f"{layers[0]}.weight" in state), None)
    if program is None:
        known = ", ".join(f"{layers[0]}.weight ({name})" for name, layers in NAMES.items())
        raise UsageError(f"{path} contains no known Q-network: it has none of {known}")
    names = {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in zip(_LAYERS, NAMES[program], strict=True)
        for kind in ("weight", "bias")
    }
    for theirs in names.values():
        if theirs not in state:
            raise UsageError(f"{path} looks like {program}, but has no {theirs}")
    bias = state[names["output.bias"]]
    outputs = bias.shape[0] if bias.ndim == 1 else 0
    if not 0 < outputs <= _MAX_ACTIONS:
        raise UsageError(
            f"{path}: {names['output.bias']} has shape {list(bias.shape)}; a network has 1 to 1,000 actions"
        )
    network = NatureNetwork(PLAIN, _OBS_SHAPE, outputs)
    for ours, parameter in network.named_parameters():
        _set(parameter, state[names[ours]], f"{path}: {names[ours]}")
    return network.requires_grad_(False)


@torch.no_grad()
def _set(parameter: Tensor, tensor: Tensor, name: str) -> None:
    """Copy `tensor` into `parameter`. Raises UsageError, naming it, if its shape differs or a number is not finite."""
    if tensor.shape != parameter.shape:
        raise UsageError(f"{name} has shape {list(tensor.shape)}; the Nature network has {list(parameter.shape)}")
    stored = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and tensor.is_cpu
    if not stored or tensor.dtype not in _DTYPES:
        raise UsageError(f"{name} is no plain tensor of floating-point numbers")
    # An expanded tensor is small on disk but can be arbitrarily large in memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UsageError(f"{name} repeats its numbers instead of holding them")
    parameter.copy_(tensor)
    if not parameter.isfinite().all():
        raise UsageError(f"{name} holds what is no finite number in float32")


def _without_prefix(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors by name, without the prefix that torch's module wrappers add to all names."""
    for prefix in _WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefix({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return state


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file by name. Raises UsageError if it cannot be read or contains anything else."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            state: Any = load_safetensors(reading.read_bytes(path, MAX_BYTES), _MAX_HEADER_BYTES)
        elif suffix == ".zip":
            state = _load_pickled_tensors(_member(reading.read_bytes(path, MAX_BYTES), "policy.pth"))
        elif suffix in (".pt", ".pth", ".cleanrl_model"):
            state = _load_pickled_tensors(reading.read_bytes(path, MAX_BYTES))
        else:
            valid = ".safetensors, .pt, .pth, .cleanrl_model, .zip (Stable-Baselines3)"
            raise UsageError(f"{path} is not a supported kind of file; valid: {valid}")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or first_line(error)}") from None
    except _NoMemberError:
        raise UsageError(f"{path} has no policy.pth in it: it was not saved by Stable-Baselines3") from None
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} holds more than tensors, and that is never loaded; save it again with "
            "torch.save(network.state_dict(), ...)"
        ) from None
    except _DAMAGES as error:
        raise UsageError(f"{path} is damaged: {first_line(error)}") from None
    named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path} holds no state_dict: a mapping of names to tensors")
    return cast("Mapping[str, Tensor]", state)


class _NoMemberError(Exception):
    """A zip does not have a file."""


def _member(data: bytes, name: str) -> bytes:
    """A file in a zip. Its unpacked size is limited."""
    with _opened_zip(data) as archive:
        if name not in archive.namelist():
            raise _NoMemberError
        return archive.read(name)


def _opened_zip(data: bytes) -> zipfile.ZipFile:
    """Open a zip. Raises ValueError if its unpacked files are too large; zipfile unpacks at most the declared size."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
        raise ValueError(f"unpacked, it has more than {MAX_BYTES / MIB:,.0f} MiB")
    return archive


def _load_pickled_tensors(data: bytes) -> Any:
    """Load plain tensors from torch.save. Anything that could run code or be too large is refused."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with _opened_zip(data) as archive:
            stored = [info.compress_type == zipfile.ZIP_STORED for info in archive.infolist()]
            pickles = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
        if not all(stored):
            raise ValueError("its parts are compressed, as torch never does")
        for each in pickles:
            _require_plain(each, len(data))
    else:  # as torch.save wrote before version 1.6: pickles, then the numbers
        rest = io.BytesIO(data)
        for _ in range(_PICKLES_BEFORE_NUMBERS):
            begin = rest.tell()
            for _ in pickletools.genops(rest):
                pass
            _require_plain(data[begin : rest.tell()], len(data))
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _require_plain(data: bytes, num_bytes: int) -> None:
    """Raise UnpicklingError unless a pickle contains only plain tensors, which fit into `num_bytes`."""
    for code, argument, _ in pickletools.genops(data):
        if code.name in ("GLOBAL", "STACK_GLOBAL", "INST") and not _PLAIN.fullmatch(str(argument)):
            raise pickle.UnpicklingError(str(argument))
        if isinstance(argument, int) and num_bytes < argument != torch.serialization.MAGIC_NUMBER:
            raise ValueError("it declares more numbers than it has bytes")


@torch.no_grad()
def assign(network: QNetwork, plain: QNetwork) -> None:
    """Set `network` to compute the same as `plain`, layer by layer; with weight normalization v = w and g = ||w||.

    Raises UsageError if the names of their layers differ.
    """
    layers, plain_layers = layers_of(network), layers_of(plain)
    if layers.keys() != plain_layers.keys():
        raise UsageError(f"the network has the layers {', '.join(plain_layers)}; here are {', '.join(layers)}")
    for name, layer in layers.items():
        layer.set_weight_(*plain_layers[name].fold())
