"""The host of the loop: what the loop asks of whoever runs it, and how it is asked to stop.

Callbacks of a user are another thing: :mod:`wn_dqn.runs.callback`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.training.state import TrainingState


class Stop(Exception):  # noqa: N818 - not an error: somebody asked the run to stop
    """Raised by `Host.check_stop` and passed on once the run is saved."""


class Host(Protocol):
    """Who runs the loop. Nothing here changes what is learned."""

    def evaluate(self, steps: int) -> Evaluation:
        """Test the agent; the outcome depends on the network, the seed and `steps` alone. May raise Stop."""
        ...

    def save(self, state: TrainingState, score: float | None) -> None:
        """Save everything an identical continuation needs."""
        ...

    def on_initialized(self, outcome: Mapping[str, int]) -> None:
        """Told what the agent says of its initialization."""
        ...

    def after_step(self, state: TrainingState) -> None:
        """Called after every step: progress, writing behind."""
        ...

    def check_stop(self) -> None:
        """Raise Stop if the run has been asked to stop."""
        ...
