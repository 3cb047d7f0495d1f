"""Reads and groups the runs that a command is given. Commands that plot or report import this when they run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from wn_dqn.analysis.read_runs import Group, group_runs, read_runs
from wn_dqn.errors import UsageError
from wn_dqn.system.text import printable


def read_groups(paths: tuple[Path, ...]) -> tuple[list[Group], list[str]]:
    """The runs that can be read, in groups, and a message for each of the others. The messages are also printed.

    Raises UsageError if no run can be read.
    """
    runs, unreadable = read_runs(paths)
    groups, repeated = group_runs(runs)
    if not groups:
        raise UsageError("\n".join(unreadable))
    show_notes([*unreadable, *repeated])
    return groups, [*unreadable, *repeated]


def show_notes(notes: Iterable[str]) -> None:
    """Print each of `notes` as a line on standard error."""
    for note in notes:
        click.echo(f"wn-dqn: {printable(note)}", err=True)
