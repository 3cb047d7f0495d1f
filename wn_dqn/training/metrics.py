"""The interface through which the loop writes its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Metrics(Protocol):
    """A writer of the loop's metrics."""

    def write(self, steps: int, row: Mapping[str, float]) -> None:
        """Write the row of a log period. A value that is not available is NaN. Every row has the same keys."""
        ...

    def write_evaluation(self, steps: int, row: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """Write the outcome of an evaluation, and the distributions of the network's parameters."""
        ...


class NullMetrics:
    """Discards all metrics."""

    def write(self, steps: int, row: Mapping[str, float]) -> None: ...
    def write_evaluation(self, steps: int, row: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None: ...
