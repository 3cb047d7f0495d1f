"""Instruments, each against an example worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from wn_dqn.evaluation.diagnostics import VisitedStates, discounted_returns
from wn_dqn.nn.instruments import (
    activation_metrics,
    churn,
    dormant_share,
    feature_rank,
    mean_angle_degrees,
    mean_relative_norm,
    spectral_norm,
    td_metrics,
    update_metrics,
    weight_metrics,
)
from wn_dqn.nn.standard import Linear
from wn_dqn.nn.weight_norm import WeightNormLinear


def test_relative_norm() -> None:
    """5/10 and 2/1; not the norm of all over the norm of all."""
    change = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
    weight = torch.tensor([[6.0, 8.0], [1.0, 0.0]])
    assert mean_relative_norm(change, weight) == pytest.approx((0.5 + 2.0) / 2)


def test_relative_norm_of_convolutions() -> None:
    """A unit's weight vector has all its channels and positions: ||(1, 1, 1, 1)|| = 2."""
    assert mean_relative_norm(torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 4.0)) == pytest.approx(2 / 8)


@pytest.mark.parametrize(
    ("before", "after", "degrees"),
    [
        ([[1.0, 0.0]], [[0.0, 3.0]], 90.0),
        ([[2.0, 0.0]], [[5.0, 5.0]], 45.0),
        ([[2.0, 1.0]], [[-4.0, -2.0]], 180.0),
        ([[2.0, 1.0]], [[6.0, 3.0]], 0.0),
        ([[1.0, 0.0], [0.0, 1.0]], [[1.0, math.sqrt(3.0)], [0.0, 2.0]], 30.0),  # the mean of 60 and 0
        ([[1.0, 0.0]], [[1.0, 1e-4]], math.degrees(1e-4)),  # whose cosine is 1 in float32
    ],
)
def test_angle(before: list[list[float]], after: list[list[float]], degrees: float) -> None:
    angle = mean_angle_degrees(torch.tensor(before), torch.tensor(after))
    assert angle == pytest.approx(degrees, rel=1e-4, abs=1e-5)


def one_unit(v: list[float], g: float) -> WeightNormLinear:
    layer = WeightNormLinear(2, 1)
    with torch.no_grad():
        layer.v.copy_(torch.tensor([v]))
        layer.g.fill_(g)
    return layer


def test_an_update_of_a_weight_normalized_layer() -> None:
    """v from (3, 4) by (4, -3), at a right angle: 5/5 long, and 45 degrees of turn; the gradient is 2.5 long."""
    before, after = one_unit([3.0, 4.0], 2.0), one_unit([7.0, 1.0], 7.0)
    after.v.grad = torch.tensor([[1.5, -2.0]])
    norms = {"w_norm_mean": pytest.approx(2.0), "g_mean": 2.0, "v_norm_mean": 5.0}
    assert weight_metrics(before) == {**norms, "sigma_1": pytest.approx(2.0)}
    assert update_metrics(before, after) == {
        "step_ratio": pytest.approx(1.0),
        # by the law of cosines: w from a length of 2 to one of 7, at 45 degrees
        "w_step_ratio": pytest.approx(math.sqrt(4.0 + 49.0 - 28.0 * math.sqrt(0.5)) / 2.0),
        "angle_degrees": pytest.approx(45.0),
        "gradient_ratio": pytest.approx(0.5),
    }
    turned = update_metrics(before, one_unit_with_gradient([3.0, 4.0], -2.0))  # g < 0 turns w round, and not v
    assert turned["angle_degrees"] == pytest.approx(180.0)
    assert turned["step_ratio"] == 0.0


def one_unit_with_gradient(v: list[float], g: float) -> WeightNormLinear:
    layer = one_unit(v, g)
    layer.v.grad = torch.zeros_like(layer.v)
    return layer


def test_an_update_of_a_standard_layer() -> None:
    """There w is what is trained: by 1 of 2, and at right angles."""
    before, after = Linear(2, 1), Linear(2, 1)
    with torch.no_grad():
        before.weight.copy_(torch.tensor([[2.0, 0.0]]))
        after.weight.copy_(torch.tensor([[2.0, 1.0]]))
    after.weight.grad = torch.tensor([[0.0, 3.0]])
    assert weight_metrics(before) == {"w_norm_mean": 2.0, "sigma_1": 2.0}
    assert update_metrics(before, after) == {
        "step_ratio": pytest.approx(0.5),
        "w_step_ratio": pytest.approx(0.5),
        "angle_degrees": pytest.approx(math.degrees(math.atan(0.5))),
        "gradient_ratio": pytest.approx(1.5),
    }


def test_activations_of_a_linear_layer() -> None:
    """Outputs (1, 3), (-1, -1), (0, -4) of three units: means 2, -1, -2; deviations 1, 0, 2; two are dead."""
    layer = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 3.0], [-1.0, -1.0], [0.0, -4.0]]))
    figures = activation_metrics(layer, {"one": layer}, torch.eye(2))
    assert figures == {
        "one": {
            "preactivation_mean": pytest.approx((2 - 1 - 2) / 3),
            "preactivation_std": pytest.approx((1 + 0 + 2) / 3),
            "dead_share": pytest.approx(2 / 3),
            "dormant_share": pytest.approx(2 / 3),  # means after the ReLU 2, 0, 0
        }
    }


def test_activations_of_a_convolution() -> None:
    """A channel is one unit: it lives if it is positive at one position of one image."""
    layer = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        layer.bias.zero_()  # type: ignore[union-attr]
    images = torch.zeros(2, 1, 1, 2)
    images[1, 0, 0, 1] = 4.0
    figures = activation_metrics(layer, {"one": layer}, images)["one"]
    assert figures["preactivation_mean"] == 0.0  # 1 and -1
    assert figures["preactivation_std"] == pytest.approx(math.sqrt(3.0))  # of 0, 0, 0, 4
    assert figures["dead_share"] == 0.5


