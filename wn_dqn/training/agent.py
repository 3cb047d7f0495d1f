"""What the loop needs from any agent, and what an agent is made of."""

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
    """What an agent is made of: an agent looks nothing up."""

    network: QNetwork
    """the online network, on the device where the agent learns, in evaluation mode"""
    optimizer: torch.optim.Optimizer
    """of all parameters of `network`"""
    loss: Loss
    initialize: Initialization
    """sets `network` from an early replay batch"""
    exploration: np.random.Generator
    """draws the random actions"""
    noise: np.random.Generator
    """draws the noise of noisy layers"""
    precision: Precision = "float32"
    """bf16: matrix products and convolutions run in bfloat16; the others are settings of the process"""


class UpdateMetrics(NamedTuple):
    """What one update observed, float32 on the learner's device, so that nobody waits for it."""

    loss: Tensor
    mean_q: Tensor
    """mean over the batch of max_a Q(s, a)"""
    td_error: Tensor
    """y - Q(s, a) [B], not clipped"""
    priority: Tensor
    """[B], how much is left to learn from each transition, for prioritized replay: its size counts, not its sign"""


class Measured(NamedTuple):
    """What the instruments of a log period look at."""

    batch: TransitionBatch
    """a minibatch for one more update, whose outcome is measured and thrown away"""
    states: Tensor
    """held-out observations [B, *obs_shape]"""


class Agent(Protocol):
    """A learner that also acts. Observations are [B, *obs_shape], in the dtype of the environment's frames."""

    num_actions: int
    online: QNetwork
    """the network that acts: it is exported, and shown"""

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
        """Take steps of this size from now on; called only where the plan has a schedule."""
        ...

    def update_target(self) -> None:
        """Copy the online network to the target network."""
        ...

    def diagnostics(self, measured: Measured | None) -> dict[str, float]:
        """Metrics of the network for every log period, by tag; NaN while `measured` is None and they depend on it."""
        ...

    def curvature(self, batch: TransitionBatch, products: int, start: torch.Generator) -> dict[str, float]:
        """Metrics of the loss's Hessian on a minibatch, for an evaluation that asks for them, by column."""
        ...

    def histograms(self, measured: Measured | None) -> dict[str, Tensor]:
        """Tensors whose distribution is worth a look at every epoch, by tag."""
        ...

    def check_finite(self) -> None:
        """RunError if a parameter is NaN or infinite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything an identical continuation needs: nested dicts of tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        ...
