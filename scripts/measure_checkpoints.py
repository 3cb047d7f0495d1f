"""Measures the cost of checkpoints: disk, seconds, memory, and their share of training time.

    python scripts/measure_checkpoints.py --transitions 1000000

Fills a replay buffer with random play of Space Invaders, eight games in lockstep, while its segments are written in the
background as in training; then saves a checkpoint, and loads it into a new buffer. Nothing is kept. The disk is the
folder's: give --folder the one that your runs are on. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import gc
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from wn_dqn.config.files import make_settings
from wn_dqn.config.games import find_game
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import make_env
from wn_dqn.envs.rules import training_rules
from wn_dqn.envs.vector_env import VectorEnv
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.runs.checkpoint import load_checkpoint, save_checkpoint
from wn_dqn.runs.parts import make_agent
from wn_dqn.runs.replay_files import ReplayStore
from wn_dqn.system.hardware import num_cores
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.agent import Agent

_MB = 1e6
_SPEED_MEASURED_S = 5.0


class BackgroundWork:
    """The time that a ReplayStore's writing takes, wherever it runs."""

    def __init__(self, store: ReplayStore) -> None:
        self.files = 0
        self.cpu_s = 0.0
        self._write: Callable[..., Any] = store._write
        store._write = self._timed  # type: ignore[method-assign]

    def _timed(self, *args: Any) -> Any:
        began_s = time.thread_time()
        try:
            return self._write(*args)
        finally:
            self.cpu_s += time.thread_time() - began_s
            self.files += 1


def memory_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (the peak since `forget_peak`) of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """Reset VmHWM."""
    Path("/proc/self/clear_refs").write_bytes(b"5")


def play(env: VectorEnv, replay: ReplayBuffer, store: ReplayStore, transitions: int) -> float:
    """Random play until `replay` holds `transitions`; returns the longest wait for the background, in seconds."""
    generator = np.random.default_rng(0)
    replay.begin(env.reset(np.arange(env.num_envs)))
    longest_s = 0.0
    with ProgressReporter().task("random play", transitions) as task:
        for done in range(0, transitions, env.num_envs):
            step(env, replay, generator.integers(0, env.spec.num_actions, env.num_envs))
            began_s = time.perf_counter()
            store.write_behind()
            longest_s = max(longest_s, time.perf_counter() - began_s)
            task.update(done)
    return longest_s


def step(env: VectorEnv, replay: ReplayBuffer, action: np.ndarray) -> None:
    """One step of all games, put into `replay`."""
    env.send(action)
    outcome = env.receive()
    reward = np.clip(outcome.reward, -1.0, 1.0)
    replay.append(action, reward, outcome.terminal, outcome.truncated, outcome.frame, outcome.over)


def training_speed(settings: Settings, env: VectorEnv, replay: ReplayBuffer, agent: Agent) -> float:
    """Agent steps per second of acting, playing and learning, measured briefly."""
    generator, steps = np.random.default_rng(1), 0
    updates = env.num_envs // settings.learning.update_period_steps
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < _SPEED_MEASURED_S:
        action = agent.act(replay.latest_observation(), 0.1)
        for batch in replay.sample(generator, settings.learning.batch_size, updates):
            agent.update(batch)
        step(env, replay, action)
        steps += env.num_envs
    return steps / (time.perf_counter() - began_s)