def test_activations_leave_running_averages_alone() -> None:
    """And the mode; they are those of evaluation mode: mean 0 and variance 1 are what a new layer assumes."""
    layer = nn.BatchNorm1d(1, eps=0.0).train()
    figures = activation_metrics(layer, {"one": layer}, torch.tensor([[2.0], [6.0]]))["one"]
    assert (figures["preactivation_mean"], figures["preactivation_std"]) == (4.0, 2.0)
    assert layer.training
    assert layer.running_mean is not None
    assert layer.running_mean.item() == 0.0


def test_rank_of_a_named_layers_input() -> None:
    """Of what the layer was given, not of what it puts out."""
    first, second = Linear(3, 3), Linear(3, 1)
    with torch.no_grad():
        first.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    network = nn.Sequential(first, second)
    figures = activation_metrics(network, {"0": first, "1": second}, torch.eye(3), ["1"])
    assert "feature_rank" not in figures["0"]
    assert figures["1"]["feature_rank"] == 2.0


@pytest.mark.parametrize("rank", [0, 1, 5, 12])
def test_feature_rank_of_equal_singular_values_is_the_rank(rank: int) -> None:
    generator = np.random.default_rng(rank)
    left, _ = np.linalg.qr(generator.standard_normal((40, 12)))
    right, _ = np.linalg.qr(generator.standard_normal((12, 12)))
    features = 3.0 * left[:, :rank] @ right[:, :rank].T
    assert feature_rank(torch.from_numpy(features).float()) == np.linalg.matrix_rank(features, tol=1e-6) == rank


def test_feature_rank_leaves_out_a_hundredth_of_the_sum() -> None:
    """90 + 9.5 of 100 are 99%, and 90 + 8.5 are not."""
    assert feature_rank(torch.diag(torch.tensor([0.5, 90.0, 9.5]))) == 2.0
    assert feature_rank(torch.diag(torch.tensor([1.5, 90.0, 8.5]))) == 3.0
    assert math.isnan(feature_rank(torch.tensor([[1.0, math.nan]])))


def test_dormant_units() -> None:
    """Means 0, 0.25, 3 and 8.75, of which the mean is 3: a tenth of it is 0.3."""
    activation = torch.tensor([[0.0, 0.5, 3.0, 8.75], [0.0, 0.0, 3.0, 8.75]])
    assert dormant_share(activation) == 0.5
    assert dormant_share(activation.view(1, 2, 4, 1).transpose(1, 2)) == 0.5  # a convolution's: [B, units, H, W]
    assert dormant_share(torch.zeros(2, 3)) == 1.0


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 2, 3, 3)])
def test_spectral_norm(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = np.linalg.norm(weight.reshape(shape[0], -1).astype(np.float64), 2)
    assert spectral_norm(torch.from_numpy(weight)) == pytest.approx(expected, rel=1e-9)


def test_spectral_norm_of_what_has_none() -> None:
    assert spectral_norm(torch.zeros(2, 3)) == 0.0
    assert math.isnan(spectral_norm(torch.tensor([[1.0, math.inf]])))


def test_churn() -> None:
    """The greedy action of the second state of four changes; that of the last stays, though all its values move."""
    before = torch.tensor([[1.0, 0.0], [1.0, 0.9], [0.0, 2.0], [3.0, 4.0]])
    after = torch.tensor([[1.0, 0.5], [1.0, 1.1], [0.0, 2.0], [-4.0, -3.0]])
    assert churn(before, after) == 0.25


def test_td_errors() -> None:
    assert td_metrics(torch.tensor([0.5, -1.0, 1.5, -3.0])) == {"abs_td_error": 1.5, "clipped_share": 0.5}


def test_discounted_returns() -> None:
    """Game 0: 1, 2, 4 to a terminal step, then one that nobody saw the end of. Game 1: a cut, then a terminal step."""
    reward = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 3.0], [9.0, 1.0]])
    terminal = np.array([[0, 0], [0, 0], [1, 0], [0, 1]], bool)
    cut = np.array([[0, 0], [0, 1], [0, 0], [0, 0]], bool)
    expected = [[1 + 0.5 * 2 + 0.25 * 4, np.nan], [2 + 0.5 * 4, np.nan], [4, 3 + 0.5 * 1], [np.nan, 1]]
    np.testing.assert_allclose(discounted_returns(reward, terminal, cut, 0.5), expected)


@pytest.mark.parametrize(("clip", "returns"), [(True, [1 - 0.5, 1.0]), (False, [100.0 - 3.5, 1.0])])
def test_visited_states(clip: bool, returns: list[float]) -> None:
    """Rewards 100, -7, 1, clipped or not; the second and the third step are terminal."""
    visited = VisitedStates(0.5, clip_rewards=clip)
    no, yes = np.array([False]), np.array([True])
    visited.add(np.array([4.0]), np.array([100.0]), no, no)
    visited.add(np.array([np.nan]), np.array([-7.0]), yes, no)  # the network was not asked
    visited.add(np.array([1.0]), np.array([1.0]), yes, no)
    visited.add(np.array([50.0]), np.array([1.0]), no, no)  # what came of it is not known
    max_q, obtained = visited.means()
    assert max_q == 2.5
    assert obtained == pytest.approx(np.mean(returns))


def test_no_visited_states() -> None:
    visited = VisitedStates(0.5, clip_rewards=True)
    assert np.isnan(visited.means()).all()
    visited.add(np.array([1.0]), np.array([1.0]), *np.zeros((2, 1), bool))
    assert np.isnan(visited.means()).all()
