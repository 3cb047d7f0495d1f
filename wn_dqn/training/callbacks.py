"""What the loop asks for at its joints, and how it is asked to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.training.state import TrainingState


class Stop(Exception):  # noqa: N818 - not an error: somebody asked the run to stop
    """Raised by `Callbacks.check_stop` and passed on once the run is saved."""


class Callbacks(Protocol):
    """What the loop asks for at its joints. Nothing here changes what is learned."""

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
