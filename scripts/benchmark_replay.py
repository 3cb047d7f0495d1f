"""Measures the replay buffer: appending, sampling and memory, compared with a plain buffer of stacked observations.

    python scripts/benchmark_replay.py
    python scripts/benchmark_replay.py --capacity 1000000
    python scripts/benchmark_replay.py --games SpaceInvaders,Breakout,Seaquest,Enduro     compressed frames, their size
    python scripts/benchmark_replay.py --games KungFuMaster --policy runs/KungFuMaster-wn-seed0

The plain buffer stores both stacks of four of every transition, as most do, and reads each by one fancy index. Both
buffers and prioritized replay are filled with the same random frames, and are measured in turn. Ratios are computed
within a round. The time of sampling by priority includes the update of priorities.

With --games it measures `replay.compression=zstd` instead, on frames of random play, or of play by --policy: bytes per
frame of the last three quarters, and the time of storing and gathering, relative to the plain store. The frames of both
stores are compared bit by bit.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from wn_dqn.config.files import make_settings
from wn_dqn.config.games import find_game
from wn_dqn.envs.atari import atari_spec
from wn_dqn.envs.factory import make_env
from wn_dqn.envs.frame_stack import FrameStack
from wn_dqn.envs.rules import training_rules
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.frame_stores import CompressedFrames, PlainFrames
from wn_dqn.replay.prioritized import PrioritizedReplay
from wn_dqn.runs.policy import load_policy
from wn_dqn.system.hardware import available_memory_bytes, num_cores, prepare_torch

STACK_BYTES = 4 * 84 * 84

SPEC = atari_spec("Space Invaders", map(str, range(6)))


class PlainBuffer:
    """Stacks of four, before and after, for every transition."""

    def __init__(self, capacity: int) -> None:
        self.obs = np.empty((capacity, 4, 84, 84), np.uint8)
        self.next_obs = np.empty((capacity, 4, 84, 84), np.uint8)
        self.action = np.zeros(capacity, np.int64)
        self.reward = np.zeros(capacity, np.float32)
        self.discount = np.zeros(capacity, np.float32)
        self.position = 0

    def append(self, obs: NDArray[np.uint8], next_obs: NDArray[np.uint8]) -> None:
        rows = (self.position + np.arange(len(obs))) % len(self.obs)
        self.obs[rows], self.next_obs[rows] = obs, next_obs
        self.position += len(obs)

    def sample(self, generator: np.random.Generator, size: int) -> list[torch.Tensor]:
        rows = generator.integers(0, len(self.obs), size)
        arrays = (self.obs, self.action, self.reward, self.discount, self.next_obs)
        return [torch.from_numpy(array[rows]) for array in arrays]


def played(game: str, policy: str | None, steps: int) -> Iterator[NDArray[np.uint8]]:
    """Frames [8, 84, 84] of each step of eight games."""
    loaded = None if policy is None else load_policy(Path(policy), "last", torch.device("cpu"))
    env = make_env(find_game(game), 8, training_rules(make_settings({"game": game}).environment))
    generator = np.random.default_rng(0)
    frames = env.reset(np.arange(8))
    stack = FrameStack(env.spec, 8)
    obs = stack.begin(frames)
    for _ in range(steps):
        yield frames[:, 0]
        actions = generator.integers(0, env.spec.num_actions, 8)
        if loaded is not None:
            best = loaded.q_values(torch.from_numpy(obs)).argmax(dim=1).numpy()
            actions = np.where(generator.random(8) < 0.05, actions, best)
        env.send(actions)
        step = env.receive()
        frames, obs = step.frame, stack.push(step.frame, step.over)


def measure_compression(games: str, policy: str | None, steps: int) -> None:
    """The table of --games."""
    print("| game | bytes a frame | GiB for 1,000,000 | store 8, ms (plain) | gather 320, ms (plain) |")
    print("|---|---|---|---|---|")
    generator = np.random.default_rng(1)
    for game in games.split(","):
        stores = (
            CompressedFrames(8, steps, (84, 84), np.dtype(np.uint8)),
            PlainFrames(8, steps, (84, 84), torch.uint8, torch.device("cpu")),
        )
        put, gather = ([], []), ([], [])
        for slot, frames in enumerate(played(game, policy, steps)):
            for times, store in zip(put, stores, strict=True):
                times.append(seconds(lambda store=store, frames=frames, slot=slot: store.put(slot, frames)))
        for _ in range(30):
            rows = generator.integers(0, 8, 320) * steps + generator.integers(0, steps, 320)
            found = [store.gather(torch.from_numpy(rows)) for store in stores]
            assert torch.equal(*found)
            for times, store in zip(gather, stores, strict=True):
                times.append(seconds(lambda store=store, rows=rows: store.gather(torch.from_numpy(rows))))
        size = stores[0].mean_bytes(steps // 4, steps)
        ms = [1e3 * statistics.median(times) for times in (*put, *gather)]
        # A transition has 8 bytes beside its frame, and a compressed frame 12 that say where it is.
        total = 1e6 * (size + 20) / 2**30
        print(f"| {game} | {size:,.0f} | {total:.2f} | {ms[0]:.2f} ({ms[1]:.2f}) | {ms[2]:.2f} ({ms[3]:.2f}) |")


@click.command(help=__doc__)
@click.option("--games", help="measure compressed frames of these games")
@click.option("--policy", help="a run directory, whose last network plays")
@click.option("--steps", default=2000, show_default=True, help="of eight games each, with --games")
@click.option("--capacity", default=100_000, show_default=True, help="transitions in ours")
@click.option("--plain-capacity", default=100_000, show_default=True, help="transitions in the plain one")
@click.option("--num-envs", default=8, show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--rounds", default=300, show_default=True)
def main(
    games: str | None,
    policy: str | None,
    steps: int,
    capacity: int,
    plain_capacity: int,
    num_envs: int,
    batch: int,
    rounds: int,
) -> None:
    if games is not None:
        measure_compression(games, policy, steps)
        return
    needed = 2 * ReplayBuffer.memory_bytes(SPEC, capacity, num_envs) + 2 * plain_capacity * STACK_BYTES
    available = available_memory_bytes()
    if available is not None and needed > available:
        raise click.UsageError(f"{needed / 2**30:.1f} GiB needed; lower --capacity or --plain-capacity")
    prepare_torch(torch.device("cpu"), "float32")
    generator = np.random.Generator(np.random.PCG64(0))
    frames = generator.integers(0, 256, (num_envs, 84, 84), dtype=np.uint8)
    stacks = generator.integers(0, 256, (num_envs, 4, 84, 84), dtype=np.uint8)
    no, action = np.zeros(num_envs, np.bool_), np.zeros(num_envs, np.int64)
    cpu = torch.device("cpu")
    ours, plain = ReplayBuffer(SPEC, capacity, num_envs, 0.99, cpu), PlainBuffer(plain_capacity)
    prioritized = PrioritizedReplay(SPEC, capacity, num_envs, 0.99, cpu, n_steps=1, exponent=0.6, epsilon=1e-6)

    def append(replay: ReplayBuffer) -> None:
        replay.append(action, action.astype(np.float32), no, no, frames, no)

    def sample_by_priority() -> None:
        for _ in prioritized.minibatches(generator, batch, 1, 0.4):
            prioritized.update_priorities(torch.from_numpy(generator.normal(size=batch)))
        prioritized.state_dict()  # the new priorities are in the tree

    def append_plain() -> None:
        plain.append(stacks, stacks)

    for replay in (ours, prioritized):
        replay.begin(frames)
        for _ in range(ours.num_slots):
            append(replay)
    for _ in range(-(-plain_capacity // num_envs)):
        append_plain()
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"append {num_envs} transitions": (lambda: append(ours), append_plain),
        f"sample {batch} transitions": (
            lambda: list(ours.sample(generator, batch)),
            lambda: plain.sample(generator, batch),
        ),
        f"append {num_envs} transitions, prioritized": (lambda: append(prioritized), append_plain),
        f"sample {batch} transitions, prioritized": (sample_by_priority, lambda: plain.sample(generator, batch)),
    }
    print(f"{platform.processor() or platform.machine()}, {num_cores()} cores, torch {torch.__version__}")
    print("| milliseconds (quartiles) | wn_dqn | plain | ours / plain |")
    print("|---|---|---|---|")
    for name, pair in calls.items():
        times = [[seconds(call) for call in pair] for _ in range(rounds)]
        own, other = zip(*times, strict=True)
        ratio = statistics.median(a / b for a, b in times)
        print(f"| {name} | {quartiles(own)} | {quartiles(other)} | {ratio:.2f} |")
    per_transition = ReplayBuffer.memory_bytes(SPEC, capacity, num_envs) / capacity
    print(f"| bytes per transition | {per_transition:,.0f} | {2 * STACK_BYTES + 16:,} | ", end="")
    print(f"{per_transition / (2 * STACK_BYTES + 16):.2f} |")


def seconds(call: Callable[[], Any]) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def quartiles(times: tuple[float, ...]) -> str:
    low, median, high = (1e3 * quartile for quartile in statistics.quantiles(times, n=4))
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
