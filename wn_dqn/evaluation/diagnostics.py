"""What Q-values promise of the states that an evaluation visits, and what came of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def discounted_returns(
    reward: NDArray[np.float64], terminal: NDArray[np.bool_], truncated: NDArray[np.bool_], discount: float
) -> NDArray[np.float64]:
    """The return of each step, r_t + discount r_{t+1} + ... up to the next terminal step; all arrays are [T, N].

    NaN where it is not known: before a truncation without a terminal step, and before the end of the arrays.
    """
    returns = np.empty_like(reward)
    following = np.full(reward.shape[1], math.nan)
    for t in reversed(range(len(reward))):
        following = reward[t] + np.where(terminal[t], 0.0, np.where(truncated[t], math.nan, discount * following))
        returns[t] = following
    return returns


class VisitedStates:
    """What Q-values said of the states that an evaluation went through, and what came of it.

    Their difference is the overestimation that the maximum in the Q-learning target breeds (Thrun & Schwartz 1993),
    measured as by van Hasselt, Guez & Silver (2016, Figure 3): max_a Q(s, a) against the discounted return, with
    rewards clipped and lives ended as the learner sees them. The return is that of the test's policy, random actions
    included; the greedy policy's may be higher, and the overestimation lower than told.
    """

    def __init__(self, discount: float, *, clip_rewards: bool) -> None:
        self._discount = discount
        self._clip_rewards = clip_rewards
        self._steps: list[tuple[NDArray[Any], ...]] = []

    def add(
        self,
        max_q: NDArray[np.float64],
        reward: NDArray[np.floating],
        terminal: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        """A step of N games: max-Q of the states before it (NaN: not asked), and what followed; all [N]."""
        reward = reward.astype(np.float64)
        self._steps.append((max_q, np.clip(reward, -1.0, 1.0) if self._clip_rewards else reward, terminal, truncated))

    def means(self) -> tuple[float, float]:
        """Mean max-Q and mean discounted return over the states of which both are known; NaN if there are none."""
        if not self._steps:
            return math.nan, math.nan
        max_q, reward, terminal, truncated = (np.stack(column) for column in zip(*self._steps, strict=True))
        returns = discounted_returns(reward, terminal, truncated, self._discount)
        known = np.isfinite(max_q) & np.isfinite(returns)
        if not known.any():
            return math.nan, math.nan
        return float(max_q[known].mean()), float(returns[known].mean())
