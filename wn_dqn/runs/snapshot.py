"""The content of a checkpoint as one typed record. Only this module reads older formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from torch import Tensor

from wn_dqn.runs.checkpoint import CheckpointError, VerifiedFile, load_checkpoint, read_state_json
from wn_dqn.runs.replay_files import ReplayIndex
from wn_dqn.system import reading
from wn_dqn.system.reading import Number, Record, Steps, Text

MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""errors that an agent or a generator can raise for a state that does not fit it"""
_ANYTHING = ConfigDict(arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Snapshot:
    """Everything that an exact resume needs: nested dicts of tensors, arrays and JSON values."""

    settings: dict[str, Any]
    arithmetic: dict[str, Any]
    """versions, threads and instructions that the last bits depend on; empty if not recorded"""
    training: dict[str, Any]
    """:meth:`wn_dqn.training.state.TrainingState.state_dict`"""
    agent: dict[str, Any]
    """:meth:`wn_dqn.training.agent.Agent.state_dict`"""
    metrics: dict[str, Any]
    """the length of each table"""
    replay: ReplayIndex | None
    """the files of the replay buffer; None if it was not saved"""
    priorities: dict[str, Any]
    """:meth:`wn_dqn.replay.buffer.ReplayBuffer.state_dict`"""
    held_out: VerifiedFile | None
    """the file of the held-out states; None before learning started"""

    def content(self) -> dict[str, Any]:
        """The content that is written."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class _Period(Record):
    """:class:`wn_dqn.training.state.PeriodStatistics` in a checkpoint; its sums may be NaN."""

    model_config = _ANYTHING
    returns: list[float]
    game_steps: list[Steps]
    steps: Steps
    updates: Steps
    train_s: Number
    loss_sum: Tensor | None = None
    q_sum: Tensor | None = None


class _Training(Record):
    """:meth:`wn_dqn.training.state.TrainingState.state_dict` in a checkpoint."""

    model_config = _ANYTHING
    steps: Steps
    updates: Steps
    learning_from_steps: Steps
    initialized: bool
    evaluated_at: Annotated[int, Field(ge=-1, le=10**15)]
    epoch_began_at: Annotated[int, Field(ge=-1, le=10**15)]
    obs_crc32: Steps
    train_s: Number
    epoch_actions: Tensor
    game_return: Tensor
    game_steps: Tensor
    period: _Period
    replay_generator: dict[str, Any]


class _Content(Record):
    """The fields of a :class:`Snapshot`. The checks here are those that do not depend on the settings."""

    model_config = _ANYTHING
    settings: dict[str, Any]
    arithmetic: dict[str, Any]
    training: _Training
    agent: dict[str, Any]
    metrics: dict[Text, Steps | dict[Text, Steps]]
    replay: ReplayIndex | None
    priorities: dict[str, Any]
    held_out: VerifiedFile | None


class _OfReplay(Record):
    """The part of a state that housekeeping needs."""

    replay: ReplayIndex | None


def _from_content(content: Mapping[str, Any]) -> Snapshot:
    """The snapshot in `content`. Raises OSError if the content is invalid.

    Earlier versions wrote no `priorities` and no `arithmetic`.
    """
    known = {"priorities": {}, "arithmetic": {}, **content}
    reading.validated(_Content, known)
    return Snapshot(**{field.name: known[field.name] for field in fields(Snapshot)})


def load_snapshot(path: Path) -> Snapshot:
    """Read and verify the snapshot in the checkpoint at `path`. Raises CheckpointError if it cannot be read."""
    try:
        return _from_content(load_checkpoint(path))
    except OSError as error:
        raise CheckpointError(f"{path}: not a checkpoint of this agent: {error.strerror}") from None


def replay_index(path: Path) -> ReplayIndex | None:
    """The replay's entry in the checkpoint at `path`; None if it has none that is readable."""
    try:
        return read_state_json(path, _OfReplay).replay
    except OSError:
        return None
