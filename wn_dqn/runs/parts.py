"""Builds the parts of a run from its settings and its environment's spec. Only this module resolves names to parts."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from wn_dqn.config.registry import AGENTS, import_code
from wn_dqn.config.schema import Settings
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.nn.initialization import initialize
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.networks import make_network
from wn_dqn.nn.noisy import noisy_kit
from wn_dqn.nn.optimizers import make_optimizer
from wn_dqn.replay.buffer import ReplayBuffer, Sampler
from wn_dqn.replay.prioritized import PrioritizedReplay
from wn_dqn.runs.replay_memory import is_compressed
from wn_dqn.seeding import numpy_generator, torch_generator
from wn_dqn.training.agent import Agent, AgentParts
from wn_dqn.training.categorical import categorical_loss
from wn_dqn.training.plan import TrainingPlan
from wn_dqn.training.q_learning import LOSSES
from wn_dqn.training.schedules import LinearSchedule


def make_plan(settings: Settings) -> TrainingPlan:
    """The plan that the settings describe."""
    learning, exploration = settings.learning, settings.exploration
    evaluation, output, optimizer = settings.evaluation, settings.output, settings.optimizer
    rates = optimizer.learning_rate, optimizer.final_learning_rate
    return TrainingPlan(
        seed=settings.seed,
        total_steps=learning.total_steps,
        start_steps=learning.start_steps,
        update_period_steps=learning.update_period_steps,
        target_period_updates=settings.target_period_updates,
        epoch_steps=evaluation.epoch_steps,
        log_period_steps=output.log_period_steps,
        checkpoint_period_steps=output.checkpoint_period_steps,
        init_batch_size=settings.network.init_batch_size,
        held_out_states=evaluation.held_out_states,
        curvature_products=evaluation.curvature_products,
        normalize_observations=settings.environment.normalize_observations,
        epsilon=LinearSchedule(exploration.initial, exploration.final, learning.start_steps, exploration.decay_steps),
        learning_rate=None
        if rates[1] is None
        else LinearSchedule(rates[0], rates[1], learning.start_steps, optimizer.decay_steps),
    )


def make_sampler(settings: Settings, spec: EnvSpec, device: torch.device) -> Sampler:
    """A sampler with an empty replay buffer of the kind that the settings request."""
    section, learning = settings.replay, settings.learning
    compressed = is_compressed(settings, spec, device)
    shape = (spec, section.capacity, settings.environment.num_envs, learning.discount, device, learning.n_steps)
    if section.priority_exponent == 0.0:
        replay = ReplayBuffer(*shape, compressed=compressed)
    else:
        priority = section.priority_exponent, section.priority_epsilon
        replay = PrioritizedReplay(*shape, *priority, compressed=compressed)
    beta = LinearSchedule(section.importance_exponent, 1.0, learning.start_steps, section.importance_anneal_steps)
    return Sampler(replay, learning.batch_size, beta)


def make_agent(
    settings: Settings, spec: EnvSpec, device: torch.device, code: Callable[[AgentParts], Agent] | None = None
) -> Agent:
    """A new agent. `code` builds it from its parts; the default is the class that the settings name.

    Raises UsageError if the network does not take observations of this shape.
    """
    dtype = getattr(torch, spec.frame_dtype)
    kit = layer_kit(settings.param)
    network = make_network(
        noisy_kit(kit, settings.network.noisy_sigma) if settings.network.noisy else kit,
        spec.obs_shape,
        dtype,
        spec.num_actions,
        settings.network,
        normalize=settings.environment.normalize_observations,
    )
    network.to(device).eval()
    parts = AgentParts(
        network=network,
        optimizer=make_optimizer(network, settings.optimizer),
        loss=functools.partial(
            categorical_loss if network.support else LOSSES[settings.learning.loss],
            reduction=settings.learning.loss_reduction,
        ),
        initialize=functools.partial(
            initialize, settings=settings.network, generator=torch_generator(settings.seed, "init")
        ),
        exploration=numpy_generator(settings.seed, "exploration"),
        noise=numpy_generator(settings.seed, "noise"),
        precision=settings.learning.precision,
    )
    agent: Agent = (code or import_code(AGENTS[settings.agent].code))(parts)
    return agent
