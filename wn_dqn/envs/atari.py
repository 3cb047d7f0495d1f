"""The fast environment: ``ale_py.AtariVectorEnv`` behind the few calls that the loop needs.

Preprocessing (gray, maximum of the last two of four frames, area resize to 84x84, stack of four) and the emulators'
threads are ale-py's. What is set here is the protocol of Mnih et al. (2015): raw rewards, no forced FIRE at a start,
no sticky actions unless asked for, lives reported instead of ending games.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

import ale_py
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from wn_dqn.envs.vector_env import EnvStep

HANG_TIMEOUT_S = 45.0
"""A step takes milliseconds; on a machine that is busy beyond reason, a second."""

_NO_LIMIT = 2**31 - 2  # frames; ale-py adds one to a 32-bit integer


class AtariEnv:
    """N games of one ROM in lockstep; the emulators run in C++ threads between `send` and `receive`.

    A game that ends begins anew within the same step, so that every step of every game is a transition.
    """

    def __init__(
        self,
        rom_id: str,
        num_envs: int,
        *,
        repeat_action_probability: float = 0.0,
        full_action_set: bool = False,
        max_noop_frames: int = 30,
        max_game_frames: int | None = None,
        num_threads: int = 0,
        on_hang: Callable[[], None] | None = None,
    ) -> None:
        """`rom_id` like ``space_invaders``; `num_threads` 0 lets ale-py take one per core; it changes no result.

        `on_hang` is called, from another thread, when the emulators have not answered for HANG_TIMEOUT_S: nothing
        brings back a thread that waits for them, so it can only tell somebody and end the process.
        """
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._env = AtariVectorEnv(
            rom_id,
            num_envs,
            num_threads=num_threads,
            max_num_frames_per_episode=_NO_LIMIT if max_game_frames is None else max_game_frames,
            repeat_action_probability=repeat_action_probability,
            full_action_space=full_action_set,
            autoreset_mode=AutoresetMode.SAME_STEP,
            noop_max=max_noop_frames + 1,  # ale-py draws from 0..noop_max-1
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self.num_envs = num_envs
        self.num_actions = len(self._env.ale.get_action_set())
        self._lives = np.zeros(num_envs, np.int32)
        self.waiting_since_s: float | None = None
        """when `receive` began to wait, while it does"""
        if on_hang is not None:
            watched = weakref.ref(self)  # the thread must not keep the emulators alive when the program ends
            threading.Thread(target=_watch, args=(watched, on_hang), daemon=True, name="emulator-watchdog").start()

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Begin N new games from N seeds in [0, 2^31); returns uint8 [N, 4, 84, 84]."""
        obs, info = self._env.reset(seed=seeds)
        self._lives = info["lives"].copy()
        return np.asarray(obs, np.uint8)

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions [N]; ValueError for an action that the game does not have."""
        if ((actions < 0) | (actions >= self.num_actions)).any():  # the emulator would hang, not complain
            raise ValueError(f"actions must be 0..{self.num_actions - 1}, got {actions}")
        self._env.send(actions)

    def receive(self) -> EnvStep:
        """Wait for the step that `send` started."""
        self.waiting_since_s = time.monotonic()
        obs, reward, terminated, truncated, info = self._env.recv()
        self.waiting_since_s = None
        lives = info["lives"]
        life_lost = (lives < self._lives) & ~terminated & ~truncated
        self._lives = lives.copy()
        return EnvStep(obs, reward.astype(np.float32), terminated, truncated, life_lost)


def _watch(watched: weakref.ref[AtariEnv], on_hang: Callable[[], None]) -> None:
    never = threading.Event()
    while not never.wait(HANG_TIMEOUT_S / 10):
        env = watched()
        if env is None:
            return
        since_s = env.waiting_since_s
        if since_s is not None and time.monotonic() - since_s > HANG_TIMEOUT_S:
            on_hang()
            return
        del env
