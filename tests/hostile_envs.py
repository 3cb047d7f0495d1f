"""An environment that does one thing wrong."""

from __future__ import annotations

import os
import threading
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

WRONGS: dict[str, Any] = {
    "shape": np.zeros(4, np.float32),
    "scalar": 1.0,
    "empty": np.zeros(0, np.float32),
    "transposed": np.zeros((3, 1), np.float32),
    "NaN": np.array([0, np.nan, 0], np.float32),
    "infinity": np.array([0, 0, -np.inf], np.float32),
    "beyond float32": np.array([0, 1e300, 0]),
    "complex": np.zeros(3, np.complex64),
    "text": np.array(["a", "b", "c"]),
    "objects": np.array([None, {}, []], object),
    "ragged": [[1.0], [1.0, 2.0]],
    "dict": {"obs": np.zeros(3)},
    "None": None,
}
"""observations that are not what the space says"""


class Hostile(gymnasium.Env[Any, int]):
    """Three numbers, two actions; `wrong` happens in step number `after`, counted over all games, or in a reset."""

    def __init__(self, wrong: str = "", after: int = 1, length: int = 3) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.wrong, self.after, self.length = wrong, after, length
        self.steps, self.count = 0, 0
        if wrong == "error in the constructor":
            raise KeyError("of a constructor")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        if self.wrong == "hang in reset":
            threading.Event().wait()
        if self.wrong == "error in reset" and self.steps >= self.after:
            raise KeyError("of a reset")
        if self.wrong == "no info":
            return self._obs()
        if self.wrong.startswith("reset with ") and self.steps >= self.after:
            return WRONGS[self.wrong.removeprefix("reset with ")], {}
        return self._obs(), {}

    def step(self, action: int) -> Any:
        self.steps += 1
        self.count += 1
        obs, reward, over = self._obs(), 0.5, self.count >= self.length
        if self.steps == self.after:
            if self.wrong.startswith("exit once ") and os.path.exists(file := self.wrong.removeprefix("exit once ")):
                os.unlink(file)
                os._exit(3)
            if self.wrong == "error in step":
                raise KeyError("of a step")
            if self.wrong == "exit":
                os._exit(3)
            if self.wrong == "SystemExit":
                raise SystemExit("it is enough")
            if self.wrong == "four values":
                return obs, reward, over, {}
            if self.wrong.startswith("reward "):
                rewards = {"NaN": np.nan, "infinity": np.inf, "text": "much", "None": None, "list": [1.0, 2.0]}
                return obs, rewards[self.wrong.removeprefix("reward ")], over, False, {}
            if self.wrong == "ambiguous end":
                return obs, reward, np.array([True, False]), False, {}
            if self.wrong in WRONGS:
                return WRONGS[self.wrong], reward, over, False, {}
        return obs, reward, over, False, {}

    def _obs(self) -> NDArray[np.float32]:
        return np.array([self.count / 10, self.steps / 1000, 1.0], np.float32)
