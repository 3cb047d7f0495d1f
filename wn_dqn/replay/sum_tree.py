"""A sum tree: draws indices in proportion to their values, and changes values, in O(log n) (Schaul et al. 2016).

The complete binary tree is one array: node k has the children 2k and 2k + 1, the root is node 1, and the values are the
last level. Operations are vectorized over indices, one level of the tree at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """`size` nonnegative float64 values, initially 0.

    A parent is always recomputed as the sum of its two children, and never updated by a difference. So the tree depends
    on its current values alone, and rounding errors do not accumulate.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._depth = (size - 1).bit_length()
        self._first_leaf = 1 << self._depth
        self._nodes = np.zeros(2 * self._first_leaf)

    @property
    def total(self) -> float:
        """The sum of all values, added pairwise."""
        return float(self._nodes[1])

    @property
    def values(self) -> NDArray[np.float64]:
        """All values [size]: a view, which must not be written to."""
        return self._nodes[self._first_leaf : self._first_leaf + self._size]

    def set(self, index: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        """Set the values at `index` [K]. If an index occurs several times, the last value counts."""
        node = index + self._first_leaf
        self._nodes[node] = value
        for _ in range(self._depth):
            node = node >> 1
            self._nodes[node] = self._nodes[2 * node] + self._nodes[2 * node + 1]

    def set_all(self, values: NDArray[np.float64]) -> None:
        """Set all values [size]."""
        self.values[:] = values
        for level in reversed(range(self._depth)):
            children = self._nodes[2 << level : 4 << level]
            self._nodes[1 << level : 2 << level] = children[0::2] + children[1::2]

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """The first indices [K] whose cumulative sum exceeds `mass` [K].

        If `mass` is uniform in [0, total), indices are drawn in proportion to their values. Sums are rounded. So the
        result can be off by rounding at the border between two indices, but its value is never 0 unless `total` is.
        """
        mass = mass.copy()
        node = np.ones(mass.shape, np.int64)
        for _ in range(self._depth):
            node *= 2
            left = self._nodes[node]
            # If rounding puts `mass` at or above the remaining sum, the search still ends at the last nonzero value.
            right = (mass >= left) & (self._nodes[node + 1] > 0.0)
            mass -= np.where(right, left, 0.0)
            node += right
        return node - self._first_leaf
