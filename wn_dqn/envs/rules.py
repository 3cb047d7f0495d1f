"""The rules of games, in training and in evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from wn_dqn.config.schema import EnvironmentSettings


@dataclass(frozen=True)
class EnvRules:
    """The rules of an environment's games. An environment ignores rules that do not apply to it, like lives."""

    repeat_action_probability: float = 0.0
    """sticky actions: the chance that the emulator repeats the last action instead"""
    full_action_set: bool = False
    """all 18 actions instead of the game's minimal set"""
    max_noop_frames: int = 30
    """no-op frames at a game's start: uniform on 0..this"""
    max_game_frames: int | None = None
    """a game is truncated after this many frames; None: never"""
    terminal_on_life_loss: bool = False
    """a lost life ends the episode for the learner, not the game"""


def training_rules(environment: EnvironmentSettings) -> EnvRules:
    """The rules of the training games."""
    return EnvRules(
        repeat_action_probability=environment.repeat_action_probability,
        full_action_set=environment.full_action_set,
        max_noop_frames=environment.max_noop_frames,
        max_game_frames=environment.max_game_frames,
        terminal_on_life_loss=environment.terminal_on_life_loss,
    )
