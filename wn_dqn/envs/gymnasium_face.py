"""One game as a ``gymnasium.Env``, for users who play with a policy.

The loop's own environments are not gymnasium environments. They start a step and finish it in two calls, so that the
emulators work while the network learns.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import gymnasium.envs.registration
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from wn_dqn.config.games import Game
from wn_dqn.envs.factory import single_game
from wn_dqn.envs.frame_stack import FrameStack
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.errors import UsageError

_NO_NEW_GAME = np.array([False])


class WholeGame(gymnasium.Env[NDArray[Any], np.int64]):
    """One game with complete observations [*obs_shape], that is stacked frames, as a policy takes them."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60}  # noqa: RUF012 - gymnasium's declaration

    def __init__(self, game: Game, rules: EnvRules, render_mode: str | None = None) -> None:
        """`render_mode` is None or rgb_array. Raises UsageError if the environment cannot be made."""
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"render_mode {render_mode!r} is not supported; valid: None, rgb_array")
        self.render_mode = render_mode
        self._game = single_game(game, rules, pictures=render_mode is not None)
        self._max_noop_frames = rules.max_noop_frames
        self.game_spec = self._game.spec
        """the game's observations and actions"""
        self.spec = gymnasium.envs.registration.EnvSpec(
            id=f"wn_dqn/{re.sub('[^A-Za-z0-9_.-]', '_', game.short_name)}-v0",
            entry_point=functools.partial(WholeGame, game, rules),
            nondeterministic=self.game_spec.repeats is False,
            disable_env_checker=True,
        )
        self._stack = FrameStack(self.game_spec, 1)
        self.observation_space = _observation_space(self.game_spec)
        self.action_space = spaces.Discrete(self.game_spec.num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start a game. Without `seed`, the random sequence of the last game continues. `options` are ignored."""
        super().reset(seed=seed)
        game_seed, noop_frames = self.np_random.integers(2**31), self.np_random.integers(self._max_noop_frames + 1)
        frame = self._game.reset(int(game_seed), int(noop_frames))
        return self._stack.begin(frame[None])[0].copy(), self._info()

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Play one step. Returns observation, raw reward, terminated, truncated, and the lives left in the info."""
        outcome = self._game.step(int(action))
        obs = self._stack.push(outcome.frame[None], _NO_NEW_GAME)[0].copy()
        return obs, float(outcome.reward), bool(outcome.terminated), bool(outcome.truncated), self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The newest picture, RGB [height, width, 3]; None without a render mode."""
        return None if self.render_mode is None else np.array(self._game.rgb_frames[-1])

    def _info(self) -> dict[str, Any]:
        return {"lives": int(self._game.lives)}


def _observation_space(spec: EnvSpec) -> spaces.Box:
    """The observation space. Vectors have no bounds, because the spec does not contain any."""
    if spec.frame_dtype == "float32":
        largest = float(np.finfo(np.float32).max)
        return spaces.Box(-largest, largest, spec.obs_shape, np.float32)
    return spaces.Box(0, 255 if spec.frame_dtype == "uint8" else 1, spec.obs_shape, spec.dtype.type)  # type: ignore[arg-type]
