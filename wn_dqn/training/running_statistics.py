"""The running mean and variance of all observations so far, per component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class RunningStatistics:
    """Count, mean and sum of squared deviations [D] of vectors, in float64 (Chan, Golub & LeVeque 1983)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._squares = np.zeros(size)

    @property
    def variance(self) -> NDArray[np.float64]:
        """The variance (1/n) [D]; 1 before the first vector."""
        return self._squares / self.count if self.count else np.ones_like(self.mean)

    def add(self, vectors: NDArray[Any]) -> None:
        """Update the statistics with `vectors` [N, D]."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        self._squares += np.square(vectors - mean).sum(axis=0, dtype=np.float64)
        total = self.count + len(vectors)
        difference = mean - self.mean
        self._squares += np.square(difference) * (self.count * len(vectors) / total)
        self.mean = self.mean + difference * (len(vectors) / total)
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        """Count, mean and sum of squared deviations."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`. Raises ValueError if its vectors have another size."""
        mean, squares = (torch.as_tensor(state[name]).numpy().copy() for name in ("mean", "squares"))
        if not mean.shape == squares.shape == self.mean.shape or not np.isfinite([mean, squares]).all():
            raise ValueError("the statistics of its observations are not those of these games")
        self.count, self.mean, self._squares = int(state["count"]), mean, squares
