"""Folding: the same Q-values from plain weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.folding import fold, folded
from wn_dqn.nn.parameterization import PARAMETERIZATIONS
from wn_dqn.nn.q_network import QNetwork


@pytest.mark.parametrize("param", PARAMETERIZATIONS)
def test_a_folded_network_computes_the_same(param: str) -> None:
    network = QNetwork(PARAMETERIZATIONS[param], 5)
    generator = torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (16, 4, 84, 84), dtype=torch.uint8, generator=generator)
    initialize_from_data(network, obs, generator)
    network.eval()
    plain = fold(network, 5)
    assert sorted(plain.state_dict()) == sorted(
        f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "hidden", "output") for kind in ("weight", "bias")
    )
    with torch.no_grad():
        torch.testing.assert_close(plain(obs), network(obs), rtol=1e-5, atol=1e-5)


def test_a_layer_with_running_statistics_says_itself_what_it_is() -> None:
    """Batch normalization, as a layer may have it: y = gamma (w.x - mean)/sqrt(var + eps) + beta."""

    class BatchNormalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)

        def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
            assert self.norm.running_var is not None
            assert self.norm.running_mean is not None
            scale = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
            return scale[:, None] * self.linear.weight, self.norm.bias - scale * self.norm.running_mean

    layer = BatchNormalized()
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        layer.norm(layer.linear(x))
    layer.eval()
    weight, bias = folded(layer)
    torch.testing.assert_close(nn.functional.linear(x, weight, bias), layer.norm(layer.linear(x)))
