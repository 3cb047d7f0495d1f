"""The fast environment: an adapter from ``ale_py.AtariVectorEnv`` to the interface of the loop.

ale-py does the preprocessing (gray, maximum of the last two of four frames, area resize to 84x84, stack of four) and
runs the emulators in threads. This module sets the protocol of Mnih et al. (2015): raw rewards, no forced FIRE at the
start, no sticky actions by default. A lost life is reported, and does not end the game.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable

import ale_py
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import EnvStep, require_actions

HANG_TIMEOUT_S = 45.0
"""a step takes milliseconds, or a second on an overloaded machine"""
_LOOKS = 10

_NO_LIMIT = 2**31 - 2  # frames; ale-py adds one to a 32-bit integer


def atari_spec(name: str, action_names: Iterable[str]) -> EnvSpec:
    """The spec of an Atari game: gray frames of 84x84, one per four emulator frames, four in an observation."""
    return EnvSpec(
        name, (1, 84, 84), "uint8", stack=4, action_names=tuple(action_names), frames_per_step=4, clip_rewards=True
    )


class AtariEnv:
    """N games of one ROM in lockstep; the emulators run in C++ threads between `send` and `receive`.

    A game that ends restarts within the same step, so that every step of every game is a transition.
    """

    def __init__(
        self,
        rom_id: str,
        num_envs: int,
        rules: EnvRules,
        *,
        name: str = "",
        num_threads: int = 0,
        on_hang: Callable[[], None] | None = None,
    ) -> None:
        """`rom_id` is like ``space_invaders``, `name` like SpaceInvaders. If `num_threads` is 0, ale-py uses one
        thread per core; the number does not change results.

        `on_hang` is called from another thread if the emulators have not answered for HANG_TIMEOUT_S. The waiting
        thread cannot be interrupted, so `on_hang` can only report this and end the process.
        """
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._env = AtariVectorEnv(
            rom_id,
            num_envs,
            num_threads=num_threads,
            max_num_frames_per_episode=rules.max_game_frames or _NO_LIMIT,
            repeat_action_probability=rules.repeat_action_probability,
            full_action_space=rules.full_action_set,
            autoreset_mode=AutoresetMode.SAME_STEP,
            stack_num=1,
            noop_max=rules.max_noop_frames + 1,  # ale-py draws from 0..noop_max-1
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self.num_envs = num_envs
        actions = [action.name for action in self._env.ale.get_action_set()]
        self.spec = atari_spec(name or rom_id, actions)
        self._terminal_on_life_loss = rules.terminal_on_life_loss
        self._lives = np.zeros(num_envs, np.int32)
        self.waiting_since_s: float | None = None
        """the time at which `receive` started to wait; None if it is not waiting"""
        if on_hang is not None:
            watched = weakref.ref(self)  # the thread must not keep the emulators alive when the program ends
            threading.Thread(target=_watch, args=(watched, on_hang), daemon=True, name="emulator-watchdog").start()

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Start N new games from N seeds in [0, 2^31), or -1 for no seed. Returns uint8 [N, 1, 84, 84].

        With a seed, ale-py loads the game again, which takes 0.05 s.
        """
        obs, info = self._env.reset(seed=seeds)
        self._lives = info["lives"].copy()
        return np.asarray(obs, np.uint8)

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions [N]. Raises ValueError for an action that the game does not have."""
        require_actions(actions, self.spec.num_actions)  # an invalid action would hang the emulator
        self._env.send(actions)

    def receive(self) -> EnvStep:
        """Wait for the step that `send` started."""
        self.waiting_since_s = time.monotonic()
        obs, reward, terminated, truncated, info = self._env.recv()
        self.waiting_since_s = None
        lives = info["lives"]
        terminal = terminated
        if self._terminal_on_life_loss:
            terminal = terminated | ((lives < self._lives) & ~truncated)
        self._lives = lives.copy()
        return EnvStep(obs, reward.astype(np.float32), terminated, truncated, terminal)


def _watch(watched: weakref.ref[AtariEnv], on_hang: Callable[[], None]) -> None:
    """Count the polls during one wait. Time would not do, because the process may have been suspended."""
    never, since_s, looks = threading.Event(), None, 0
    while not never.wait(HANG_TIMEOUT_S / _LOOKS):
        env = watched()
        if env is None:
            return
        before_s, since_s = since_s, env.waiting_since_s
        looks = looks + 1 if since_s is not None and since_s == before_s else 0
        if looks == _LOOKS:
            on_hang()
            return
        del env
