"""Compares the Q-values of states that an evaluation visits with the returns obtained from there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def discounted_returns(
    reward: NDArray[np.float64], terminal: NDArray[np.bool_], truncated: NDArray[np.bool_], discount: float
) -> NDArray[np.float64]:
    """The discounted return of each step, up to the next terminal step: r_t + discount r_{t+1} + ...

    All arrays are [T, N]. The return is NaN if it is unknown: if a truncation or the end of the arrays comes before the
    next terminal step.
    """
    returns = np.empty_like(reward)
    following = np.full(reward.shape[1], math.nan)
    for t in reversed(range(len(reward))):
        following = reward[t] + np.where(terminal[t], 0.0, np.where(truncated[t], math.nan, discount * following))
        returns[t] = following
    return returns


class VisitedStates:
    """Max-Q and the discounted returns of the states that an evaluation visits.

    Their difference is the overestimation that the maximum in the Q-learning target causes (Thrun & Schwartz 1993). It
    is measured as in van Hasselt, Guez & Silver (2016, Figure 3): max_a Q(s, a) minus the discounted return, with
    clipped rewards and ends of lives as in learning. The return is that of the evaluated policy, with its random
    actions. The greedy policy's return can be higher. In that case, the measured overestimation is too large.
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
        """Add a step of N games: max-Q of the states before it (NaN if not computed), and its outcome; all [N]."""
        reward = reward.astype(np.float64)
        self._steps.append((max_q, np.clip(reward, -1.0, 1.0) if self._clip_rewards else reward, terminal, truncated))

    def means(self) -> tuple[float, float]:
        """Mean max-Q and mean discounted return over the states for which both are known; NaN if there are none."""
        if not self._steps:
            return math.nan, math.nan
        max_q, reward, terminal, truncated = (np.stack(column) for column in zip(*self._steps, strict=True))
        returns = discounted_returns(reward, terminal, truncated, self._discount)
        known = np.isfinite(max_q) & np.isfinite(returns)
        if not known.any():
            return math.nan, math.nan
        return float(max_q[known].mean()), float(returns[known].mean())
