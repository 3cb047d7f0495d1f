"""One game of an external environment for display, with its own rendering, or with the network's observations."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wn_dqn.config.games import OutsideGame
from wn_dqn.envs.gymnasium_env import OneGame
from wn_dqn.envs.gymnasium_spaces import read_action_space
from wn_dqn.envs.outside import make_one, makes_vectors, outside_spec
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.vector_env import SingleStep, require_actions
from wn_dqn.errors import UsageError, first_line

_FRAMES_PER_S = 60  # of a film
_STEPS_PER_S = 10  # if the environment has no render_fps
_GROUND = (18, 20, 26)
# Neighbours can be distinguished with any colour vision. The colours repeat after the tenth channel.
_PALETTE = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (240, 242, 246),
    (150, 220, 200),
    (250, 200, 140),
)


class GymnasiumGame:
    """One game, see :class:`wn_dqn.envs.vector_env.SingleGame`. ``render_fps`` sets the duration of a step."""

    lives = 0

    def __init__(self, game: OutsideGame, rules: EnvRules, *, pictures: bool = True) -> None:
        """Without `pictures`, nothing is rendered.

        Raises UsageError if the environment cannot be created, or if it cannot render.
        """
        if makes_vectors(game):
            raise UsageError(f"{game.name} makes several games at once, and shows no picture of one")
        self.spec = outside_spec(game, rules)
        env = make_one(game, rules)
        metadata: dict[str, Any] = dict(env.metadata or {})
        env.close()
        has_pictures = "rgb_array" in (metadata.get("render_modes") or ())
        drawn_here = self.spec.is_image and (self.spec.frame_dtype == "bool" or not has_pictures)
        if pictures and not (has_pictures or drawn_here):
            raise UsageError(
                f"{game.name} has no picture: its render_modes are without rgb_array, and it shows vectors"
            )
        self._pictures, self._render = pictures, pictures and not drawn_here
        make = functools.partial(make_one, game, rules, "rgb_array" if self._render else None)
        self._game = OneGame(make, game.name)
        _, self._first_action = read_action_space(game.name, self._game.action_space)
        self._shown = max(1, round(_FRAMES_PER_S / (metadata.get("render_fps") or _STEPS_PER_S)))
        self.rgb_frames = np.zeros((1, 1, 1, 3), np.uint8)

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[Any]:
        """Begin a game, without no-ops; returns its first frame [*spec.frame_shape]."""
        obs, _ = self._game.reset(seed=seed)
        frame = self._frame(obs)
        self.rgb_frames = self._picture(frame)[None]
        return frame

    def step(self, action: int) -> SingleStep:
        """Play one step."""
        require_actions(np.array([action]), self.spec.num_actions)
        obs, reward, terminated, truncated, _ = self._game.step(action + self._first_action)
        frame = self._frame(obs)
        picture = self._picture(frame)
        self.rgb_frames = np.broadcast_to(picture, (self._shown, *picture.shape))
        return SingleStep(frame, reward, terminated, truncated)

    def _frame(self, obs: NDArray[Any]) -> NDArray[Any]:
        frame: NDArray[Any] = self._game.reading.frames(obs[None])[0]
        return frame

    def _picture(self, frame: NDArray[Any]) -> NDArray[np.uint8]:
        """RGB [height, width, 3]: the environment's rendering, or drawn from `frame`; one pixel without pictures."""
        if not self._pictures:
            return np.zeros((1, 1, 3), np.uint8)
        if not self._render:
            return draw(frame)
        try:
            picture = self._game.render()
        except Exception as error:  # noqa: BLE001 - a missing package, or any error of external code
            raise UsageError(f"{self.spec.name} cannot draw its picture: {first_line(error)}") from None
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            raise UsageError(
                f"{self.spec.name} drew no picture: render() gave {getattr(picture, 'dtype', type(picture).__name__)} "
                f"{list(np.shape(picture))} instead of uint8 [height, width, 3]"
            )
        return picture


def draw(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] of a frame [C, H, W]. Bits become coloured cells; one or three channels of bytes are kept."""
    channels, height, width = frame.shape
    if frame.dtype != np.bool_:
        shown = frame if channels == 3 else np.repeat(frame[-1:], 3, axis=0)
        return np.ascontiguousarray(np.moveaxis(shown, 0, 2))
    picture = np.full((height, width, 3), _GROUND, np.uint8)
    for channel, cells in enumerate(frame):
        picture[cells] = _PALETTE[channel % len(_PALETTE)]
    return picture
