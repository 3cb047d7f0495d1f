"""What the loop tells about itself, apart from where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Metrics(Protocol):
    """What the loop tells about itself."""

    def write(self, steps: int, row: Mapping[str, float]) -> None:
        """A row of figures of a log period; NaN where there is nothing to tell. Keys are the same in every row."""
        ...

    def write_evaluation(self, steps: int, row: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """The outcome of an evaluation, and the distributions of the network's parameters."""
        ...


class NullMetrics:
    """Metrics that nobody reads."""

    def write(self, steps: int, row: Mapping[str, float]) -> None: ...
    def write_evaluation(self, steps: int, row: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None: ...
