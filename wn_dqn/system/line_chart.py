"""A small line chart of characters, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wn_dqn.system.text import score_text


@dataclass(frozen=True)
class _Pen:
    """The characters of a line: along, upward, and its corners."""

    level: str
    rise: str
    up_ends: str
    up_begins: str
    down_begins: str
    down_ends: str
    axis: str


_ROUND = _Pen("─", "│", "╭", "╯", "╮", "╰", "┤")
_ASCII = _Pen("-", "|", ".", "'", ".", "'", "|")


def line_chart(values: Sequence[float], width: int, height: int, *, ascii_only: bool = False) -> list[str]:
    """A chart of `values` in `width` columns and `height` rows, labelled with the largest and the smallest value.

    Values are connected by straight lines. Values that are not finite are left out. The result is empty if fewer than
    two values are left, or if there is no room for eight columns.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return []
    low, high = min(finite), max(finite)
    labels = [score_text(high), score_text(low)]
    margin = max(map(len, labels))
    columns = width - margin - 2
    if columns < 8 or height < 2:
        return []
    span = high - low or 1.0
    rows = [round((_at(finite, x / (columns - 1)) - low) / span * (height - 1)) for x in range(columns)]
    cells = [[" "] * columns for _ in range(height)]
    pen = _ASCII if ascii_only else _ROUND
    for x, row in enumerate(rows):
        before = rows[x - 1] if x else row
        _draw(cells, x, before, row, pen)
    lines = []
    for row in range(height - 1, -1, -1):
        label = labels[0] if row == height - 1 else labels[1] if row == 0 else ""
        lines.append(f"{label:>{margin}} {pen.axis}{''.join(cells[row])}".rstrip())
    return lines


def _at(values: Sequence[float], share: float) -> float:
    """The value at `share` (0 to 1) of the way from the first one to the last."""
    place = share * (len(values) - 1)
    left = min(int(place), len(values) - 2)
    return values[left] + (place - left) * (values[left + 1] - values[left])


def _draw(cells: list[list[str]], x: int, before: int, row: int, pen: _Pen) -> None:
    """Draw the line from row `before` to `row` in column `x`; row 0 is the lowest."""
    if before == row:
        cells[row][x] = pen.level
        return
    for between in range(min(before, row) + 1, max(before, row)):
        cells[between][x] = pen.rise
    rising = row > before
    cells[before][x] = pen.up_begins if rising else pen.down_begins
    cells[row][x] = pen.up_ends if rising else pen.down_ends
