"""The interface of an agent, as the loop uses it, and the parts from which an agent is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.config.schema import Precision
from wn_dqn.nn.initialization import Initialization
from wn_dqn.nn.networks import QNetwork
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.training.q_learning import Loss


@dataclass(frozen=True)
class AgentParts:
    """The parts of an agent. They are passed in, so that an agent reads no settings."""

    network: QNetwork
    """the online network, on the device where the agent learns, in evaluation mode"""
    optimizer: torch.optim.Optimizer
    """the optimizer of all parameters of `network`"""
    loss: Loss
    initialize: Initialization
    """initializes `network` from an early replay batch"""
    exploration: np.random.Generator
    """draws the random actions"""
    noise: np.random.Generator
    """draws the noise of noisy layers"""
    precision: Precision = "float32"
    """bf16 runs matrix products and convolutions in bfloat16; the other values are settings of the process"""


class UpdateMetrics(NamedTuple):
    """Values that one update observed, float32 tensors on the learner's device. They stay there to avoid a sync."""

    loss: Tensor
    mean_q: Tensor
    """mean over the batch of max_a Q(s, a)"""
    td_error: Tensor
    """y - Q(s, a) [B], not clipped"""
    priority: Tensor
    """[B], the error of each transition, for prioritized replay, which uses its absolute value"""


class Measured(NamedTuple):
    """The data for the instruments of a log period."""

    batch: TransitionBatch
    """a minibatch for one more update, which is measured and then undone"""
    states: Tensor
    """held-out observations [B, *obs_shape]"""


class Agent(Protocol):
    """A learner that also acts. Observations are [B, *obs_shape], in the dtype of the environment's frames."""

    num_actions: int
    online: QNetwork
    """the online network, which acts; it is the one that is exported"""

    def initialize(self, obs: Tensor) -> Mapping[str, int]:
        """Initialize from an early replay batch [B, *obs_shape]; target := online. Returns counts for the log."""
        ...

    def act(self, obs: Tensor, epsilon: float) -> NDArray[np.int64]:
        """Epsilon-greedy actions [N] for observations [N, *obs_shape]."""
        ...

    def q_values(self, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A] of the online network for observations [B, *obs_shape], without gradients."""
        ...

    def update(self, batch: TransitionBatch) -> UpdateMetrics:
        """One gradient step."""
        ...

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate from now on. Called only if the plan has a schedule."""
        ...

    def update_target(self) -> None:
        """Copy the online network to the target network."""
        ...

    def diagnostics(self, measured: Measured | None) -> dict[str, float]:
        """Metrics of the network for every log period, by tag. Those that need `measured` are NaN while it is None."""
        ...

    def curvature(self, batch: TransitionBatch, products: int, start: torch.Generator) -> dict[str, float]:
        """Metrics of the loss's Hessian on a minibatch, by column, for evaluations that request them.

        `products` is the number of Hessian-vector products. `start` draws the start vector.
        """
        ...

    def histograms(self, measured: Measured | None) -> dict[str, Tensor]:
        """Tensors whose distribution is logged after every epoch, by tag."""
        ...

    def check_finite(self) -> None:
        """Raise RunError if a parameter is NaN or infinite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs: nested dicts of tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        ...
