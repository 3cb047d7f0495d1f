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

from wn_dqn import __version__
from wn_dqn.atari.games import find_game
from wn_dqn.config import Settings, make_settings
from wn_dqn.launch import make_env, training_protocol
from wn_dqn.machine import GIB, available_memory_bytes, num_cores
from wn_dqn.replay import ReplayBuffer
from wn_dqn.transitions import TransitionBatch
from wn_dqn_agents.dqn import DQN

_SECONDS_PER_TEST = 2.5


def examine(device: torch.device) -> Iterator[str]:
    """Lines for a person, as they become known; takes about six seconds."""
    settings = make_settings({"game": "SpaceInvaders"})
    packages = ("torch", "ale-py", "gymnasium", "numpy", "tensorboard")
    yield f"wn-dqn {__version__}, Python {platform.python_version()}, " + ", ".join(
        f"{p} {version(p)}" for p in packages
    )
    yield f"device: {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'} ({device})"
    yield f"cores: {num_cores()}; torch uses {torch.get_num_threads()} threads, the emulators up to {num_cores()}"
    yield from _memory(settings, device)
    yield (
        f"disk: {shutil.disk_usage(Path.cwd()).free / GIB:.0f} GiB free here; a full replay takes about 1 to "
        "2 GiB of it"
    )
    num_envs = settings.environment.num_envs
    env_steps_per_s = _emulator_speed(settings)
    yield f"emulators alone, {num_envs} games of Space Invaders: {env_steps_per_s:,.0f} agent steps/s"
    update_s = _update_seconds(settings, device)
    yield f"one update alone, batch {settings.learning.batch_size}, weight norm: {update_s * 1e3:.2f} ms"
    step_s = max(1 / env_steps_per_s, update_s / settings.learning.update_period_steps)
    both_s = 1 / env_steps_per_s + update_s / settings.learning.update_period_steps
    yield f"so the paper's protocol should run at {1 / both_s:,.0f} to {1 / step_s:,.0f} agent steps/s"
    days = settings.learning.total_steps * both_s / 86400
    yield f"its {settings.learning.total_steps:,} steps take up to {days:,.1f} days here, evaluations not counted"


def _memory(settings: Settings, device: torch.device) -> Iterator[str]:
    needed = ReplayBuffer.memory_bytes(settings.replay.capacity, settings.environment.num_envs)
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
    yield f"memory available: {have}; a replay of {settings.replay.capacity:,} takes {needed / GIB:.1f} GiB{verdict}"


def _emulator_speed(settings: Settings) -> float:
    env = make_env(find_game(settings.game), settings.environment.num_envs, training_protocol(settings))
    env.reset(np.arange(env.num_envs))
    generator = np.random.Generator(np.random.PCG64(0))

    def step() -> None:
        env.send(generator.integers(0, env.num_actions, env.num_envs))
        env.receive()

    return env.num_envs / _seconds_per_call(step)


def _update_seconds(settings: Settings, device: torch.device) -> float:
    agent = DQN(settings, num_actions=6, device=device)
    size = settings.learning.batch_size
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (size, 5, 84, 84), dtype=torch.uint8, generator=generator).to(device)
    zeros, discount = torch.zeros(size, device=device), torch.full((size,), 0.99, device=device)
    batch = TransitionBatch(frames[:, :4], zeros.long(), zeros, discount, frames[:, 1:])
    agent.initialize(batch.obs)
    return _seconds_per_call(lambda: agent.update(batch).loss.item())


def _seconds_per_call(call: Callable[[], object]) -> float:
    call()
    times = []
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < _SECONDS_PER_TEST:
        call_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - call_s)
    return float(np.median(times))
