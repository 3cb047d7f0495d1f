"""Minibatches of one size, from a replay buffer of either kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.transitions import TransitionBatch


@dataclass(frozen=True)
class Sampler:
    """Draws from `replay` what an update learns from."""

    replay: ReplayBuffer
    batch_size: int
    importance_exponent: Callable[[int], float]
    """beta of prioritized replay, as a function of the step"""

    def minibatches(self, generator: np.random.Generator, number: int, steps: int) -> Iterator[TransitionBatch]:
        """`number` minibatches to learn from at step `steps`."""
        return self.replay.minibatches(generator, self.batch_size, number, self.importance_exponent(steps))
