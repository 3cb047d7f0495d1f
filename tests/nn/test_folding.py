"""Folding: the same Q-values from plain weights."""

from __future__ import annotations

import pytest
import torch

from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.nn.batch_statistics import adopt_batch_statistics
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.folding import fold
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.networks import DuelingNatureNetwork, NatureNetwork

OBS_SHAPE = (4, 84, 84)


@pytest.mark.parametrize(
    ("param", "kind"),
    [
        *((param, NatureNetwork) for param in PARAMETERIZATIONS),
        *((param, DuelingNatureNetwork) for param in (*list(PARAMETERIZATIONS)[:6], "ln")),
    ],
)
def test_a_folded_network_computes_the_same(param: str, kind: type[NatureNetwork]) -> None:
    network = kind(layer_kit(param), OBS_SHAPE, 5)
    generator = torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (16, 4, 84, 84), dtype=torch.uint8, generator=generator)
    initialize_from_data(network, obs, generator)
    adopt_batch_statistics(network, obs)
    network.train()
    network(obs[:5])  # running statistics that are those of no batch
    network.eval()
    plain = fold(network)
    assert (
        plain.state_dict().keys() == kind(layer_kit(PARAMETERIZATIONS[param].folded), OBS_SHAPE, 5).state_dict().keys()
    )
    with torch.no_grad():
        torch.testing.assert_close(plain(obs), network(obs), rtol=1e-5, atol=1e-5)
