"""Creates games by name, N in lockstep or one for display: Atari's games, Catch, external environments."""

from __future__ import annotations

from collections.abc import Callable

from wn_dqn.config.games import CATCH, CATCH_VECTOR, Game, OutsideGame
from wn_dqn.envs.atari import AtariEnv
from wn_dqn.envs.atari_reference import ReferenceEnv
from wn_dqn.envs.catch import Catch, CatchGame
from wn_dqn.envs.gymnasium_game import GymnasiumGame
from wn_dqn.envs.outside import outside_env, outside_spec
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import SingleGame, VectorEnv
from wn_dqn.system.hardware import num_cores


def make_env(game: Game, num_envs: int, rules: EnvRules, on_hang: Callable[[], None] | None = None) -> VectorEnv:
    """`num_envs` games played by `rules`; see :class:`AtariEnv` for `on_hang`."""
    if game in (CATCH, CATCH_VECTOR):
        return Catch(num_envs, vector=game == CATCH_VECTOR)
    if isinstance(game, OutsideGame):
        return outside_env(game, num_envs, rules)
    num_threads = min(num_cores(), num_envs)
    return AtariEnv(game.rom_id, num_envs, rules, name=game.name, num_threads=num_threads, on_hang=on_hang)


def single_game(game: Game, rules: EnvRules, *, pictures: bool = True) -> SingleGame:
    """One game with `rules`, for display. The caller chooses the no-ops at its start.

    Without `pictures`, an external environment does not need to render.
    """
    if game in (CATCH, CATCH_VECTOR):
        return CatchGame(vector=game == CATCH_VECTOR)
    if isinstance(game, OutsideGame):
        return GymnasiumGame(game, rules, pictures=pictures)
    return ReferenceEnv(game.rom_id, rules, name=game.name)


def spec_of(game: Game, rules: EnvRules) -> EnvSpec:
    """The spec of the game under `rules`: observations and actions."""
    return outside_spec(game, rules) if isinstance(game, OutsideGame) else single_game(game, rules).spec
