"""Creates external environments from their names: N in lockstep, a single one for display, or only their spec."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from wn_dqn.config.games import OutsideGame
from wn_dqn.config.trust import import_outside
from wn_dqn.envs.gymnasium_env import FOREIGN_ERRORS, GymnasiumEnv, OneGame, SerialVectorEnv, failure
from wn_dqn.envs.gymnasium_spaces import read_action_space, read_observation_space
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.errors import UsageError, closest, first_line

_Env = gymnasium.Env[Any, Any]
_Vector = VectorEnv[Any, Any, Any]


def outside_env(game: OutsideGame, num_envs: int, rules: EnvRules) -> GymnasiumEnv:
    """`num_envs` games in lockstep. Raises UsageError if the environment cannot be created or is not supported."""
    make_vector = _vector_factory(game)
    if make_vector is not None:
        vector = _made(game, lambda: make_vector(num_envs, rules))
        if not isinstance(vector, VectorEnv) or vector.num_envs != num_envs:
            what = type(vector).__name__ + (f" of {vector.num_envs} games" if isinstance(vector, VectorEnv) else "")
            raise UsageError(
                f"{game.name} must be a gymnasium.Env class, or a function (num_envs, rules) that returns a "
                f"gymnasium.vector.VectorEnv of num_envs games; for {num_envs} it returned a {what}"
            )
    else:
        vector = _vectorized(game, num_envs, rules)
    return GymnasiumEnv(vector, _spec(game, vector.single_observation_space, vector.single_action_space, ()))


def _vectorized(game: OutsideGame, num_envs: int, rules: EnvRules) -> _Vector:
    """`num_envs` copies of a single environment."""
    one_game = functools.partial(OneGame, functools.partial(make_one, game, rules), game.name)
    if game.vectorization == "sync":
        return SerialVectorEnv([one_game() for _ in range(num_envs)])
    try:  # spawn, not fork: a forked process would inherit locks that torch's threads hold
        return AsyncVectorEnv([one_game] * num_envs, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)
    except UsageError:
        raise
    except (EOFError, OSError, RuntimeError) as error:
        if not isinstance(error, RuntimeError):  # each worker imports the main script
            raise UsageError(
                f"a worker process of {game.name} has died as it started; a script needs its training under "
                'if __name__ == "__main__":'
            ) from None
        raise UsageError(
            f"{game.name} cannot be played in worker processes: {type(error).__name__}: {first_line(error)}"
        ) from None


def outside_spec(game: OutsideGame, rules: EnvRules) -> EnvSpec:
    """The spec of the environment: observations and actions."""
    make_vector = _vector_factory(game)
    if make_vector is not None:
        return outside_env(game, 1, rules).spec
    env = make_one(game, rules)
    meanings = _action_meanings(env)
    try:
        return _spec(game, env.observation_space, env.action_space, meanings)
    finally:
        with contextlib.suppress(Exception):
            env.close()


def _spec(game: OutsideGame, observations: Any, actions: Any, meanings: tuple[str, ...]) -> EnvSpec:
    reading = read_observation_space(game.name, observations)
    count, first = read_action_space(game.name, actions)
    names = meanings if len(meanings) == count else tuple(str(first + action) for action in range(count))
    return EnvSpec(
        game.name, reading.frame_shape, reading.frame_dtype, stack=game.stack, action_names=names, repeats=game.repeats
    )


def _action_meanings(env: _Env) -> tuple[str, ...]:
    """The names of the actions, if the environment provides them as Atari's and others do."""
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    try:
        return tuple(map(str, meanings())) if callable(meanings) else ()
    except Exception:  # noqa: BLE001 - the names are optional
        return ()


def make_one(game: OutsideGame, rules: EnvRules, render_mode: str | None = None) -> _Env:
    """One environment, with the time limit of `rules`. Raises UsageError, with the reason, if it cannot be created."""
    args = dict(game.args)
    env: _Env
    if game.factory:
        factory = _factory(game)
        if render_mode is not None and _takes(factory, "render_mode"):
            args["render_mode"] = render_mode
        env = _made(game, lambda: factory(**args))
    else:
        _register(game)
        if render_mode is not None:
            args["render_mode"] = render_mode
        with warnings.catch_warnings():
            if game.env_id.startswith("MinAtar/"):  # its v0 is not outdated: it has all six actions
                warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
            env = _made(game, lambda: gymnasium.make(game.env_id, **{"disable_env_checker": True, **args}))
    if rules.max_game_frames is not None:
        env = gymnasium.wrappers.TimeLimit(env, rules.max_game_frames)
    return env


def _register(game: OutsideGame) -> None:
    """Import the module that registers the environment with gymnasium, if it is named or known."""
    if game.module:
        import_outside(game.module)
    elif game.env_id.startswith("MinAtar/") and game.env_id not in gymnasium.registry:
        try:
            from minatar.gym import register_envs
        except ModuleNotFoundError:
            raise UsageError(f"{game.name} needs the package minatar: pip install 'wn-dqn[minatar]'") from None
        if "MinAtar/Breakout-v0" not in gymnasium.registry:  # a second call would print a warning for each
            register_envs()


def _takes(factory: Callable[..., Any], name: str) -> bool:
    """Whether `factory` has a parameter `name`, or takes any."""
    parameters = inspect.signature(factory).parameters.values()
    return any(each.name == name or each.kind is each.VAR_KEYWORD for each in parameters)


def _made(game: OutsideGame, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except UsageError:
        raise
    except gymnasium.error.UnregisteredEnv as error:
        rows = gymnasium.registry.items()
        names = [name for name, row in rows if not str(row.entry_point).startswith(("ale_py", "shimmy"))]
        hint = closest(game.env_id, names)
        known = "gymnasium:MODULE:ID imports the module that registers it" if hint.startswith("valid:") else hint
        raise UsageError(f"{game.name}: {first_line(error)}; {known}") from None
    except FOREIGN_ERRORS as error:
        message = str(failure(game.name, "its constructor", error))
        raise UsageError(message) from None


def makes_vectors(game: OutsideGame) -> bool:
    """Whether the environment is a function that makes several games at once."""
    return _vector_factory(game) is not None


def _factory(game: OutsideGame) -> Any:
    """The object that ``MODULE:FACTORY`` names. Raises UsageError if it does not exist or is not callable."""
    module = import_outside(game.module)
    factory = getattr(module, game.factory, None)
    if not callable(factory):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{game.module} has no class or function {game.factory}; {closest(game.factory, names)}")
    return factory


def _vector_factory(game: OutsideGame) -> Callable[[int, EnvRules], Any] | None:
    """The function (num_envs, rules) that ``MODULE:FACTORY`` names; None if it names a single environment.

    The environment's arguments are passed to it by name.
    """
    if not game.factory:
        return None
    factory = _factory(game)
    if inspect.isclass(factory) and issubclass(factory, gymnasium.Env):
        return None
    return functools.partial(factory, **game.args)
