"""Runs of the paper's other systems, where a command is given some. Imported by commands when they run."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from wn_dqn.errors import UsageError
from wn_dqn.paper.pages import Arm, has_paper_runs, read_arms


def paper_arms(runs: tuple[Path, ...]) -> list[Arm]:
    """The arms of `runs`; none if they are the agent's. UsageError if an option was given that is the agent's alone."""
    if not has_paper_runs(runs):
        return []
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("runs", "output"):
            raise UsageError(f"{option.opts[0]} is for runs of the agent; the paper's other systems have fixed figures")
    return read_arms(runs)
