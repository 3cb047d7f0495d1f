"""The registry: parameterizations, networks, agents and optimizers by name, with one row each.

A row has a label, requirements, and the place of the code as ``module:object``. No row imports torch, because help
texts, settings and tables of results need only the rows. The code is imported when a run needs it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from wn_dqn.errors import UsageError

Code = str | Callable[..., Any]
"""``module:object``, imported when it is needed, or the object itself."""


@dataclass(frozen=True)
class ParameterizationRow:
    """The layers that a network is built from."""

    label: str
    """name in plots and tables"""
    linear: Code
    conv2d: Code | None
    """Both construct a :class:`wn_dqn.nn.layers.Layer`, with the arguments of torch.nn's. None: no convolutions."""
    learning_rate: float
    """the default for Adamax and Adam"""
    batch_statistics: bool = False
    """whether the training output depends on the whole minibatch"""
    learned_by_others: bool = False
    """whether a plain network of another program can be converted to it exactly, and so be imported"""
    last: Code | None = None
    """The layers that no ReLU follows; None: `linear`."""
    folded: str = "standard"
    """the parameterization of its folded networks; standard: plain weights and biases"""
    start: Literal["same", "centred", "own"] = "same"
    """whether, with equal seeds, it starts as the same function as the others: yes; with network.init_centred; no"""


@dataclass(frozen=True)
class AgentRow:
    """A learner."""

    label: str
    code: Code
    """a :class:`wn_dqn.training.agent.Agent`, called with :class:`wn_dqn.training.agent.AgentParts`"""
    distributional: bool = False
    """whether it learns distributions of returns: then its network has atoms, and its loss compares distributions"""


@dataclass(frozen=True)
class NetworkRow:
    """A network's shape, without its layers."""

    label: str
    code: Code
    """a :class:`wn_dqn.nn.networks.QNetwork`, called with (layers, obs_shape, num_actions, settings, obs_dtype)"""
    dueling: Code | None = None
    """the same network with dueling heads; None if there is no such form"""
    obs_ndim: int | None = None
    """number of dimensions of its observations: 3 for images, 1 for vectors; None means any"""
    min_side: int = 1
    """the smallest width and height of images for which ``auto`` selects it"""


@dataclass(frozen=True)
class OptimizerRow:
    """The defaults of an optimizer's settings."""

    epsilon: float
    beta1: float = 0.5
    learning_rate: float | None = None
    """None: the parameterization's"""


# Learning rates of standard and wn: Salimans & Kingma 2016, section 5.4. The others are our choice: 3e-4 where the
# function does not depend on the scale of v or w, as with wn; 1e-4 where it does.
PARAMETERIZATIONS: dict[str, ParameterizationRow] = {
    "standard": ParameterizationRow(
        "standard parameterization",
        "wn_dqn.nn.standard:Linear",
        "wn_dqn.nn.standard:Conv2d",
        learning_rate=1e-4,
        learned_by_others=True,
    ),
    "wn": ParameterizationRow(
        "weight normalization",
        "wn_dqn.nn.weight_norm:WeightNormLinear",
        "wn_dqn.nn.weight_norm:WeightNormConv2d",
        learning_rate=3e-4,
        learned_by_others=True,
    ),
    "wn-exp": ParameterizationRow(
        "weight normalization, g = exp(s)",
        "wn_dqn.nn.exponential_scale:WeightNormExpLinear",
        "wn_dqn.nn.exponential_scale:WeightNormExpConv2d",
        learning_rate=3e-4,
    ),
    "mean-only-bn": ParameterizationRow(
        "mean-only batch normalization",
        "wn_dqn.nn.batch_statistics:MeanOnlyBatchNormLinear",
        "wn_dqn.nn.batch_statistics:MeanOnlyBatchNormConv2d",
        learning_rate=1e-4,
        batch_statistics=True,
    ),
    "wn-mean-only-bn": ParameterizationRow(
        "weight norm. + mean-only batch norm.",
        "wn_dqn.nn.batch_statistics:WeightNormMeanOnlyBatchNormLinear",
        "wn_dqn.nn.batch_statistics:WeightNormMeanOnlyBatchNormConv2d",
        learning_rate=3e-4,
        batch_statistics=True,
    ),
    "bn": ParameterizationRow(
        "batch normalization",
        "wn_dqn.nn.batch_statistics:BatchNormLinear",
        "wn_dqn.nn.batch_statistics:BatchNormConv2d",
        learning_rate=3e-4,
        batch_statistics=True,
    ),
    "wn-projected": ParameterizationRow(
        "projected weight normalization",
        "wn_dqn.nn.projected:ProjectedLinear",
        "wn_dqn.nn.projected:ProjectedConv2d",
        learning_rate=3e-4,
        learned_by_others=True,
    ),
    "sn": ParameterizationRow(
        "spectral normalization",
        "wn_dqn.nn.spectral_normalization:SpectralNormLinear",
        "wn_dqn.nn.spectral_normalization:SpectralNormConv2d",
        learning_rate=1e-4,
        learned_by_others=True,
    ),
    "ws": ParameterizationRow(
        "weight standardization",
        "wn_dqn.nn.weight_standardization:WeightStandardizedLinear",
        "wn_dqn.nn.weight_standardization:WeightStandardizedConv2d",
        learning_rate=3e-4,
        start="centred",
    ),
    "ln": ParameterizationRow(
        "layer normalization",
        "wn_dqn.nn.layer_normalization:LayerNormLinear",
        "wn_dqn.nn.layer_normalization:LayerNormConv2d",
        learning_rate=1e-4,
        last="wn_dqn.nn.standard:Linear",
        folded="ln",
        start="own",
    ),
    "ln-wn-projected": ParameterizationRow(
        "normalize-and-project",
        "wn_dqn.nn.normalize_and_project:NormalizedProjectedLinear",
        "wn_dqn.nn.normalize_and_project:NormalizedProjectedConv2d",
        learning_rate=1e-4,
        last="wn_dqn.nn.normalize_and_project:FirstNormLinear",
        folded="ln",
        start="own",
    ),
    "wn-all": ParameterizationRow(
        "batch norm. of projected weights",
        "wn_dqn.nn.projected_batch_norm:ProjectedBatchNormLinear",
        "wn_dqn.nn.projected_batch_norm:ProjectedBatchNormConv2d",
        learning_rate=3e-4,
        batch_statistics=True,
        last="wn_dqn.nn.projected_batch_norm:DecayedLinear",
    ),
}

