"""The formulas of Q-learning against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from wn_dqn.training.q_learning import LOSSES, Reduction, clipped_td_loss, double_q_learning_target, q_learning_target


def test_target_is_reward_plus_discounted_best_next_value() -> None:
    reward = torch.tensor([1.0, -1.0, 0.0])
    discount = torch.tensor([0.5, 0.9, 0.99])
    next_q = torch.tensor([[1.0, 4.0, 2.0], [-3.0, -2.0, -5.0], [0.0, -1.0, 0.0]])
    torch.testing.assert_close(q_learning_target(reward, discount, next_q), torch.tensor([3.0, -2.8, 0.0]))


def test_the_value_after_a_terminal_transition_has_no_influence() -> None:
    target = q_learning_target(torch.tensor([1.0, -1.0]), torch.zeros(2), torch.tensor([[1e6, 2.0], [-1e6, -7.0]]))
    assert target.tolist() == [1.0, -1.0]


def test_the_double_target_is_the_target_networks_value_of_the_online_networks_choice() -> None:
    next_q = torch.tensor([[1.0, 4.0, 2.0], [-3.0, -2.0, -5.0], [1e6, 2.0, 3.0]])
    online = torch.tensor([[0.0, -1.0, 5.0], [9.0, 1.0, 1.0], [7.0, 0.0, 0.0]])
    y = double_q_learning_target(torch.tensor([1.0, -1.0, 1.0]), torch.tensor([0.5, 0.9, 0.0]), next_q, online)
    torch.testing.assert_close(y, torch.tensor([1.0 + 0.5 * 2.0, -1.0 - 0.9 * 3.0, 1.0]))


Q = [[0.5, 9.0], [9.0, 3.0], [-2.0, 9.0], [9.0, 1.0]]  # 9: the value of the action not taken
ACTION = [0, 1, 0, 1]
TARGET = [0.0, 1.0, 0.0, 1.0]
# TD errors Q(s, a) - y: 0.5, 2, -2, 0. Huber: 0.5^2/2 = 0.125 inside [-1, 1]; |2| - 1/2 = 1.5 outside. Half the
# squares: 0.125, 2, 2, 0. The gradient of the one is the clipped error, of the other the error.
LOSS = {"huber": 0.125 + 1.5 + 1.5 + 0.0, "mse": 0.125 + 2.0 + 2.0 + 0.0}
GRADIENT = {
    "huber": [[0.5, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]],
    "mse": [[0.5, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, 0.0]],
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("mean", 4)])
def test_loss_and_its_gradient(reduction: Reduction, divisor: int, name: str) -> None:
    q = torch.tensor(Q, requires_grad=True)
    loss = LOSSES[name](q, torch.tensor(ACTION), torch.tensor(TARGET), reduction=reduction)
    assert loss.shape == ()
    assert loss.item() == LOSS[name] / divisor
    loss.backward()
    assert q.grad is not None
    assert (q.grad * divisor).tolist() == GRADIENT[name]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("mean", 4)])
def test_weights_multiply_each_loss_and_its_gradient(reduction: Reduction, divisor: int, name: str) -> None:
    """The mean is over four transitions, not over weights of 1.75 in all."""
    q = torch.tensor(Q, requires_grad=True)
    weight = torch.tensor([1.0, 0.5, 0.25, 0.0])
    loss = LOSSES[name](q, torch.tensor(ACTION), torch.tensor(TARGET), reduction=reduction, weight=weight)
    second_and_third = 1.5 if name == "huber" else 2.0
    assert loss.item() == (0.125 + 0.5 * second_and_third + 0.25 * second_and_third) / divisor
    loss.backward()
    assert q.grad is not None
    assert (q.grad * divisor).tolist() == (torch.tensor(GRADIENT[name]) * weight[:, None]).tolist()


@pytest.mark.parametrize("error", [-1e4, -1.01, -1.0, -0.99, -0.3, 0.0, 0.3, 0.99, 1.0, 1.01, 1e4])
def test_the_gradient_is_clipped_at_one(error: float) -> None:
    q = torch.tensor([[0.0, error]], dtype=torch.float64, requires_grad=True)
    clipped_td_loss(q, torch.tensor([1]), torch.zeros(1, dtype=torch.float64), reduction="sum").backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[0.0, max(-1.0, min(1.0, error))]]
