"""Initializes a network: from data or uniformly, then the scale of its output and its batch statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wn_dqn.config.schema import NetworkSettings
from wn_dqn.nn.batch_statistics import adopt_batch_statistics
from wn_dqn.nn.data_dependent_init import initialize_from_data
from wn_dqn.nn.networks import QNetwork
from wn_dqn.nn.uniform_init import UNIFORM_INITS, initialize_uniform

Initialization = Callable[[QNetwork, Tensor], dict[str, int]]
"""initializes a network with a batch of observations [B, ...]; returns counts for the log, by name"""


def initialize(
    network: QNetwork, obs: Tensor, *, settings: NetworkSettings, generator: torch.Generator
) -> dict[str, int]:
    """Initialize `network` by `settings`, from a CPU generator and observations `obs` [B, ...]."""
    metrics: dict[str, int] = {}
    if settings.init == "data":
        report = initialize_from_data(network, obs, generator, centre=settings.init_centred)
        metrics = {"batch_size": report.batch_size, "dead_units": sum(report.dead_units.values())}
    else:
        initialize_uniform(network, UNIFORM_INITS[settings.init], generator, centre=settings.init_centred)
    network.scale_outputs_(settings.output_init_scale)
    adopt_batch_statistics(network, obs)
    return metrics
