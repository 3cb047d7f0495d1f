"""Saliency, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.saliency import Method, saliency_map


def q_network(x: Tensor) -> Tensor:
    """Two Q-values of three pixels: a, b in the newest frame; c in the oldest one, where a is."""
    a, b, c = x[:, 3, 0, 0], x[:, 3, 0, 1], x[:, 0, 0, 0]
    h1, h2, h3 = F.relu(2 * a - b), torch.relu(b - a), nn.ReLU()(c)
    return torch.stack([3 * h1 + 9 * h2 - 4 * h3, h2], dim=1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # a = 5, b = 4, c = 7: h1 and h3 are active. dQ/da = 6, dQ/db = -3, dQ/dc = -4.
        ("gradient", [6 * 5 + 4 * 7, 3 * 4]),
        # The gradient at h3 is negative and does not pass: c counts nothing.
        ("guided", [6, 3]),
    ],
)
def test_three_pixels(method: Method, expected: list[float]) -> None:
    obs = np.zeros((4, 84, 84), np.uint8)
    obs[3, 0, 0], obs[3, 0, 1], obs[0, 0, 0] = 5, 4, 7
    saliency = saliency_map(q_network, obs, 0, method)
    assert saliency.shape == (84, 84)
    assert saliency[0, :2].tolist() == expected
    assert np.count_nonzero(saliency) == 2
    assert not saliency_map(q_network, obs, 1, method).any()  # h2 is off
    relu = torch.tensor([-1.0, 2.0], requires_grad=True)
    F.relu(relu).sum().backward()  # no ReLU stays guided
    assert relu.grad.tolist() == [0, 1]
