"""What a checkpoint holds, in one typed place; older formats are read here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from wn_dqn.errors import first_line
from wn_dqn.runs.checkpoint import CheckpointError, VerifiedFile, load_checkpoint, read_state_json
from wn_dqn.runs.replay_files import ReplayIndex


@dataclass(frozen=True)
class Snapshot:
    """Everything that an identical continuation needs: nested dicts of tensors, arrays and JSON values."""

    settings: dict[str, Any]
    arithmetic: dict[str, Any]
    """what the last bits depend on: versions, threads, instructions; empty if it was not recorded"""
    training: dict[str, Any]
    """:meth:`wn_dqn.training.state.TrainingState.state_dict`"""
    agent: dict[str, Any]
    """:meth:`wn_dqn.training.agent.Agent.state_dict`"""
    metrics: dict[str, Any]
    """how long each table is"""
    replay: ReplayIndex | None
    """the files of the replay buffer; None if it was not saved"""
    priorities: dict[str, Any]
    """:meth:`wn_dqn.replay.buffer.ReplayBuffer.state_dict`"""
    held_out: VerifiedFile | None
    """the file of the held-out states; None before learning started"""

    def content(self) -> dict[str, Any]:
        """What is written."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _from_content(content: Mapping[str, Any]) -> Snapshot:
    """The snapshot in `content`; earlier versions wrote neither `priorities` nor `arithmetic`."""
    known = {"priorities": {}, "arithmetic": {}, **content}
    return Snapshot(**{field.name: known[field.name] for field in fields(Snapshot)})


def load_snapshot(path: Path) -> Snapshot:
    """The snapshot in the checkpoint at `path`, every byte of it verified; CheckpointError if it cannot be read."""
    try:
        return _from_content(load_checkpoint(path))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this agent: {first_line(error)}") from None


def replay_index(path: Path) -> ReplayIndex | None:
    """What the checkpoint at `path` needs of the replay; None if it names nothing readable."""
    try:
        index: ReplayIndex = read_state_json(path)["replay"]
        named = all(isinstance(segment["name"], str) for segment in index["segments"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return index if named else None
