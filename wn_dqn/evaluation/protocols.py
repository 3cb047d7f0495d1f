"""Evaluation protocols, by name or from a file, and with changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field, ValidationError

from wn_dqn.config.files import read_yaml_mapping
from wn_dqn.config.schema import Count, EnvironmentSettings, EvaluationSettings, Probability, Whole
from wn_dqn.envs.rules import EnvRules
from wn_dqn.errors import UsageError, closest

LONGEST_GAME_FRAMES = 60 * 60 * 60
"""an hour of play; used if no other limit ends a game, because a policy may never end it"""


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class EvaluationProtocol:
    """The rules of an evaluation. Exactly one of `steps` and `games` sets its length.

    Raises ValueError (pydantic's ValidationError) for a value out of range.
    """

    name: str
    epsilon: Probability
    steps: Count | None = None
    """length in agent steps; the games completed within it count"""
    games: Count | None = None
    """length in games"""
    max_game_frames: Count | None = None
    """a game is truncated after this many frames, and counts with its score so far"""
    repeat_action_probability: Probability = 0.0
    """sticky actions: the chance that the emulator repeats the last action instead"""
    full_action_set: bool = False
    """all 18 actions instead of the game's minimal set"""
    max_noop_frames: Annotated[Whole, Field(ge=0, le=1000)] = 30
    """no-op frames at a game's start: uniform on 0..this"""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.games is None):
            raise ValueError("a protocol ends after a number of steps or of games: give one of the two")

    def rules(self) -> dict[str, Any]:
        """All fields except the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    @property
    def env_rules(self) -> EnvRules:
        """The part of the protocol that the environment implements."""
        return EnvRules(
            self.repeat_action_probability, self.full_action_set, self.max_noop_frames, self.max_game_frames
        )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Salimans & Kingma 2016 and its base code: games completed in 125,000 steps, no time limit.
        EvaluationProtocol("paper", epsilon=0.05, steps=125_000),
        # Mnih et al. 2015, Methods, "Evaluation procedure": 30 games of at most 5 minutes at 60 frames per second.
        EvaluationProtocol("nature", epsilon=0.05, games=30, max_game_frames=5 * 60 * 60),
        # Machado et al. 2018: sticky actions, all 18 actions, 5 minutes, no no-ops. They report training
        # performance at its end, where epsilon is 0.01, averaged over 100 games.
        EvaluationProtocol(
            "machado2018",
            epsilon=0.01,
            games=100,
            max_game_frames=5 * 60 * 60,
            repeat_action_probability=0.25,
            full_action_set=True,
            max_noop_frames=0,
        ),
    )
}


def training_protocol(environment: EnvironmentSettings, evaluation: EvaluationSettings) -> EvaluationProtocol:
    """The rules of the training games, with the test policy and length of the evaluations after each epoch."""
    return EvaluationProtocol(
        "training",
        epsilon=evaluation.epsilon,
        steps=evaluation.steps,
        max_game_frames=environment.max_game_frames,
        repeat_action_probability=environment.repeat_action_probability,
        full_action_set=environment.full_action_set,
        max_noop_frames=environment.max_noop_frames,
    )


def bounded(protocol: EvaluationProtocol) -> EvaluationProtocol:
    """`protocol`, with an hour of play as the time limit if it has neither a length in steps nor a time limit."""
    if protocol.games is None or protocol.max_game_frames is not None:
        return protocol
    return changed_protocol(protocol, max_game_frames=LONGEST_GAME_FRAMES)


def find_protocol(name_or_path: str) -> EvaluationProtocol:
    """The protocol with this name, or the one in this YAML file. Without a `name` in it, the file's name is used.

    Raises UsageError, with the closest names, if there is none, or for the first mistake in the file.
    """
    if name_or_path in PROTOCOLS:
        return PROTOCOLS[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"unknown protocol {name_or_path!r}; {closest(name_or_path, [*PROTOCOLS, 'FILE.yaml'])}")
    return make_protocol({"name": path.stem, **read_yaml_mapping(path, "protocol")}, f"protocol {path}")


def make_protocol(values: Mapping[str, Any], source: str) -> EvaluationProtocol:
    """A protocol from its fields. Raises UsageError, naming `source`, for the first mistake."""
    valid = [field.name for field in fields(EvaluationProtocol)]
    for key in values:
        if key not in valid:
            raise UsageError(f"{source}: unknown key {str(key)!r}; {closest(str(key), valid)}")
    try:
        return EvaluationProtocol(**values)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, mistake["loc"]))
        message = mistake["msg"].removeprefix("Value error, ")
        raise UsageError(f"{source}: {key and f'{key}: '}{message}") from None


def changed_protocol(protocol: EvaluationProtocol, **changes: float | int | None) -> EvaluationProtocol:
    """`protocol` with other values. The name includes the changes, so that scores under other rules are recognized."""
    changed = ", ".join(f"{key} {value}" for key, value in changes.items() if value != getattr(protocol, key))
    if not changed:
        return protocol
    joint = ", " if " with " in protocol.name else " with "
    return make_protocol({**asdict(protocol), **changes, "name": f"{protocol.name}{joint}{changed}"}, "protocol")
