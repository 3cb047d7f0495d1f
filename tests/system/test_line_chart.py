"""Line charts out of characters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wn_dqn.system.line_chart import line_chart


def test_a_line_that_rises_and_falls() -> None:
    assert line_chart([0.0, 20.0, 10.0], 20, 4) == [
        "20.0 ┤      ╭──╮",
        "     ┤    ╭─╯  ╰────",
        "     ┤  ╭─╯",
        "0.00 ┤──╯",
    ]


def test_the_same_in_ascii() -> None:
    assert line_chart([0.0, 20.0, 10.0], 20, 4, ascii_only=True) == [
        "20.0 |      .--.",
        "     |    .-'  '----",
        "     |  .-'",
        "0.00 |--'",
    ]


def test_a_level_line_is_drawn_once() -> None:
    lines = line_chart([5.0, 5.0], 20, 4)
    assert sum("─" in line for line in lines) == 1


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [math.inf, 2.0]])
def test_one_value_is_no_line(values: list[float]) -> None:
    assert line_chart(values, 40, 6) == []


@given(
    values=st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=300),
    width=st.integers(0, 100),
    height=st.integers(0, 12),
)
def test_it_fits(values: list[float], width: int, height: int) -> None:
    """Every column has a mark, and no line is too long."""
    lines = line_chart(values, width, height)
    if not lines:
        return
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    plots = [line.split("┤", 1)[1] for line in lines]
    columns = width - len(lines[0].split("┤", 1)[0]) - 1
    for x in range(columns):
        assert any(plot[x : x + 1].strip() for plot in plots)
