"""Whether the settings that a run goes on with are those that it was begun with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wn_dqn.config.files import differences
from wn_dqn.errors import UsageError

# They say how long a run is, what is written, and where code is found. Nobody is asked.
_CHANGEABLE = ("learning.total_steps:", "output.", "plugins:", "replay.compression:")
# The saved network, games and replay have their shape. Nobody can accept another.
_FIXED = (
    "game:",
    "param:",
    "agent:",
    "network.",
    "environment.num_envs:",
    "environment.full_action_set:",
    "environment.stack:",
    "environment.normalize_observations:",
)


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The nested settings that make it another experiment, each as ``key: old -> new``."""
    return [line for line in differences(old, new) if not line.startswith(_CHANGEABLE)]


def require_accepted(changes: Sequence[str], holder: str, *, accept: bool) -> None:
    """UsageError unless there are no `changes`, or all are of a kind that can be accepted, and `accept`.

    `holder`: what has the old settings, like "run holds a run".
    """
    fixed = [line for line in changes if line.startswith(_FIXED)]
    if fixed or (changes and not accept):
        remedy = "" if fixed else ", or go on with --accept-changes, which records them"
        raise UsageError(f"{holder} with other settings ({'; '.join(changes)}); choose another --run-dir{remedy}")
