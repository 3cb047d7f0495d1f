"""Errors that a user can cause and mend: one line that names the mistake and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FINISHED, FAILED, MISTAKE, STOPPED = range(4)
"""Exit statuses: all is done; the run failed; a mistake of the user's; to be started again, and nothing is lost."""


class UsageError(Exception):
    """The command cannot be carried out as it was given (exit status 2)."""

    exit_status = MISTAKE


class BusyError(UsageError):
    """Another process has the run now: the same command goes on later (exit status 3)."""

    exit_status = STOPPED


class RunError(Exception):
    """The run could not go on; what was saved before is intact (exit status 1)."""


def closest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """The valid names most like `name`, as the end of an error message."""
    valid = list(valid)
    matches = difflib.get_close_matches(name[:100], valid, n=count, cutoff=0.5)
    return f"did you mean {' or '.join(matches)}?" if matches else f"valid: {', '.join(valid)}"


def first_line(error: Exception) -> str:
    """The first line of its message, or what it is called if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
