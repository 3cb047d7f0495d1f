"""Tests whether an external environment is deterministic, that is, determined by seeds and actions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wn_dqn.config.games import OutsideGame
from wn_dqn.envs.outside import outside_env
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.vector_env import EnvStep, VectorEnv

_STEPS = 60
_STEPS_BEFORE = 30
_SEEDS = np.array([123, 456])


def first_difference(game: OutsideGame, rules: EnvRules) -> int | None:
    """The first step in which two copies with the same seeds and actions differ; None if they do not.

    Step 0 means their first frames. One copy has played before, which reveals state that a seed does not reset. The
    test has a few dozen random steps, so None is not a proof.
    """
    num_envs = 2 if game.vectorization == "sync" else 1  # in separate processes they cannot influence each other
    generator = np.random.Generator(np.random.PCG64(0))
    one, other = outside_env(game, num_envs, rules), outside_env(game, num_envs, rules)
    try:
        one.reset(_SEEDS[:num_envs] + 1)
        for _ in range(_STEPS_BEFORE):
            _step(one, generator.integers(0, one.spec.num_actions, num_envs))
        frames = one.reset(_SEEDS[:num_envs]).copy()
        if not np.array_equal(frames, other.reset(_SEEDS[:num_envs])):
            return 0
        for number in range(1, _STEPS + 1):
            actions = generator.integers(0, one.spec.num_actions, num_envs)
            step, again = _step(one, actions), _step(other, actions)
            if not all(np.array_equal(a, b) for a, b in zip(step[:5], again[:5], strict=True)):
                return number
        return None
    finally:
        one.close()
        other.close()


def _step(env: VectorEnv, actions: NDArray[np.int64]) -> EnvStep:
    env.send(actions)
    return env.receive()
