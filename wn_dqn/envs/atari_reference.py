"""The reference environment: the preprocessing of :mod:`wn_dqn.envs.atari` in plain gymnasium + OpenCV.

It plays one game, and its step is easy to read. It is the oracle in tests of the fast environment, and the source of
RGB frames for videos. With the same seed, no-ops and actions, the two agree in every pixel.
"""

from __future__ import annotations

from collections import deque

import ale_py
import cv2
import numpy as np
from ale_py.env import AtariEnv as GymnasiumAtariEnv
from numpy.typing import NDArray

from wn_dqn.envs.atari import atari_spec
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.vector_env import SingleStep, require_actions

_FRAME_SKIP = 4


class ReferenceEnv:
    """One game: gray, maximum of the last two of four frames, area resize to 84x84.

    Rewards are raw, a lost life does not end the game, and a game that ended waits for `reset`.
    """

    def __init__(
        self,
        rom_id: str,
        rules: EnvRules,
        *,
        name: str = "",
    ) -> None:
        """`rom_id` is like ``space_invaders``, `name` like SpaceInvaders. The caller chooses the no-ops at the start.

        The limit `rules.max_game_frames` counts from the end of the no-ops.
        """
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._env = GymnasiumAtariEnv(
            rom_id,
            frameskip=1,
            repeat_action_probability=rules.repeat_action_probability,
            full_action_space=rules.full_action_set,
        )
        self._ale = ale = self._env.ale
        actions = ale.getLegalActionSet() if rules.full_action_set else ale.getMinimalActionSet()
        self.spec = atari_spec(name or rom_id, (action.name for action in actions))
        self.rgb_frames: NDArray[np.uint8] = np.empty((0, *ale.getScreenDims(), 3), np.uint8)
        """[k, height, width, 3], usually 210x160: the frames of the last `step` (four; fewer at the game's end), or the
        initial frame after `reset`"""
        self.lives = 0
        """lives left; always 0 in a game without lives"""
        self._max_game_frames = rules.max_game_frames
        self._game_frames = 0
        self._last_two: deque[NDArray[np.uint8]] = deque(maxlen=2)

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[np.uint8]:
        """Start a game and play `noop_frames` no-ops. Returns uint8 [1, 84, 84].

        The seed in [0, 2^31) is that of the emulator, which draws the sticky actions. None keeps the random state.
        """
        if seed is not None:
            self._ale.setInt("random_seed", seed)  # gymnasium's reset(seed=...) would hash the seed
            self._env.load_game()
        self._env.reset()
        for _ in range(noop_frames):
            self._ale.act(ale_py.Action.NOOP)  # not `step(0)`: Backgammon's action 0 is FIRE
            if self._ale.game_over():
                self._env.reset()
        self.rgb_frames = self._ale.getScreenRGB()[None]
        self.lives = self._ale.lives()
        self._game_frames = 0
        gray = self._ale.getScreenGrayscale()
        self._last_two.extend((gray, gray))
        return self._frame()

    def step(self, action: int) -> SingleStep:
        """Repeat `action` for four frames. Raises ValueError for an action that the game does not have."""
        require_actions(np.array([action]), self.spec.num_actions)
        rgb_frames, reward, terminated, truncated = [], 0.0, False, False
        for _ in range(_FRAME_SKIP):
            rgb, frame_reward, terminated, _, info = self._env.step(action)
            rgb_frames.append(rgb)
            reward += frame_reward
            self.lives = info["lives"]
            self._last_two.append(self._ale.getScreenGrayscale())
            self._game_frames += 1
            truncated = self._game_frames == self._max_game_frames and not terminated
            if terminated or truncated:
                break
        self.rgb_frames = np.stack(rgb_frames)
        return SingleStep(self._frame(), reward, terminated, truncated)

    def _frame(self) -> NDArray[np.uint8]:
        """The newest frame of the observation, uint8 [1, 84, 84]."""
        frame = np.maximum(self._last_two[0], self._last_two[1])
        return cv2.resize(frame, self.spec.frame_shape[1:], interpolation=cv2.INTER_AREA)[None].astype(np.uint8)
