"""The epsilon-greedy choice by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wn_dqn.evaluation.epsilon_greedy import epsilon_greedy

Q = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 5.0], [0.0, 0.0, 9.0]])


def test_chance_where_it_explores_and_the_first_largest_value_elsewhere() -> None:
    explore, random_action = np.array([False, False, True]), np.array([2, 2, 1])
    action, q = epsilon_greedy(explore, random_action, lambda obs: Q * obs, torch.ones(3, 1))
    assert action.tolist() == [1, 0, 1]
    assert action.dtype == np.int64
    assert q is not None
    assert torch.equal(q, Q)


def test_the_network_is_not_asked_when_all_explore() -> None:
    def never(_obs: Tensor) -> Tensor:
        raise AssertionError

    action, q = epsilon_greedy(np.array([True, True]), np.array([2, 0]), never, torch.ones(2, 1))
    assert action.tolist() == [2, 0]
    assert q is None
