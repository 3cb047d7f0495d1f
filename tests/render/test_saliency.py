"""Saliency, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.networks import NatureNetwork
from wn_dqn.render.saliency import Method, saliency_map

OBS_SHAPE = (4, 84, 84)


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


def guided_by_hand(network: NatureNetwork, obs: Tensor, action: int) -> Tensor:
    """Layer by layer from the output down: what is negative does not pass, nor what goes to a unit that is off."""
    inputs, x = [], obs[None].float() / 255
    layers = [network.conv1, network.conv2, network.conv3, network.hidden, network.output]
    for layer in layers:
        x = x.flatten(1) if layer is network.hidden else x
        inputs.append(x)
        x = layer(x).clamp(min=0)
    gradient = F.one_hot(torch.tensor([action]), x.shape[1]).float()
    for layer, before in zip(reversed(layers), reversed(inputs), strict=True):
        before = before.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(layer(before), before, gradient)
        if layer is network.hidden:
            gradient = gradient.view(1, 64, 7, 7)
        if layer is not network.conv1:
            gradient = gradient.clamp(min=0) * (before.view_as(gradient) > 0)
    return gradient[0].abs().sum(dim=0) / 255


def test_guided_backpropagation_reaches_the_relus_of_the_q_network() -> None:
    generator = torch.Generator().manual_seed(0)
    network = NatureNetwork(layer_kit("standard"), OBS_SHAPE, 4)
    batch = torch.randint(0, 256, (32, 4, 84, 84), dtype=torch.uint8, generator=generator)
    initialize_from_data(network, batch, generator)
    network.requires_grad_(False)
    guided = torch.from_numpy(saliency_map(network, batch[0].numpy(), 2, "guided"))
    torch.testing.assert_close(guided, guided_by_hand(network, batch[0], 2), rtol=1e-4, atol=1e-7)
    x = batch[:1].float().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 2], x)
    assert not torch.allclose(guided, gradient[0].abs().sum(dim=0), rtol=0.1)
