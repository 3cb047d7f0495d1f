"""The host of the loop: the interface through which the loop saves, evaluates and stops.

A user's callbacks are in :mod:`wn_dqn.runs.callback`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.training.state import TrainingState


class Stop(Exception):  # noqa: N818 - a request to stop, not an error
    """Raised by `Host.check_stop`. The loop saves the run, then raises it again."""


class Host(Protocol):
    """The owner of the loop. Its methods do not change what is learned."""

    def evaluate(self, steps: int) -> Evaluation:
        """Evaluate the agent. The outcome depends only on the network, the seed and `steps`. May raise Stop."""
        ...

    def save(self, state: TrainingState, score: float | None) -> None:
        """Save everything that an exact resume needs."""
        ...

    def on_initialized(self, outcome: Mapping[str, int]) -> None:
        """Receive the counts that the agent's `initialize` returned."""
        ...

    def after_step(self, state: TrainingState) -> None:
        """Called after every step, to show progress and to write replay segments in the background."""
        ...

    def check_stop(self) -> None:
        """Raise Stop if a stop was requested."""
        ...
