"""Exports networks with folded weights as ONNX or safetensors, with a contract that describes their use."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as dump_safetensors

from wn_dqn import __version__
from wn_dqn.config.games import all_games, game_of
from wn_dqn.config.schema import NetworkSettings
from wn_dqn.envs.factory import spec_of
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.errors import UsageError, first_line
from wn_dqn.evaluation.protocols import EvaluationProtocol, training_protocol
from wn_dqn.nn.folding import fold
from wn_dqn.nn.networks import QNetwork
from wn_dqn.runs.checkpoint import list_checkpoints
from wn_dqn.runs.policy import Policy
from wn_dqn.system import output_file, reading
from wn_dqn.system.reading import GIB, MIB

CONTRACT_BYTES = 256 * MIB  # it contains the scores of a run's evaluations
Format = Literal["onnx", "safetensors"]
HUB_MODEL, HUB_CONTRACT = "model.safetensors", "config.json"
"""names of a network and its contract in a repository of the Hugging Face Hub"""


def contract_of(path: Path) -> Path:
    """The path of an exported network's contract: beside it, or ``config.json`` in a repository of the Hub."""
    beside, hub = path.with_name(path.name + ".json"), path.with_name(HUB_CONTRACT)
    return hub if path.name == HUB_MODEL and not beside.exists() and hub.exists() else beside


