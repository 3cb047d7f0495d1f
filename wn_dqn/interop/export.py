"""Networks for other programs: ONNX or safetensors, weights folded, with a contract that says how to use them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save as dump_safetensors
from torch import Tensor, nn

from wn_dqn import __version__
from wn_dqn.config.games import find_game
from wn_dqn.envs.registry import single_game
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import EvaluationProtocol, training_protocol
from wn_dqn.nn.folding import fold
from wn_dqn.nn.networks import DuelingHead, QNetwork
from wn_dqn.runs.checkpoint import list_checkpoints
from wn_dqn.runs.policy import Policy
from wn_dqn.system import output_file

Format = Literal["onnx", "safetensors"]


def export(policy: Policy, path: Path, format_: Format, scores: list[dict[str, Any]]) -> Path:
    """Write the network to `path` and its contract beside it; returns the contract's path.

    `scores`: evaluations of this checkpoint (lines of ``reevaluations.jsonl``). UsageError if `path` cannot be
    written, or onnx is not installed.
    """
    num_actions = policy.agent.num_actions
    network = fold(policy.agent.online)
    data = onnx_model(network, num_actions) if format_ == "onnx" else safetensors_model(network)
    contract_path = path.with_name(path.name + ".json")
    contract = _contract(policy, scores) | {
        "file": path.name,
        "format": format_,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    _require_ours(path, contract_path)
    output_file.write(path, data)
    output_file.write(contract_path, (json.dumps(contract, indent=2) + "\n").encode())
    return contract_path


def _require_ours(path: Path, contract_path: Path) -> None:
    """UsageError if something else than an older export is in the way: one whose contract has the SHA-256 of it."""
    taken, described = (any(output_file.read_ends(each)) for each in (path, contract_path))
    try:
        contract = json.loads(contract_path.read_bytes()) if described else {}
        known = contract["sha256"] if "wn_dqn_version" in contract else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        known = None
    ours = _sha256(path) == known if taken else not described or known is not None
    if not ours:
        raise UsageError(
            f"{path if taken else contract_path} is there, and wn-dqn did not make it; choose another name, or "
            "remove it first"
        )


def _training_score(policy: Policy) -> dict[str, Any] | None:
    """The evaluation after the epoch that the checkpoint ends: what a best checkpoint was chosen for."""
    infos = list_checkpoints(policy.path.parent)
    score = next((info.score for info in infos if info.path.name == policy.path.name), None)
    if score is None:
        return None
    rules = training_protocol(policy.settings).rules()
    return {"mean": score, "protocol": "the run's own, after an epoch", "protocol_settings": rules}


def _contract(policy: Policy, scores: list[dict[str, Any]]) -> dict[str, Any]:
    settings = policy.settings
    game = find_game(settings.game)
    rules = training_protocol(settings)
    names = single_game(game, rules.env_rules).spec.action_names
    return {
        "game": game.name,
        "rom_id": game.rom_id,
        "input": {
            "name": "obs",
            "dtype": "uint8",
            "shape": ["batch", 4, 84, 84],
            "meaning": "the last four observed frames, oldest first; zeros where the game had not begun",
        },
        "output": {
            "name": "q",
            "dtype": "float32",
            "shape": ["batch", policy.agent.num_actions],
            "meaning": "discounted sum of rewards clipped to [-1, 1], per action; play the largest",
        },
        "preprocessing": None if game.rom_id == "catch" else _preprocessing(rules),
        "actions": list(names),
        "discount": settings.learning.discount,
        "param": settings.param,
        "dueling": "q = value + advantage - mean(advantage)" if settings.network.dueling else None,
        "trained_steps": policy.steps,
        "checkpoint": {"name": policy.path.name, "manifest_sha256": _sha256(policy.path / "manifest.json")},
        "training_score": _training_score(policy),
        "scores": scores,
        "wn_dqn_version": __version__,
    }


def _preprocessing(rules: EvaluationProtocol) -> dict[str, Any]:
    """How an emulator's frames become an observation: that of :mod:`wn_dqn.envs.atari_reference`."""
    return {
        "frame_skip": 4,
        "frame": "the larger of the last two of the four frames, pixel by pixel, of the emulator's grayscale",
        "resize": "84x84, area interpolation (OpenCV's INTER_AREA)",
        "scale": "none: the network divides by 255",
        "repeat_action_probability": rules.repeat_action_probability,
        "full_action_set": rules.full_action_set,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def safetensors_model(network: QNetwork) -> bytes:
    """The network's state_dict, in torch's names and order of dimensions."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return dump_safetensors(state, {"format": "pt"})


def require_onnx() -> None:
    """UsageError, naming the remedy, if onnx is not installed."""
    if importlib.util.find_spec("onnx") is None:
        raise UsageError("ONNX needs the onnx package: pip install 'wn-dqn[onnx]', or use --format safetensors")


def onnx_model(network: QNetwork, num_actions: int) -> bytes:
    """The network as an ONNX graph: ``obs`` uint8 [batch, 4, 84, 84] -> ``q`` float32 [batch, A].

    Built node by node, as the network's forward pass is written.
    """
    require_onnx()
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["obs"], ["x/float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["x/float", "x/255"], ["x/0"]),
    ]
    constants = [helper.make_tensor("x/255", TensorProto.FLOAT, [], [255.0])]

    def apply(name: str, x: str, y: str | None = None) -> str:
        """Layer `name`, from `x` to `y`."""
        layer, y = network.get_submodule(name), y or name
        parameters = {f"{name}.{kind}": layer.get_parameter(kind) for kind in ("weight", "bias")}
        constants.extend(numpy_helper.from_array(_array(value), key) for key, value in parameters.items())
        of_its_kind = {"strides": list(layer.stride)} if isinstance(layer, nn.Conv2d) else {"transB": 1}
        kind = "Conv" if isinstance(layer, nn.Conv2d) else "Gemm"
        nodes.append(helper.make_node(kind, [x, *parameters], [y], name=name, **of_its_kind))
        return y

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}/relu"]))
        return f"{x}/relu"

    x = "x/0"
    for name in ("conv1", "conv2", "conv3"):
        x = relu(apply(name, x))
    nodes.append(helper.make_node("Flatten", [x], ["x/flat"]))
    if isinstance(network, DuelingHead):
        value = apply("value", relu(apply("hidden_value", "x/flat")))
        advantage = apply("advantage", relu(apply("hidden_advantage", "x/flat")))
        nodes += [
            helper.make_node("ReduceMean", [advantage], ["advantage/mean"], axes=[1]),
            helper.make_node("Sub", [advantage, "advantage/mean"], ["advantage/centred"]),
            helper.make_node("Add", [value, "advantage/centred"], ["q"]),
        ]
    else:
        apply("output", relu(apply("hidden", "x/flat")), "q")
    graph = helper.make_graph(
        nodes,
        "nature_dqn",
        [helper.make_tensor_value_info("obs", TensorProto.UINT8, ["batch", 4, 84, 84])],
        [helper.make_tensor_value_info("q", TensorProto.FLOAT, ["batch", num_actions])],
        constants,
    )
    opset = helper.make_operatorsetid("", 17)
    model = helper.make_model(graph, producer_name="wn_dqn", producer_version=__version__, opset_imports=[opset])
    model.ir_version = 8  # what runtimes since 2022 read
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _array(parameter: Tensor) -> Any:
    return parameter.detach().contiguous().numpy()
