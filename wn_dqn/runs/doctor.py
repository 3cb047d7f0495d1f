"""Reports of this machine's hardware, the part of it that training would use, and its speed."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from wn_dqn import __version__
from wn_dqn.config.files import make_settings
from wn_dqn.config.games import game_of
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.nn.kernels import find_kernels
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.runs.bench import GAME, Bench
from wn_dqn.runs.replay_memory import expected_bytes
from wn_dqn.system.hardware import GIB, available_memory_bytes, num_cores
from wn_dqn.system.text import time_text


def examine(device: torch.device) -> Iterator[str]:
    """Lines about this machine, for the terminal."""
    settings = make_settings({"game": GAME})
    packages = ("torch", "ale-py", "gymnasium", "numpy", "tensorboard")
    yield f"wn-dqn {__version__}, Python {platform.python_version()}, " + ", ".join(
        f"{p} {version(p)}" for p in packages
    )
    yield f"device: {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'} ({device})"
    yield f"cores: {num_cores()}; torch uses {torch.get_num_threads()} threads, the emulators up to {num_cores()}"
    if device.type == "cpu":
        kernels, why_not = find_kernels()
        yield "kernels: compiled" if kernels else f"kernels: none, training is slower ({why_not}); gcc brings them"
    yield from _memory(settings, device)
    yield (
        f"disk: {shutil.disk_usage(Path.cwd()).free / GIB:.0f} GiB free here; the replay takes most of a "
        "checkpoint: 0.26 GB for a million transitions of Space Invaders under random play"
    )


def _memory(settings: Settings, device: torch.device) -> Iterator[str]:
    """Lines about the memory that the settings' replay needs, and the memory that is free."""
    spec, capacity = spec_of(game_of(settings), training_rules(settings.environment)), settings.replay.capacity
    needed = ReplayBuffer.memory_bytes(spec, capacity, settings.environment.num_envs)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield f"GPU memory: {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        room: int | None = free
    else:
        room = available_memory_bytes()
    have = "unknown" if room is None else f"{room / GIB:.1f} GiB"
    verdict = "" if room is None else (", it fits" if needed < room - GIB else ", it does not fit as it is")
    less = ""
    if device.type == "cpu":
        less = f"; compressed it takes at most {expected_bytes(settings, spec, compressed=True) / GIB:.1f} GiB"
    yield f"memory available: {have}; a replay of {capacity:,} takes {needed / GIB:.1f} GiB{verdict}{less}"


def report(bench: Bench) -> Iterator[str]:
    """Lines with the measurements, for the terminal."""
    updates = ", ".join(f"{name} {ms:.2f} ms" for name, ms in bench.update_ms.items())
    yield f"one update alone, minibatch 64, weight norm: {updates}; take --precision {bench.fastest_precision}"
    yield "the two limits, agent steps/s of Space Invaders by the number of games N, an update per 4 steps:"
    yield "     N   emulators alone" + "".join(f"{f'learner alone, {name}':>25}" for name in bench.learner)
    for num_envs, speed in bench.emulators.items():
        learners = (speeds.get(num_envs) for speeds in bench.learner.values())
        yield f"{num_envs:6}{speed:18,.0f}" + "".join(f"{'' if s is None else f'{s:,.0f}':>25}" for s in learners)
    yield from _loops(bench)
    if bench.one_thread_update_ms is not None:
        ratio = bench.one_thread_update_ms / bench.update_ms["float32"]
        advice = f"{bench.threads} runs at once, of one thread each, do {bench.threads / ratio:.2f} times the work"
        yield f"an update takes {ratio:.2f} times as long with one thread: {advice}, OMP_NUM_THREADS=1"
    best = {n: min(bench.emulators.get(n, 0.0), speed) for n, speed in bench.learner[bench.fastest_precision].items()}
    if len(best) > 1:
        fastest = max(best, key=lambda n: best[n])
        yield f"fastest here: environment.num_envs={fastest}; it is part of the experiment: results change with it"


def _loops(bench: Bench) -> Iterator[str]:
    yield "training, and about how long the whole run takes here, with its evaluations:"
    for name, loop in bench.loops.items():
        limit = loop.smaller_limit
        share = "" if limit is None else f" ({loop.steps_per_s / limit:.2f} of the smaller limit)"
        what = f"{loop.game}, N = {loop.num_envs}, {loop.precision}"
        yield f"  {name} ({what}): {loop.steps_per_s:,.0f} agent steps/s{share}, {time_text(loop.hours)}"
