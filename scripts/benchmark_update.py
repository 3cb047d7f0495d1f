"""Microseconds per update, by agent, network, parameterization, batch size, precision, and execution mode.

    python scripts/benchmark_update.py
    python scripts/benchmark_update.py --params wn,standard --batches 32,64,128 --precisions float32,bf16
    python scripts/benchmark_update.py --params standard --agents dqn,c51 --networks nature,noisy,impala
    python scripts/benchmark_update.py --device cuda --precisions float32,tf32,bf16

An update is two forward passes, the loss, its gradient and the optimizer's step, on random frames. All arms alternate
in one process, so that a drift of the machine's speed affects all equally. Ratios are relative to the first arm, within
a round. eager: one operation after the other; plain: eager without the C kernels; graph: a CUDA graph, as in training
on a GPU; compiled: torch.compile, which needs a C++ compiler and is not used in training. The last column is the time
of the instruments at each log period, and its share of the time of the period's updates.
"""

from __future__ import annotations

import itertools
import platform
import statistics
import time
import timeit
from collections.abc import Callable
from typing import Any

import click
import torch

from wn_dqn.config.files import make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.envs.atari import atari_spec
from wn_dqn.nn import kernels
from wn_dqn.nn.kernels import find_kernels
from wn_dqn.runs.bench import random_batch
from wn_dqn.runs.parts import make_agent
from wn_dqn.system.hardware import num_cores, prepare_torch
from wn_dqn.training.agent import Measured

SPEC = atari_spec("Space Invaders", map(str, range(6)))


NETWORKS: dict[str, dict[str, Any]] = {
    "nature": {},
    "dueling": {"dueling": True},
    "noisy": {"noisy": True},
    "dueling-noisy": {"dueling": True, "noisy": True},
    "impala": {"name": "impala"},
}
"""what --networks names, and its settings"""


def functions(
    agent_name: str, network: str, param: str, batch_size: int, precision: str, way: str, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    """An update (CALLS of them on a GPU), and the instruments of one log period."""
    arm = {"agent": agent_name, "param": param, "learning": {"precision": precision}, "network": NETWORKS[network]}
    settings = make_settings({"game": "SpaceInvaders", **arm})
    agent: Any = make_agent(settings, SPEC, device)
    batch = random_batch(SPEC, batch_size, device)
    measured = Measured(batch, random_batch(SPEC, 256, device).obs)
    agent.initialize(batch.obs)
    if way == "compiled":
        agent.online.compile()
        agent.target.compile()
    if way != "graph":
        agent._run_update = agent._update
    found = kernels.Found(None) if way == "plain" else find_kernels()

    def prepare() -> None:
        # Both are settings of the process, and the arms take turns.
        kernels.find_kernels = lambda: found
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"

    def update() -> None:
        prepare()
        for _ in range(CALLS if device.type == "cuda" else 1):
            agent.update(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def instruments() -> None:
        prepare()
        agent.diagnostics(measured)

    for _ in range(6):
        update()
    return update, instruments


CALLS = 50  # calls per measurement, because a GPU queues them


@click.command(help=__doc__)
@click.option("--agents", default="dqn", show_default=True)
@click.option("--networks", default="nature", show_default=True, help=", ".join(NETWORKS))
@click.option("--params", default=",".join(PARAMETERIZATIONS), show_default=True)
@click.option("--batches", default="64", show_default=True)
@click.option("--precisions", default="float32", show_default=True, help="float32, tf32 (a GPU's), bf16")
@click.option("--ways", help="eager, plain, graph (a GPU's), compiled  [default: graph and eager on a GPU, else eager]")
@click.option("--device", "device_name", default="cpu", show_default=True, help="cpu or cuda")
@click.option("--rounds", default=30, show_default=True)
def main(
    agents: str,
    networks: str,
    params: str,
    batches: str,
    precisions: str,
    ways: str | None,
    device_name: str,
    rounds: int,
) -> None:
    device = torch.device(device_name)
    prepare_torch(device, "float32")
    ways = ways or ("graph,eager" if device.type == "cuda" else "eager")
    sizes = [int(batch) for batch in batches.split(",")]
    choices = [agents.split(","), networks.split(","), params.split(","), sizes, precisions.split(","), ways.split(",")]
    arms = {arm: functions(*arm, device) for arm in itertools.product(*choices)}
    settings = make_settings({"game": "SpaceInvaders"})
    updates_per_period = settings.output.log_period_steps // settings.learning.update_period_steps
    seconds: dict[tuple[str, str, str, int, str, str], list[float]] = {arm: [] for arm in arms}
    calls = CALLS if device.type == "cuda" else 1
    for _ in range(rounds):
        for arm, (update, _) in arms.items():
            began_s = time.perf_counter()
            update()
            seconds[arm].append((time.perf_counter() - began_s) / calls)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {num_cores()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    first = next(iter(seconds.values()))
    print(
        "| agent | network | parameterization | batch | precision | run | microseconds per update (quartiles) "
        f"| time / first row | instruments, ms (share of {updates_per_period:,} updates) |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for (agent, network, param, batch, precision, way), times in seconds.items():
        low, median, high = (1e6 * quartile for quartile in statistics.quantiles(times, n=4))
        ratio = statistics.median(a / b for a, b in zip(times, first, strict=True))
        _, instruments = arms[agent, network, param, batch, precision, way]
        instruments_s = statistics.median(timeit.repeat(instruments, number=1, repeat=5))
        share = instruments_s / (updates_per_period * statistics.median(times))
        print(
            f"| {agent} | {network} | {param} | {batch} | {precision} | {way} "
            f"| {median:,.0f} ({low:,.0f} to {high:,.0f}) | {ratio:.3f} | {1e3 * instruments_s:,.0f} ({share:.2%}) |"
        )


if __name__ == "__main__":
    main()
