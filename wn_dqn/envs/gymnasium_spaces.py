"""Converts gymnasium's spaces to our spec, and its observations to our frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from wn_dqn.envs.vector_env import EnvironmentFailure
from wn_dqn.errors import UsageError

_FITTING = (
    "what fits: Box of uint8 or bool with 2 or 3 dimensions (images), Box of uint8, bool, float32 or float64 with 1 "
    "(vectors), and Discrete actions; gymnasium.wrappers has FlattenObservation, for one"
)


@dataclass(frozen=True)
class Reading:
    """Converts the observations of one environment to frames."""

    name: str
    """of the environment"""
    shape: tuple[int, ...]
    """of an observation"""
    dtype: np.dtype[Any]
    layout: Literal["vector", "image", "channels first", "channels last"]
    frame_shape: tuple[int, ...]
    """[C, H, W] or [D]"""
    frame_dtype: Literal["uint8", "bool", "float32"]

    def accept(self, obs: Any) -> NDArray[Any]:
        """`obs` as an array of `shape` and `dtype`. Raises EnvironmentFailure if it does not fit the space."""
        if type(obs) is np.ndarray and obs.shape == self.shape and obs.dtype == self.dtype:
            return obs
        try:
            array = np.asarray(obs)
        except ValueError:  # a ragged list
            raise EnvironmentFailure(
                f"{self.name} showed no array, but a {type(obs).__name__}; {self._expected}"
            ) from None
        converted = self.frame_dtype == "float32" and array.dtype.kind in "biuf"
        if array.shape != self.shape or not (converted or array.dtype == self.dtype):
            raise EnvironmentFailure(
                f"{self.name} showed an observation of {array.dtype} {list(array.shape)}; {self._expected}"
            )
        return array.astype(self.dtype)

    def frames(self, obs: Any) -> NDArray[Any]:
        """Frames [N, *frame_shape], perhaps a view, from observations [N, *shape].

        Raises EnvironmentFailure if a number is NaN, infinite or too large for float32, or if shape or dtype differ.
        """
        if type(obs) is not np.ndarray or obs.shape[1:] != self.shape or obs.dtype != self.dtype:
            raise EnvironmentFailure(
                f"{self.name} showed {getattr(obs, 'dtype', type(obs).__name__)} {list(np.shape(obs))} for several "
                f"games; {self._expected} for each"
            )
        if self.frame_dtype == "float32":
            return self._float32(obs)
        if self.layout == "channels last":
            return np.moveaxis(obs, 3, 1)
        return obs[:, None] if self.layout == "image" else obs

    def _float32(self, obs: NDArray[Any]) -> NDArray[np.float32]:
        if obs.dtype != np.float32:
            with np.errstate(over="ignore"):
                obs = obs.astype(np.float32)
        if not np.isfinite(obs).all():
            raise EnvironmentFailure(f"{self.name} showed an observation that is NaN, infinite or beyond float32")
        return obs

    @property
    def _expected(self) -> str:
        return f"its observation space says {self.dtype} {list(self.shape)}"


def read_observation_space(name: str, space: Space[Any]) -> Reading:
    """A converter for observations in `space`. Raises UsageError, with the supported spaces, for any other."""
    if not isinstance(space, spaces.Box):
        raise _unsupported(name, "observation", space)
    shape, dtype = tuple(space.shape), np.dtype(space.dtype)
    if 0 in shape:
        raise _unsupported(name, "observation", space)
    if len(shape) == 1 and dtype in (np.float32, np.float64):
        return Reading(name, shape, dtype, "vector", shape, "float32")
    byte: Literal["uint8", "bool"] = "uint8" if dtype == np.uint8 else "bool"
    if len(shape) not in (1, 2, 3) or dtype not in (np.uint8, np.bool_):
        raise _unsupported(name, "observation", space)
    if len(shape) == 1:
        return Reading(name, shape, dtype, "vector", shape, byte)
    if len(shape) == 2:
        return Reading(name, shape, dtype, "image", (1, *shape), byte)
    first, height, last = shape
    if first < last:
        return Reading(name, shape, dtype, "channels first", shape, byte)
    return Reading(name, shape, dtype, "channels last", (last, first, height), byte)


def read_action_space(name: str, space: Space[Any]) -> tuple[int, int]:
    """The number of actions in `space`, and the first one. Raises UsageError for a space that is not supported."""
    if not isinstance(space, spaces.Discrete):
        raise _unsupported(name, "action", space)
    return int(space.n), int(space.start)


def _unsupported(name: str, kind: str, space: Space[Any]) -> UsageError:
    text = " ".join(str(space).split())
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return UsageError(f"{name} has the {kind} space {shown}, which no network here takes; {_FITTING}")
