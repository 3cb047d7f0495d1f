"""Errors that a user can cause and fix. Each message is one line with the mistake and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FINISHED, FAILED, MISTAKE, STOPPED = range(4)
"""exit statuses: done; the run failed; a mistake of the user; stopped without loss, and to be started again"""


class UsageError(Exception):
    """The command or its arguments are invalid (exit status 2)."""

    exit_status = MISTAKE


class BusyError(UsageError):
    """Another process is training the run. The same command goes on later (exit status 3)."""

    exit_status = STOPPED


class RunError(Exception):
    """The run could not continue. Everything saved before is intact (exit status 1)."""


def closest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """The valid names most similar to `name`, as the end of an error message."""
    valid = list(valid)
    matches = difflib.get_close_matches(name[:100], valid, n=count, cutoff=0.5)
    return f"did you mean {' or '.join(matches)}?" if matches else f"valid: {', '.join(valid)}"


def first_line(error: Exception) -> str:
    """The first line of the error's message, or its class name if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]
