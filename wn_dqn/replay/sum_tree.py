"""A sum tree: draws indices in proportion to their values, and changes values, in time log n (Schaul et al. 2016).

The tree is binary, complete, and one array: node k has the children 2k and 2k + 1, the root is node 1, and the values
are the last level. Many indices are drawn or changed at once, a level of the tree at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class SumTree:
    """`size` values, float64, not negative, all 0 at first.

    A parent is always computed as the sum of its two children, never changed by a difference: the tree is a function
    of its values alone, whatever they were before, and its sums stay as exact as if they had just been made.
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
        """All values [size]: a view, to be read only."""
        return self._nodes[self._first_leaf : self._first_leaf + self._size]

    def set(self, index: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        """Change the values at `index` [K]; of several for one index, the last counts."""
        node = index + self._first_leaf
        self._nodes[node] = value
        for _ in range(self._depth):
            node = node >> 1
            self._nodes[node] = self._nodes[2 * node] + self._nodes[2 * node + 1]

    def set_all(self, values: NDArray[np.float64]) -> None:
        """Change all values [size]."""
        self.values[:] = values
        for level in reversed(range(self._depth)):
            children = self._nodes[2 << level : 4 << level]
            self._nodes[1 << level : 2 << level] = children[0::2] + children[1::2]

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """The indices [K] at which the sum of the values up to and including them first exceeds `mass` [K].

        `mass` in [0, total) and uniform draws indices in proportion to their values. Sums are rounded: an index may be
        off where `mass` is within rounding of the border between two, but its value is never 0 if `total` is not.
        """
        mass = mass.copy()
        node = np.ones(mass.shape, np.int64)
        for _ in range(self._depth):
            node *= 2
            left = self._nodes[node]
            # Rounded up to `total`, or past what is left of it, `mass` still ends at the last value that is not 0.
            right = (mass >= left) & (self._nodes[node + 1] > 0.0)
            mass -= np.where(right, left, 0.0)
            node += right
        return node - self._first_leaf
