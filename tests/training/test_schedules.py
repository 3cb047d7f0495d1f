"""The exploration schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wn_dqn.training.schedules import LinearSchedule

PAPER = LinearSchedule(1.0, 0.1, begin_steps=50_000, decay_steps=1_000_000)


@pytest.mark.parametrize(
    ("steps", "epsilon"),
    [
        (0, 1.0),
        (50_000, 1.0),
        (50_001, 1.0 - 0.9e-6),
        (300_000, 0.775),
        (550_000, 0.55),
        (1_049_999, 0.1 + 0.9e-6),
        (1_050_000, 0.1),
        (50_000_000, 0.1),
    ],
)
def test_the_papers_epsilon(steps: int, epsilon: float) -> None:
    assert PAPER(steps) == pytest.approx(epsilon, rel=1e-12)


def test_it_can_rise() -> None:
    assert [LinearSchedule(0.0, 4.0, 1, 4)(steps) for steps in range(7)] == [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 4.0]


probabilities = st.floats(0.0, 1.0)


@given(probabilities, probabilities, st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 10**10))
def test_it_is_linear_between_constant_ends(start: float, end: float, begin: int, decay: int, steps: int) -> None:
    schedule = LinearSchedule(start, end, begin, decay)
    assert schedule(begin) == start
    assert schedule(begin + decay) == pytest.approx(end, abs=1e-15)
    assert schedule(steps) == pytest.approx(start if steps <= begin else schedule(min(steps, begin + decay)))
    assert schedule(begin + steps) + schedule(begin + decay - steps) == pytest.approx(start + end, abs=1e-9)
