"""What this machine has, what a training would use, and how fast it is."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wn_dqn import __version__
from wn_dqn.config.files import make_settings
from wn_dqn.config.games import find_game
from wn_dqn.envs.factory import make_env, spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import VectorEnv
from wn_dqn.nn.kernels import find_kernels
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.parts import make_agent
from wn_dqn.system.hardware import GIB, available_memory_bytes, num_cores
from wn_dqn.training.agent import Agent

_SECONDS_PER_TEST = 0.6
_NUMS_OF_ENVS = (1, 8, 16, 32, 64)


def examine(device: torch.device) -> Iterator[str]:
    """Lines for a person, as they become known; takes about ten seconds.

    Torch is measured as this process has set it: see :func:`wn_dqn.system.hardware.prepare_torch`.
    """
    settings = make_settings({"game": "SpaceInvaders"})
    packages = ("torch", "ale-py", "gymnasium", "numpy", "tensorboard")
    yield f"wn-dqn {__version__}, Python {platform.python_version()}, " + ", ".join(
        f"{p} {version(p)}" for p in packages
    )
    yield f"device: {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'} ({device})"
    yield f"cores: {num_cores()}; torch uses {torch.get_num_threads()} threads, the emulators up to {num_cores()}"
    if device.type == "cpu":
        kernels, why_not = find_kernels()
        yield "kernels: compiled" if kernels else f"kernels: none, training is slower ({why_not}); gcc brings them"
    game, rules = find_game(settings.game), training_rules(settings.environment)
    spec, capacity = spec_of(game, rules), settings.replay.capacity
    yield from _memory(ReplayBuffer.memory_bytes(spec, capacity, settings.environment.num_envs), capacity, device)
    yield (
        f"disk: {shutil.disk_usage(Path.cwd()).free / GIB:.0f} GiB free here; the replay takes most of a "
        "checkpoint: 0.26 GB for a million transitions of Space Invaders under random play"
    )
    agent = make_agent(settings, spec, device)
    batch = random_batch(spec, max(settings.learning.batch_size, *_NUMS_OF_ENVS), device)
    update_s = _update_seconds(agent, random_batch(spec, settings.learning.batch_size, device))
    yield f"one update alone, batch {settings.learning.batch_size}, weight norm: {update_s * 1e3:.2f} ms"
    yield "agent steps/s of Space Invaders by number of environments:"
    yield "     N   emulators alone   acting alone   training, at least   at most"
    at_least: dict[int, float] = {}
    for num_envs in _NUMS_OF_ENVS:
        emulator_s = _emulator_seconds(make_env(game, num_envs, rules))
        acting_s = _acting_seconds(agent, batch.obs[:num_envs])
        learner_s = acting_s + num_envs * update_s / settings.learning.update_period_steps
        at_least[num_envs] = num_envs / (emulator_s + learner_s)
        yield (
            f"{num_envs:6} {num_envs / emulator_s:17,.0f} {num_envs / acting_s:14,.0f} {at_least[num_envs]:20,.0f}"
            f"{num_envs / max(emulator_s + acting_s, learner_s):10,.0f}"
        )
    default, fastest = settings.environment.num_envs, max(at_least, key=lambda n: at_least[n])
    yield f"fastest here: --num-envs {fastest}; part of the experiment (default {default}): results change with it"
    days = settings.learning.total_steps / at_least[default] / 86400
    yield (
        f"the paper's {settings.learning.total_steps:,} steps take up to {days:,.1f} days here at N = {default}, "
        "evaluations not counted"
    )


def _memory(needed: int, capacity: int, device: torch.device) -> Iterator[str]:
    """A replay of `capacity` takes `needed` bytes: whether they are there."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield f"GPU memory: {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        room: int | None = free
    else:
        room = available_memory_bytes()
    have = "unknown" if room is None else f"{room / GIB:.1f} GiB"
    verdict = (
        "" if room is None else (", it fits" if needed < room - GIB else ", it does not fit: lower replay.capacity")
    )
    yield f"memory available: {have}; a replay of {capacity:,} takes {needed / GIB:.1f} GiB{verdict}"


def _emulator_seconds(env: VectorEnv) -> float:
    """Seconds for a step of all games."""
    env.reset(np.arange(env.num_envs))
    generator = np.random.Generator(np.random.PCG64(0))

    def step() -> None:
        env.send(generator.integers(0, env.spec.num_actions, env.num_envs))
        env.receive()

    return _seconds_per_call(step)


def _acting_seconds(agent: Agent, obs: Tensor) -> float:
    """Seconds to choose actions for `obs` [N, *obs_shape]."""
    return _seconds_per_call(lambda: agent.act(obs, 0.0))


def _update_seconds(agent: Agent, batch: TransitionBatch) -> float:
    """Seconds for an update from `batch`."""
    agent.initialize(batch.obs)
    return _seconds_per_call(lambda: agent.update(batch).loss.item())


def random_batch(spec: EnvSpec, size: int, device: torch.device) -> TransitionBatch:
    """A minibatch of noise images, to measure with."""
    generator = torch.Generator().manual_seed(0)
    channels = spec.frame_shape[0]
    shape = (size, channels + spec.obs_shape[0], *spec.obs_shape[1:])
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    zeros, discount = torch.zeros(size, device=device), torch.full((size,), 0.99, device=device)
    return TransitionBatch(frames[:, :-channels], zeros.long(), zeros, discount, frames[:, channels:])


def _seconds_per_call(call: Callable[[], object]) -> float:
    call()
    times = []
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < _SECONDS_PER_TEST:
        call_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - call_s)
    return float(np.median(times))
