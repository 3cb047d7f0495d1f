"""A game by its name, and many of it at once: Atari's, or Catch."""

from __future__ import annotations

from collections.abc import Callable

from wn_dqn.atari.games import Game, find_game
from wn_dqn.atari.vector_env import AtariEnv
from wn_dqn.catch import Catch
from wn_dqn.environment import VectorEnv
from wn_dqn.evaluation import Protocol
from wn_dqn.machine import num_cores

_CATCH = Game("catch", "Catch", random=None, human=None, paper=None)


def find_any_game(name: str) -> Game:
    """The Atari game, or Catch, that `name` means; UsageError with the closest names if there is none."""
    return _CATCH if name.strip().lower() == "catch" else find_game(name)


def make_env(game: Game, num_envs: int, protocol: Protocol, on_hang: Callable[[], None] | None = None) -> VectorEnv:
    """`num_envs` games played under `protocol`; see :class:`AtariEnv` for `on_hang`."""
    if game is _CATCH:
        return Catch(num_envs)
    return AtariEnv(
        game.rom_id,
        num_envs,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_set=protocol.full_action_set,
        max_noop_frames=protocol.max_noop_frames,
        max_game_frames=protocol.max_game_frames,
        num_threads=min(num_cores(), num_envs),
        on_hang=on_hang,
    )
