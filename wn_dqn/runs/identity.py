"""Compares the settings of a resumed run with those of its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wn_dqn.config.files import differences
from wn_dqn.errors import UsageError

# Settings for a run's length, its output, and the place of its code. They may change without --accept-changes.
_CHANGEABLE = ("learning.total_steps:", "output.", "plugins:", "replay.compression:")
# The saved network, games and replay depend on these. A change cannot be accepted.
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
    """The settings that make it another experiment, each as ``key: old -> new``."""
    return [line for line in differences(old, new) if not line.startswith(_CHANGEABLE)]


def require_accepted(changes: Sequence[str], holder: str, *, accept: bool) -> None:
    """Raise UsageError if there are `changes`, unless `accept` is set and all can be accepted.

    `holder` names the owner of the old settings in the message, like "run holds a run".
    """
    fixed = [line for line in changes if line.startswith(_FIXED)]
    if fixed or (changes and not accept):
        remedy = "" if fixed else ", or go on with --accept-changes, which records them"
        raise UsageError(f"{holder} with other settings ({'; '.join(changes)}); choose another --run-dir{remedy}")
