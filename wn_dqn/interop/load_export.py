"""Loads exported networks: a .safetensors or .onnx file, and the contract beside it."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator
from torch import Tensor

from wn_dqn.config.files import stored_settings
from wn_dqn.config.plugins import import_plugins, plugins_of
from wn_dqn.config.schema import Settings
from wn_dqn.config.trust import require_trust
from wn_dqn.errors import RunError, UsageError, first_line
from wn_dqn.interop.export import CONTRACT_BYTES, contract_of
from wn_dqn.interop.import_weights import MAX_BYTES, read_tensors
from wn_dqn.nn.layers import LayerKit, layer_kit
from wn_dqn.nn.networks import QNetwork, make_network
from wn_dqn.nn.standard import PLAIN
from wn_dqn.runs.policy import Policy
from wn_dqn.runs.snapshot import MISFITS
from wn_dqn.system import reading
from wn_dqn.system.reading import Record, Steps


def _of_batch(shape: list[object]) -> list[object]:
    """`shape`, if it is "batch" and sizes. Raises ValueError otherwise."""
    sizes = [size for size in shape if type(size) is int and 0 < size <= 10**6]
    if shape[:1] != ["batch"] or not sizes or len(sizes) < len(shape) - 1:
        raise ValueError('not "batch" and sizes')
    return shape


_Shape = Annotated[list[Any], AfterValidator(_of_batch)]


class _Input(Record):
    dtype: Literal["uint8", "bool", "float32"]
    shape: _Shape


class _Output(Record):
    shape: _Shape


class _Contract(Record):
    """The required part of a contract, see :mod:`wn_dqn.interop.export`."""

    settings: dict[str, Any]
    input: _Input
    output: _Output
    trained_steps: Steps

    @property
    def obs_shape(self) -> list[int]:
        """[C, H, W] or [D]."""
        return self.input.shape[1:]

    @property
    def num_actions(self) -> int:
        """A."""
        return int(self.output.shape[1])


@dataclass(frozen=True)
class ExportedAgent:
    """An agent that acts and does not learn."""

    online: QNetwork
    device: torch.device

    @property
    def num_actions(self) -> int:
        """A."""
        return self.online.num_actions

    @torch.inference_mode()
    def q_values(self, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A] for `obs` [B, *obs_shape]."""
        q: Tensor = self.online(obs.to(self.device))
        return q


class OnnxNetwork(QNetwork):
    """A network with unknown layers, which ONNX Runtime computes on the CPU."""

    session: Any

    def build(self, layers: LayerKit) -> None:
        """Does nothing: the file contains the whole network."""

    def features(self, x: Tensor) -> Tensor:
        """Not supported: the file contains the whole network."""
        raise NotImplementedError

    def forward(self, obs: Tensor) -> Tensor:
        """Q-values [B, A] from observations [B, *obs_shape]."""
        (q,) = self.session.run(None, {"obs": obs.numpy()})
        return torch.from_numpy(q)

    def with_layers(self, layers: LayerKit) -> Self:
        """Raises UsageError: an ONNX file has no layers."""
        raise UsageError("a network from an ONNX file has no layers; load the run, or a .safetensors file of it")


def load_exported(path: Path, device: torch.device, named: Collection[str] = (), trust: bool = False) -> Policy:
    """The policy in a file that :func:`wn_dqn.interop.export.export` wrote.

    Raises UsageError, with the reason, if it is another file, or if its contract is missing, damaged or does not fit.
    Raises it also if it refers to external code that is not among `named`, unless `trust` is set.
    """
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", ".onnx"):
        raise UsageError(
            f"{path} cannot be loaded as a policy; valid: a run directory, a checkpoint, and a .safetensors or .onnx "
            "file that wn-dqn export wrote (wn-dqn import reads networks of other programs)"
        )
    contract_path = contract_of(path)
    try:
        contract = reading.read_json(contract_path, CONTRACT_BYTES, _Contract)
    except OSError as error:
        raise UsageError(f"cannot read {contract_path}: {error.strerror}; wn-dqn export writes it") from None
    if trust:
        import_plugins(plugins_of(contract.settings))
    settings = stored_settings(contract.settings)
    require_trust(settings, named, trust)
    if suffix == ".onnx":
        device = torch.device("cpu")
        network: QNetwork = _onnx_network(path, contract, settings)
    else:
        network = _plain_network(path, contract, settings, read_tensors(path))
    return Policy(ExportedAgent(network.to(device).eval(), device), settings, contract.trained_steps, path, device)


def _plain_network(path: Path, contract: _Contract, settings: Settings, weights: Mapping[str, Tensor]) -> QNetwork:
    shape, num_actions, dtype = contract.obs_shape, contract.num_actions, getattr(torch, contract.input.dtype)
    normalize = settings.environment.normalize_observations
    network = make_network(
        layer_kit(layer_kit(settings.param).folded), shape, dtype, num_actions, settings.network, normalize=normalize
    )
    network.requires_grad_(False)
    try:
        network.load_state_dict(weights)
        if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
            raise RunError("it contains a number that is not finite")
    except (*MISFITS, RunError) as error:
        raise UsageError(f"{path} is not the network of {path.name}.json: {first_line(error)}") from None
    return network


def _onnx_network(path: Path, contract: _Contract, settings: Settings) -> OnnxNetwork:
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError(f"to load {path} needs ONNX Runtime: pip install onnxruntime, or load a .safetensors file")
    runtime = importlib.import_module("onnxruntime")
    shape, num_actions, dtype = contract.obs_shape, contract.num_actions, getattr(torch, contract.input.dtype)
    network = OnnxNetwork(PLAIN, shape, num_actions, settings.network, dtype)
    try:
        network.session = runtime.InferenceSession(
            reading.read_bytes(path, MAX_BYTES), providers=["CPUExecutionProvider"]
        )
        if network(torch.zeros(1, *shape, dtype=dtype)).shape != (1, num_actions):
            raise RunError("its outputs have another shape")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # ONNX Runtime's error classes have no common base
        raise UsageError(f"{path} is damaged, or not the network of {path.name}.json: {first_line(error)}") from error
    return network