def export(
    policy: Policy, path: Path, format_: Format, scores: list[dict[str, Any]], contract_path: Path | None = None
) -> Path:
    """Write the network to `path`, and its contract beside it or to `contract_path`. Returns the contract's path.

    `scores` are evaluations of this checkpoint (lines of ``reevaluations.jsonl``). Raises UsageError if `path` cannot
    be written, if the ONNX exporter is not installed, or if it does not support the network.
    """
    network = fold(policy.agent.online)
    data = onnx_model(network) if format_ == "onnx" else safetensors_model(network)
    contract_path = contract_path or path.with_name(path.name + ".json")
    contract = _contract(policy, scores) | {
        "file": path.name,
        "format": format_,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    _require_ours(path, contract_path)
    output_file.write(path, data)
    output_file.write(contract_path, (json.dumps(contract, indent=2) + "\n").encode())
    return contract_path


def find_format(path: Path) -> Format:
    """The format of the extension of `path`. Raises UsageError if there is none."""
    if path.suffix not in (".onnx", ".safetensors"):
        raise UsageError(f"{path} ends in neither .onnx nor .safetensors: give --format")
    return "onnx" if path.suffix == ".onnx" else "safetensors"


def _require_ours(path: Path, contract_path: Path) -> None:
    """Raise UsageError unless the path is free, or has an older export: a file whose SHA-256 is in its contract."""
    taken, described = (any(output_file.read_ends(each)) for each in (path, contract_path))
    try:
        contract = reading.read_json(contract_path, CONTRACT_BYTES, dict[str, Any]) if described else {}
        known = contract["sha256"] if "wn_dqn_version" in contract else None
    except (OSError, LookupError):
        known = None
    ours = _sha256(path) == known if taken else not described or known is not None
    if not ours:
        raise UsageError(
            f"{path if taken else contract_path} is there, and wn-dqn did not make it; choose another name, or "
            "remove it first"
        )


def _training_score(policy: Policy) -> dict[str, Any] | None:
    """The evaluation after the checkpoint's epoch, by which a best checkpoint was selected."""
    infos = list_checkpoints(policy.path.parent)
    score = next((info.score for info in infos if info.path.name == policy.path.name), None)
    if score is None:
        return None
    rules = training_protocol(policy.settings.environment, policy.settings.evaluation).rules()
    return {"mean": score, "protocol": "the run's own, after an epoch", "protocol_settings": rules}


def _contract(policy: Policy, scores: list[dict[str, Any]]) -> dict[str, Any]:
    """The data that a program needs to play with the network, and its scores."""
    settings = policy.settings
    game = game_of(settings)
    rules = training_protocol(settings.environment, settings.evaluation)
    spec = spec_of(game, rules.env_rules)
    frames = f"the last {spec.stack} observed frames, oldest first; zeros where the game had not begun"
    return {
        "game": game.name,
        "rom_id": game.rom_id,
        "input": {
            "name": "obs",
            "dtype": spec.frame_dtype,
            "shape": ["batch", *spec.obs_shape],
            "meaning": frames if spec.stack > 1 else "the observed frame",
        },
        "output": {
            "name": "q",
            "dtype": "float32",
            "shape": ["batch", spec.num_actions],
            "meaning": f"discounted sum of rewards{' clipped to [-1, 1]' if spec.clip_rewards else ''}, per action; "
            "play the largest",
        },
        "preprocessing": _preprocessing(spec, rules) if game.rom_id in all_games() else None,
        "actions": list(spec.action_names),
        "discount": settings.learning.discount,
        "param": settings.param,
        "dueling": _dueling(settings.network),
        "distribution": _distribution(settings.network),
        "trained_steps": policy.steps,
        "checkpoint": {"name": policy.path.name, "manifest_sha256": _sha256(policy.path / "manifest.json")},
        "training_score": _training_score(policy),
        "scores": scores,
        "settings": settings.model_dump(),
        "wn_dqn_version": __version__,
    }


def _dueling(network: NetworkSettings) -> str | None:
    """The formula that combines the outputs of dueling heads; None if there are none."""
    if not network.dueling:
        return None
    return f"{'q' if network.atoms is None else 'logits'} = value + advantage - mean(advantage)"


def _distribution(network: NetworkSettings) -> dict[str, Any] | None:
    """The distributions whose means are the Q-values; None if the network outputs Q-values."""
    if network.atoms is None:
        return None
    return {"atoms": network.atoms, "v_min": network.v_min, "v_max": network.v_max, "q": "mean of softmax(logits)"}


def _preprocessing(spec: EnvSpec, rules: EvaluationProtocol) -> dict[str, Any]:
    """The conversion of emulator frames to an observation, as in :mod:`wn_dqn.envs.atari_reference`."""
    return {
        "frame_skip": spec.frames_per_step,
        "frame": "the larger of the last two frames of a step, pixel by pixel, of the emulator's grayscale",
        "resize": f"{spec.frame_shape[2]}x{spec.frame_shape[1]}, area interpolation (OpenCV's INTER_AREA)",
        "scale": "none: the network divides by 255",
        "repeat_action_probability": rules.repeat_action_probability,
        "full_action_set": rules.full_action_set,
    }


def _sha256(path: Path) -> str:
    """The SHA-256 of a file. Raises UsageError if it cannot be read."""
    try:
        return reading.sha256(path, 4 * GIB)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def safetensors_model(network: QNetwork) -> bytes:
    """The network's state_dict, in torch's names and order of dimensions."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return dump_safetensors(state, {"format": "pt"})


def require_onnx() -> None:
    """Raise UsageError, with the remedy, if torch's ONNX exporter lacks a package."""
    for name in ("onnx", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(f"ONNX needs the {name} package: pip install 'wn-dqn[onnx]', or use --format safetensors")


def onnx_model(network: QNetwork) -> bytes:
    """The network as an ONNX graph: ``obs`` [batch, *obs_shape] of its dtype -> ``q`` float32 [batch, A].

    The same network gives the same bytes. Raises UsageError if torch's exporter does not support it.
    """
    require_onnx()
    import onnx

    example = torch.zeros(2, *network.obs_shape, dtype=network.obs_dtype)
    try:
        with _silent_exporter():
            program = torch.onnx.export(
                network.eval(),
                (example,),
                input_names=["obs"],
                output_names=["q"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=18,  # from 2022; the oldest that this exporter writes without a conversion
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise UsageError(f"this network has no ONNX form ({reason}); use --format safetensors") from None
    assert program is not None
    model = program.model_proto
    _forget_origin(model.graph)
    model.producer_name, model.producer_version = "wn_dqn", __version__
    model.ir_version = 8  # of the same year as the operators
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Suppress warnings about torch's own deprecated calls, and about operators of missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(graph: Any) -> None:
    """Remove the exporter's notes, which contain source code and local paths."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
