"""The epsilon-greedy choice, with the random numbers as arguments.

Callers draw the random numbers, because each has its own stream, and its results depend on the order of the draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Choice(NamedTuple):
    """The chosen actions and the Q-values."""

    action: NDArray[np.int64]
    """[N]"""
    q: Tensor | None
    """Q-values [N, A]; None if they were not computed, because all games explore"""


def epsilon_greedy(
    explore: NDArray[np.bool_], random_action: NDArray[np.int64], q_values: Callable[[Tensor], Tensor], obs: Tensor
) -> Choice:
    """`random_action` [N] where `explore` [N], else the action with the largest Q-value, the first of equal ones.

    `q_values` gives Q-values [N, A] of observations `obs` [N, ...].
    """
    if explore.all():
        return Choice(random_action, None)
    q = q_values(obs)
    return Choice(np.where(explore, random_action, q.argmax(dim=1).cpu().numpy()), q)
