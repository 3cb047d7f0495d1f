"""A game by its name: many of it in lockstep, or one to be watched. Atari's games, or Catch."""

from __future__ import annotations

from collections.abc import Callable

from wn_dqn.config.games import CATCH, Game
from wn_dqn.envs.atari import AtariEnv
from wn_dqn.envs.atari_reference import ReferenceEnv
from wn_dqn.envs.catch import Catch, CatchGame
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.vector_env import SingleGame, VectorEnv
from wn_dqn.system.hardware import num_cores


def make_env(game: Game, num_envs: int, rules: EnvRules, on_hang: Callable[[], None] | None = None) -> VectorEnv:
    """`num_envs` games played by `rules`; see :class:`AtariEnv` for `on_hang`."""
    if game == CATCH:
        return Catch(num_envs)
    return AtariEnv(game.rom_id, num_envs, **rules.as_dict(), num_threads=min(num_cores(), num_envs), on_hang=on_hang)


def single_game(game: Game, rules: EnvRules) -> SingleGame:
    """One game played by `rules`, to be watched. Its no-ops at the start are the caller's."""
    if game == CATCH:
        return CatchGame()
    return ReferenceEnv(
        game.rom_id,
        repeat_action_probability=rules.repeat_action_probability,
        full_action_set=rules.full_action_set,
        max_game_frames=rules.max_game_frames,
    )