DEFAULT_PARAMETERIZATION = "wn"

AGENTS: dict[str, AgentRow] = {
    "dqn": AgentRow("DQN (Mnih et al., 2015)", "wn_dqn_agents.dqn:DQN"),
    "double-dqn": AgentRow("Double DQN (van Hasselt et al., 2016)", "wn_dqn_agents.double_dqn:DoubleDQN"),
    "c51": AgentRow("C51 (Bellemare et al., 2017)", "wn_dqn_agents.c51:C51", distributional=True),
    "double-c51": AgentRow(
        "Double C51 (Hessel et al., 2018)", "wn_dqn_agents.double_c51:DoubleC51", distributional=True
    ),
}

NETWORKS: dict[str, NetworkRow] = {
    "nature": NetworkRow(
        "Nature network (Mnih et al., 2015)",
        "wn_dqn.nn.networks:NatureNetwork",
        "wn_dqn.nn.networks:DuelingNatureNetwork",
        obs_ndim=3,
        min_side=36,
    ),
    "nature-padded": NetworkRow(
        "padded Nature network (Castro et al., 2018)",
        "wn_dqn.nn.networks:PaddedNatureNetwork",
        "wn_dqn.nn.networks:DuelingPaddedNatureNetwork",
        obs_ndim=3,
        min_side=36,
    ),
    "minatar": NetworkRow(
        "MinAtar network (Young & Tian, 2019)",
        "wn_dqn.nn.networks:MinAtarNetwork",
        "wn_dqn.nn.networks:DuelingMinAtarNetwork",
        obs_ndim=3,
        min_side=3,
    ),
    "mlp": NetworkRow(
        "multilayer perceptron", "wn_dqn.nn.networks:MlpNetwork", "wn_dqn.nn.networks:DuelingMlpNetwork", obs_ndim=1
    ),
    "impala": NetworkRow(
        "IMPALA network (Espeholt et al., 2018)",
        "wn_dqn.nn.impala:ImpalaNetwork",
        "wn_dqn.nn.impala:DuelingImpalaNetwork",
        obs_ndim=3,
        min_side=3,  # the same as minatar, which comes first, so `auto` never selects this one
    ),
}

OPTIMIZERS: dict[str, OptimizerRow] = {
    "adamax": OptimizerRow(epsilon=1e-8),
    "adamax-salimans": OptimizerRow(epsilon=1e-6),  # the paper's reference code
    "rmsprop-nature": OptimizerRow(epsilon=0.01, learning_rate=2.5e-4),  # Mnih et al. 2015, extended data table 1
    "adam": OptimizerRow(epsilon=1e-8, beta1=0.9),
    "sgd": OptimizerRow(epsilon=1e-8, learning_rate=1e-2),  # has no epsilon; the rate is our choice
}


Kind = Literal["parameterization", "network", "agent"]
"""what a user can register"""

_KINDS: dict[Kind, dict[str, Any]] = {
    "parameterization": PARAMETERIZATIONS,
    "network": NETWORKS,
    "agent": AGENTS,
}
_BUILT_IN = {kind: frozenset(rows) for kind, rows in _KINDS.items()}
# A name is written in config.yaml, on the command line, and in the name of a run's folder.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def register(kind: Kind, name: str, row: Any) -> None:
    """Add a user's row to the registry. A second call with the same name replaces the row.

    Raises UsageError for a name that is built in, or that is not valid.
    """
    if name in (*_BUILT_IN[kind], "auto"):
        raise UsageError(f"the {kind} {name} is built in; register yours under another name")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a {kind}: letters, digits, points and dashes can")
    _KINDS[kind][name] = row


def is_registered(kind: Kind, name: str) -> bool:
    """Whether a user has registered a row with this name."""
    return name in _KINDS[kind] and name not in _BUILT_IN[kind]


def import_code(code: Code) -> Any:
    """The object that a row names."""
    if not isinstance(code, str):
        return code
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)
