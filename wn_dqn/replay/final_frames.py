"""The frames that truncated games ended in: the one frame of a transition that no slot of the replay holds.

Where a game is truncated, the next slot begins the next game. The frame that the old one ended in is needed for the
next observation of its last transition, and is kept here for as long as that transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FIRST_ROWS = 64


class FinalFrames:
    """Final frames by ring and slot. Nothing is allocated until there is one."""

    def __init__(self, frames: Tensor, num_envs: int, num_slots: int) -> None:
        """`frames` [..., *stored_shape]: of the replay, for the shape, dtype and device of one frame."""
        self._shape = (num_envs, num_slots)
        self._frames = frames.new_empty((0, *frames.shape[1:]))
        self._row = np.zeros((0, 0), np.int64)  # [num_envs, num_slots], of `_frames`; -1: none
        self._free: list[int] = []
        self.any = False
        """whether there ever was one"""

    def add(self, env: int, slot: int, frame: Tensor) -> None:
        """The transition at `slot` of ring `env` ended with `frame`."""
        if not self.any:
            self._row, self.any = np.full(self._shape, -1), True
        if not self._free:
            rows = len(self._frames)
            more = max(rows, _FIRST_ROWS)
            self._frames = torch.cat([self._frames, self._frames.new_empty((more, *self._frames.shape[1:]))])
            self._free = list(range(rows + more - 1, rows - 1, -1))
        self._row[env, slot] = row = self._free.pop()
        self._frames[row] = frame

    def forget(self, slot: int) -> None:
        """The transitions at `slot` of all rings are gone."""
        if self.any:
            self._free += [row for row in self._row[:, slot].tolist() if row >= 0]
            self._row[:, slot] = -1

    def rows(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of :meth:`frames`, -1 where there is no final frame; of the shape of `env` and `slot`."""
        return self._row[env, slot]

    def frames(self, rows: Tensor) -> Tensor:
        """The frames at `rows` [k]: [k, *stored_shape]."""
        return self._frames.index_select(0, rows)

    def state_dict(self) -> dict[str, Any]:
        """The frames and where they belong; empty if there is none."""
        if not self.any:
            return {}
        env, slot = np.nonzero(self._row >= 0)
        rows = torch.from_numpy(self._row[env, slot]).to(self._frames.device)
        return {"final_env": env, "final_slot": slot, "final_frames": self.frames(rows).cpu().numpy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; ValueError if it is of another replay."""
        if "final_frames" not in state:
            return
        env, slot, frames = (torch.as_tensor(state[name]) for name in ("final_env", "final_slot", "final_frames"))
        places = torch.stack([env, slot], dim=1)
        inside = ((places >= 0) & (places < torch.tensor(self._shape))).all()
        if frames.shape[1:] != self._frames.shape[1:] or frames.dtype != self._frames.dtype or not inside:
            raise ValueError("the final frames have another shape than this run's replay buffer")
        for (ring, place), frame in zip(places.tolist(), frames, strict=True):
            self.add(ring, place, frame.to(self._frames.device))
