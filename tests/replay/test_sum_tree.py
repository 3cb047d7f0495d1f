"""The sum tree against a plain array and its cumulative sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from wn_dqn.replay.sum_tree import SumTree

EXACT = st.integers(0, 2**20).map(lambda k: k / 16) | st.just(0.0)
"""values whose sums are not rounded"""


def naive_find(values: NDArray[np.float64], mass: float) -> int:
    total = 0.0
    for index, value in enumerate(values):
        total += value
        if mass < total:
            return index
    raise AssertionError("there is not so much")


class SumTreeMachine(RuleBasedStateMachine):
    """Values whose sums are exact: the tree finds what the cumulative sum finds, also at the borders."""

    @initialize(size=st.integers(1, 40))
    def make(self, size: int) -> None:
        self.tree, self.plain = SumTree(size), np.zeros(size)

    @rule(data=st.data())
    def change_some(self, data: st.DataObject) -> None:
        """The same index may be among them more than once, as in a minibatch."""
        changes = data.draw(st.lists(st.tuples(st.integers(0, len(self.plain) - 1), EXACT), max_size=10))
        for index, value in changes:
            self.plain[index] = value
        index, value = (np.array([change[i] for change in changes]) for i in (0, 1))
        self.tree.set(index.astype(np.int64), value)

    @rule(data=st.data())
    def change_all(self, data: st.DataObject) -> None:
        self.plain = np.array(data.draw(st.lists(EXACT, min_size=len(self.plain), max_size=len(self.plain))))
        self.tree.set_all(self.plain)

    @rule(fractions=st.lists(st.floats(0, 1, exclude_max=True), min_size=1))
    def find_anywhere(self, fractions: list[float]) -> None:
        mass = np.minimum(np.array(fractions) * self.plain.sum(), np.nextafter(self.plain.sum(), 0.0))
        if self.plain.any():
            assert self.tree.find(mass).tolist() == [naive_find(self.plain, each) for each in mass]

    @invariant()
    def is_the_plain_array(self) -> None:
        assert self.tree.values.tolist() == self.plain.tolist()
        assert self.tree.total == self.plain.sum()
        positive = np.flatnonzero(self.plain)
        ends = np.cumsum(self.plain)[positive]
        if len(positive):
            assert self.tree.find(ends - self.plain[positive]).tolist() == positive.tolist()
            assert self.tree.find(np.nextafter(ends, 0.0)).tolist() == positive.tolist()


TestSumTreeMachine = SumTreeMachine.TestCase


@given(
    values=st.lists(st.just(0.0) | st.floats(1e-9, 1e9), min_size=1, max_size=70).filter(any),
    fractions=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_whatever_is_rounded_a_value_of_0_is_never_found_and_nothing_drifts(
    values: list[float], fractions: list[float], order: object
) -> None:
    """Up to and at the total; the tree is the same after any history, and its sums differ by roundings only."""
    history, made_at_once = SumTree(len(values)), SumTree(len(values))
    made_at_once.set_all(np.array(values))
    history.set_all(np.full(len(values), 1e15))
    shuffled = list(range(len(values)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    for index in shuffled:
        history.set(np.array([index]), np.array([values[index]]))
    mass = np.array([*fractions, 1.0]) * made_at_once.total
    found = history.find(mass)
    assert (history.total, found.tolist()) == (made_at_once.total, made_at_once.find(mass).tolist())
    assert (np.array(values)[found] > 0.0).all()
    ends = np.cumsum(values)
    slack = 1e-12 * ends[-1]
    assert history.total == pytest.approx(ends[-1], rel=1e-12)
    assert (mass <= ends[found] + slack).all()
    assert (mass >= ends[found] - np.array(values)[found] - slack).all()
