"""Shows the status of a sweep's cells: as a table on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from wn_dqn.sweeps.cells import Standing
from wn_dqn.sweeps.driver import count_text
from wn_dqn.system.progress import duration_text
from wn_dqn.system.text import printable

_MAX_ROWS = 40
_ORDER = ("failed", "running", "waiting", "stopped early", "finished")


def show(standings: Sequence[Standing]) -> None:
    """Print the status of each cell."""
    console = _console()
    if console.is_terminal:
        console.print(_table(standings, len(standings)))
    else:
        for each in standings:
            console.print("  ".join(_cells(each)).rstrip(), markup=False)
    console.print(count_text(standings), markup=False)


def watch_until_done(look: Callable[[], Sequence[Standing]], period_s: float) -> None:
    """Print the status of the cells until all are done: a live table on a terminal, elsewhere one line per change."""
    console = _console()
    if not console.is_terminal:
        _print_changes(look, period_s, console)
        return
    standings = look()
    with Live(_table(standings, _MAX_ROWS), console=console, auto_refresh=False) as live:
        while _is_going_on(standings):
            time.sleep(period_s)
            standings = look()
            live.update(_table(standings, _MAX_ROWS), refresh=True)


def _print_changes(look: Callable[[], Sequence[Standing]], period_s: float, console: Console) -> None:
    before: dict[str, str] = {}
    while True:
        standings = look()
        for each in standings:
            if before.get(each.name) != each.state:
                console.print("  ".join(_cells(each)).rstrip(), markup=False)
                before[each.name] = each.state
        if not _is_going_on(standings):
            console.print(count_text(standings), markup=False)
            return
        time.sleep(period_s)


def _is_going_on(standings: Sequence[Standing]) -> bool:
    return any(each.state in ("running", "waiting") for each in standings)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, force_jupyter=False)


def _table(standings: Sequence[Standing], max_rows: int) -> Table:
    table = Table("run", "state", "steps", "", title=count_text(standings), box=None, title_justify="left")
    for each in sorted(standings, key=lambda each: _ORDER.index(each.state))[:max_rows]:
        table.add_row(*_cells(each))
    return table


def _cells(each: Standing) -> tuple[str, str, str, str]:
    """Name, state, steps, and further details."""
    steps = f"{each.steps:,} of {each.total_steps:,}"
    speed = f", {each.steps_per_s:,.0f} steps/s" if each.steps_per_s else ""
    left = f", {duration_text(each.remaining_s)} left" if each.remaining_s is not None else ""
    return each.name, each.state, steps, printable(each.reason or f"{each.host}{speed}{left}").replace("\n", " ")
