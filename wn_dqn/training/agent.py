"""What the loop needs from any agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.replay.transitions import TransitionBatch


class UpdateMetrics(NamedTuple):
    """What one update observed, float32 on the learner's device, so that nobody waits for it."""

    loss: Tensor
    mean_q: Tensor
    """mean over the batch of max_a Q(s, a)"""
    td_error: Tensor
    """y - Q(s, a) [B], not clipped"""


class Measured(NamedTuple):
    """What the instruments of a log period look at."""

    batch: TransitionBatch
    """a minibatch for one more update, whose outcome is measured and thrown away"""
    states: Tensor
    """held-out states [B, *obs_shape]"""


class Agent(Protocol):
    """A learner that also acts."""

    def initialize(self, obs: Tensor) -> Mapping[str, int]:
        """Initialize from an early replay batch [B, *obs_shape]; target := online. Returns numbers for the log."""
        ...

    def act(self, obs: Tensor, epsilon: float) -> NDArray[np.int64]:
        """Epsilon-greedy actions [N] for observations [N, *obs_shape]."""
        ...

    def q_values(self, obs: Tensor) -> Tensor:
        """Q-values float32 [B, A] of the online network, without gradients."""
        ...

    def update(self, batch: TransitionBatch) -> UpdateMetrics:
        """One gradient step."""
        ...

    def update_target(self) -> None:
        """Copy the online network to the target network."""
        ...

    def diagnostics(self, measured: Measured | None) -> dict[str, float]:
        """Metrics of the network for every log period, by tag; NaN where they need what is not there yet."""
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
