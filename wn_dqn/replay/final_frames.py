"""The final frames of truncated games, which no slot of the replay contains.

After a truncation, the next slot starts the next game. But the next observation of the last transition needs the final
frame of the old game. It is stored here for as long as that transition.
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
        """`frames` [..., *stored_shape] are the replay's, which define the shape, dtype and device of one frame."""
        self._shape = (num_envs, num_slots)
        self._frames = frames.new_empty((0, *frames.shape[1:]))
        self._row = np.zeros((0, 0), np.int64)  # [num_envs, num_slots]: rows of `_frames`; -1: none
        self._free: list[int] = []
        self.any = False
        """whether a final frame was ever added"""

    def add(self, env: int, slot: int, frame: Tensor) -> None:
        """Store the final `frame` of the transition at `slot` of ring `env`."""
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
        """Remove the final frames at `slot` of all rings."""
        if self.any:
            self._free += [row for row in self._row[:, slot].tolist() if row >= 0]
            self._row[:, slot] = -1

    def rows(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows for :meth:`frames`, in the shape of `env` and `slot`; -1 where there is no final frame."""
        return self._row[env, slot]

    def frames(self, rows: Tensor) -> Tensor:
        """The frames at `rows` [k]: [k, *stored_shape]."""
        return self._frames.index_select(0, rows)

    def state_dict(self) -> dict[str, Any]:
        """The frames with their rings and slots; empty if there are none."""
        if not self.any:
            return {}
        env, slot = np.nonzero(self._row >= 0)
        rows = torch.from_numpy(self._row[env, slot]).to(self._frames.device)
        return {"final_env": env, "final_slot": slot, "final_frames": self.frames(rows).cpu().numpy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`. Raises ValueError if it does not fit this replay."""
        if "final_frames" not in state:
            return
        env, slot, frames = (torch.as_tensor(state[name]) for name in ("final_env", "final_slot", "final_frames"))
        places = torch.stack([env, slot], dim=1)
        inside = ((places >= 0) & (places < torch.tensor(self._shape))).all()
        if frames.shape[1:] != self._frames.shape[1:] or frames.dtype != self._frames.dtype or not inside:
            raise ValueError("the final frames have another shape than this run's replay buffer")
        for (ring, place), frame in zip(places.tolist(), frames, strict=True):
            self.add(ring, place, frame.to(self._frames.device))
