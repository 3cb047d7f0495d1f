"""The agent that settings describe, for observations of a given shape: names become parts here."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from wn_dqn.config.registry import AGENTS, import_code
from wn_dqn.config.schema import Settings
from wn_dqn.nn.initialization import initialize
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.networks import make_network
from wn_dqn.nn.optimizers import OPTIMIZERS
from wn_dqn.seeding import numpy_generator, torch_generator
from wn_dqn.training.agent import Agent, AgentParts
from wn_dqn.training.q_learning import LOSSES

ATARI_OBS_SHAPE = (4, 84, 84)
"""of observations where no environment says otherwise"""


def make_agent(
    settings: Settings, obs_shape: Sequence[int], obs_dtype: str, num_actions: int, device: torch.device
) -> Agent:
    """An agent at its beginning, for observations [*obs_shape] of `obs_dtype`: uint8, bool or float32.

    UsageError if the network is not for such observations.
    """
    agent: Agent = import_code(AGENTS[settings.agent].code)(
        make_parts(settings, obs_shape, obs_dtype, num_actions, device)
    )
    return agent


def make_parts(
    settings: Settings, obs_shape: Sequence[int], obs_dtype: str, num_actions: int, device: torch.device
) -> AgentParts:
    """What :func:`make_agent` makes an agent of."""
    dtype = getattr(torch, obs_dtype)
    network = make_network(layer_kit(settings.param), obs_shape, dtype, num_actions, settings.network)
    network.to(device).eval()
    generator = torch_generator(settings.seed, "init")
    return AgentParts(
        network=network,
        optimizer=OPTIMIZERS[settings.optimizer.name](list(network.parameters()), settings.optimizer),
        loss=functools.partial(LOSSES[settings.learning.loss], reduction=settings.learning.loss_reduction),
        initialize=functools.partial(initialize, settings=settings.network, generator=generator),
        exploration=numpy_generator(settings.seed, "exploration"),
        precision=settings.learning.precision,
    )
