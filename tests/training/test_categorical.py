"""The formulas of C51 against numbers worked out by hand, and against the paper's loop over atoms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wn_dqn.nn.value_distribution import Support
from wn_dqn.training.categorical import categorical_loss, categorical_target, divergence, project

FIVE = Support(-1.0, 1.0, 5)
P = [0.1, 0.2, 0.4, 0.2, 0.1]  # of -1, -0.5, 0, 0.5, 1


def test_the_atoms_are_evenly_spaced() -> None:
    atoms = Support(-10.0, 10.0, 51).atoms(torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(atoms, torch.tensor([-10.0 + 0.4 * i for i in range(51)], dtype=torch.float64))
    assert FIVE.step == 0.5


def test_the_q_value_is_the_mean_of_the_softmax() -> None:
    """Probabilities 1/4, 1/4, 1/2 of -1, 0, 1."""
    logits = torch.tensor([[7.0, 7.0, 7.0 + math.log(2.0)]])
    torch.testing.assert_close(Support(-1.0, 1.0, 3).q_values(logits), torch.tensor([0.25]))


@pytest.mark.parametrize(
    ("reward", "discount", "expected"),
    [
        # Returns -0.25, 0, 0.25, 0.5, 0.75: those between two atoms give half to each.
        (0.25, 0.5, [0.0, 0.05, 0.05 + 0.2 + 0.2, 0.2 + 0.2 + 0.05, 0.05]),
        # Returns -0.9, -0.4, 0.1, 0.6, 1.1: a fifth of the step above an atom; the last is clipped.
        (0.1, 1.0, [0.08, 0.02 + 0.16, 0.04 + 0.32, 0.08 + 0.16, 0.04 + 0.1]),
        (0.0, 1.0, P),
        (3.0, 1.0, [0.0, 0.0, 0.0, 0.0, 1.0]),  # all are clipped
        (-0.75, 0.0, [0.5, 0.5, 0.0, 0.0, 0.0]),  # terminal: nothing but the reward
        (-7.0, 0.0, [1.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_the_target_by_hand(reward: float, discount: float, expected: list[float]) -> None:
    """The second action is chosen; the first one's distribution must not matter."""
    logits = torch.tensor([[[9.0, 0.0, 0.0, 0.0, 0.0], [math.log(p) for p in P]]])
    q = torch.tensor([[0.0, 1.0]])
    target = categorical_target(torch.tensor([reward]), torch.tensor([discount]), logits, q, FIVE)
    torch.testing.assert_close(target, torch.tensor([expected]), rtol=0, atol=1e-6)


def projected_by_loop(returns: list[float], p: list[float], support: Support) -> list[float]:
    """Algorithm 1 of the paper, atom by atom."""
    m = [0.0] * support.num_atoms
    for x, probability in zip(returns, p, strict=True):
        b = (min(max(x, support.v_min), support.v_max) - support.v_min) / support.step
        low = min(math.floor(b), support.num_atoms - 2)
        m[low] += probability * (low + 1 - b)
        m[low + 1] += probability * (b - low)
    return m


@given(
    st.integers(2, 60),
    st.floats(-20, 20),
    st.floats(0.01, 30),
    st.lists(st.tuples(st.floats(-40, 40), st.floats(0.01, 1)), min_size=1, max_size=8),
)
def test_the_projection_is_the_papers_loop(
    num_atoms: int, v_min: float, width: float, weighted: list[tuple[float, float]]
) -> None:
    """And it is a distribution, whose mean is that of the clipped returns."""
    support = Support(v_min, v_min + width, num_atoms)
    returns = [x for x, _ in weighted]
    p = [weight / sum(weight for _, weight in weighted) for _, weight in weighted]
    x, probabilities = (torch.tensor([row], dtype=torch.float64) for row in (returns, p))
    (m,) = project(x, probabilities, support)
    torch.testing.assert_close(m.tolist(), projected_by_loop(returns, p, support), rtol=0, atol=1e-9)
    assert m.sum().item() == pytest.approx(1.0)
    clipped = x.clamp(support.v_min, support.v_max)
    assert support.mean(m).item() == pytest.approx((clipped * probabilities).sum().item(), abs=1e-7)


LOGITS = torch.tensor([[[0.0, 0.0], [5.0, 1.0]], [[3.0, 3.0 + math.log(3.0)], [1.0, 1.0]]], dtype=torch.float64)
ACTION = torch.tensor([0, 0])
TARGET = torch.tensor([[0.25, 0.75], [0.0, 1.0]], dtype=torch.float64)
# Probabilities 1/2, 1/2 and 1/4, 3/4 against the targets.
KL = [0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5), math.log(1.0 / 0.75)]


def test_the_divergence_by_hand() -> None:
    torch.testing.assert_close(divergence(LOGITS, ACTION, TARGET), torch.tensor(KL, dtype=torch.float64))


def test_nothing_is_left_where_the_target_is_met() -> None:
    p = LOGITS[:, 0].softmax(dim=1)
    torch.testing.assert_close(divergence(LOGITS, ACTION, p), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 0.125], dtype=torch.float64)])
@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("mean", 2)])
def test_the_gradient_is_that_of_the_cross_entropy(reduction: str, divisor: int, weight: Tensor | None) -> None:
    """p - target of the action taken, times its weight."""
    logits = LOGITS.clone().requires_grad_()
    loss = categorical_loss(logits, ACTION, TARGET, reduction=reduction, weight=weight)  # type: ignore[arg-type]
    loss.backward()
    of_each = torch.ones(2, dtype=torch.float64) if weight is None else weight
    assert loss.item() == pytest.approx(sum(k * w.item() for k, w in zip(KL, of_each, strict=True)) / divisor)
    assert logits.grad is not None
    expected = torch.zeros(2, 2, 2, dtype=torch.float64)
    expected[:, 0] = torch.tensor([[0.25, -0.25], [0.25, -0.25]]) * of_each[:, None] / divisor
    torch.testing.assert_close(logits.grad, expected)
