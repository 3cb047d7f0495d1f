"""The epsilon-greedy choice, given its random numbers.

Each caller draws them itself: from a stream of its own, and in an order that its results depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Choice(NamedTuple):
    """What was chosen, and from what."""

    action: NDArray[np.int64]
    """[N]"""
    q: Tensor | None
    """Q-values [N, A]; None if the network was not asked, because all explore"""


def epsilon_greedy(
    explore: NDArray[np.bool_], random_action: NDArray[np.int64], q_values: Callable[[Tensor], Tensor], obs: Tensor
) -> Choice:
    """`random_action` [N] where `explore` [N], else the action of the largest Q-value, the first of equals.

    `q_values` gives Q-values [N, A] of observations `obs` [N, ...].
    """
    if explore.all():
        return Choice(random_action, None)
    q = q_values(obs)
    return Choice(np.where(explore, random_action, q.argmax(dim=1).cpu().numpy()), q)