@click.command(help=__doc__)
@click.option("--transitions", type=click.IntRange(min=20_000), default=1_000_000, show_default=True)
@click.option("--steps-per-s", type=float, help="Speed of training to compare with.  [default: measured briefly]")
@click.option("--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Where to write.")
def main(transitions: int, steps_per_s: float | None, folder: Path | None) -> None:
    data = {"game": "SpaceInvaders", "replay": {"capacity": transitions}, "learning": {"start_steps": 10_000}}
    settings, device = make_settings(data), torch.device("cpu")
    env = make_env(find_game(settings.game), settings.environment.num_envs, training_rules(settings.environment))
    replay = ReplayBuffer(env.spec, transitions, env.num_envs, settings.learning.discount, device)
    replay_bytes = ReplayBuffer.memory_bytes(env.spec, transitions, env.num_envs)
    agent = make_agent(settings, env.spec, device)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        root = Path(temporary)
        store = ReplayStore(root / "replay", replay)
        background = BackgroundWork(store)
        # Half a segment more than whole ones: a checkpoint finds so much, on average, that is not written yet.
        segment = store._length * env.num_envs
        played = max(transitions // segment, 1) * segment + segment // 2
        longest_wait_s = play(env, replay, store, played)
        agent.initialize(next(replay.sample(np.random.default_rng(0), 1024)).obs)
        measured = training_speed(settings, env, replay, agent)  # leaves the optimizer a state to be saved
        wait(store._segments.values())  # random play is faster than training: in training they were long written
        segment_cpu_s = background.cpu_s / background.files

        forget_peak()
        before_bytes, began_s = memory_bytes("VmRSS"), time.perf_counter()
        content = {"agent": agent.state_dict(), "replay": store.save()}
        path = save_checkpoint(root / "checkpoints", played, content, None)
        save_s, save_peak_bytes = time.perf_counter() - began_s, memory_bytes("VmHWM") - before_bytes
        disk_bytes = sum(file.stat().st_size for file in (root / "replay").iterdir())
        checkpoint_bytes = sum(file.stat().st_size for file in path.iterdir())
        stored, num_appended = min(replay.num_appended, replay.num_slots) * env.num_envs, replay.num_appended
        store.close()
        del store, replay, background, content
        gc.collect()

        forget_peak()
        before_bytes, began_s = memory_bytes("VmRSS"), time.perf_counter()
        replay = ReplayBuffer(env.spec, transitions, env.num_envs, settings.learning.discount, device)
        store = ReplayStore(root / "replay", replay)
        store.load(load_checkpoint(path)["replay"])
        load_s, load_peak_bytes = time.perf_counter() - began_s, memory_bytes("VmHWM") - before_bytes
        assert replay.num_appended == num_appended
        store.close()

    speed = steps_per_s or measured
    period_steps = settings.output.checkpoint_period_steps
    period_s = period_steps / speed
    period_cpu_s = segment_cpu_s * period_steps / segment
    rows = {
        "machine": f"{num_cores()} cores, {platform.machine()}, {torch.get_num_threads()} torch threads",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("wn-dqn", "torch", "numpy", "ale-py")),
        "replay": f"{stored:,} transitions of Space Invaders, random play, {replay_bytes / _MB:,.0f} MB of memory",
        "replay on disk": f"{disk_bytes / _MB:,.1f} MB, {disk_bytes / stored * 1e6 / _MB:,.0f} MB per 1,000,000",
        "checkpoint without it": f"{checkpoint_bytes / _MB:,.1f} MB",
        "load": f"{load_s:.2f} s, {load_s / stored * 1e6:.1f} s per 1,000,000",
        "save (training waits)": f"{save_s:.2f} s",
        "longest wait for a segment": f"{longest_wait_s * 1e3:.1f} ms",
        "writing one segment": f"{segment_cpu_s:.2f} s of one core, {segment:,} transitions, in the background",
        "training": f"{speed:,.0f} steps/s" + ("" if steps_per_s else ", measured here") + f": {period_s:,.0f} s per "
        f"checkpoint period of {period_steps:,} steps",
        "share of training time": f"{save_s / period_s:.2%} waiting, {period_cpu_s / period_s:.2%} of one core in the "
        "background",
        "more memory while saving": f"{save_peak_bytes / _MB:,.0f} MB at the peak",
        "more while loading": f"{(load_peak_bytes - replay_bytes) / _MB:,.0f} MB at the peak, beside the replay",
    }
    for name, value in rows.items():
        print(f"{name + ':':28}{value}")


if __name__ == "__main__":
    main()
