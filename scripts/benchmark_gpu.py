"""How fast does a GPU train, and which of two ceilings holds it: the emulators, or the learner?

    python scripts/benchmark_gpu.py                       # minutes on a GPU
    python scripts/benchmark_gpu.py --device cpu --num-envs 4,8 --precisions float32 --capacity 4000 --seconds 2

Three tables, all of Space Invaders with the Nature network and one update per 4 agent steps. The emulators alone: N
games in lockstep, random actions. The learner alone: from a full replay on the device, one act for N games and N / 4
updates of 64 a step, and no emulator. Training: both, through the loop that `wn-dqn train` runs, and its share of the
smaller ceiling. Every figure is the median and range over `--windows` windows of `--seconds`.
"""

from __future__ import annotations

import itertools
import platform
import statistics
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from benchmark_training import GAME, fill, settings_for, spread, synchronize, trainer

from wn_dqn.config.games import find_game
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import make_env
from wn_dqn.envs.rules import training_rules
from wn_dqn.runs.parts import make_agent, make_sampler
from wn_dqn.system.hardware import num_cores, prepare_torch


def settings_of(param: str, num_envs: int, precision: str, capacity: int) -> Settings:
    arm = {"env": GAME, "param": param, "num_envs": num_envs, "capacity": capacity, "batch": 64, "precision": precision}
    settings: Settings = settings_for(arm)
    return settings


def rates(call: Callable[[], int], device: torch.device, windows: int, seconds: float) -> list[float]:
    """How many of what `call` counts are done in a second, for each window; one window before warms up."""
    found = []
    for _ in range(windows + 1):
        began_s, done = time.perf_counter(), 0
        while time.perf_counter() - began_s < seconds:
            done += call()
        synchronize(device)
        found.append(done / (time.perf_counter() - began_s))
    return found[1:]


def emulators(settings: Settings) -> Callable[[], int]:
    """Steps of random play: agent steps."""
    num_envs = settings.environment.num_envs
    env = make_env(find_game(GAME), num_envs, training_rules(settings.environment))
    env.reset(np.arange(num_envs))
    actions = np.random.default_rng(0).integers(0, env.spec.num_actions, (512, num_envs))
    steps = itertools.cycle(actions)

    def step() -> int:
        env.send(next(steps))
        env.receive()
        return num_envs

    return step


def learner(settings: Settings, device: torch.device) -> tuple[Callable[[], int], Callable[[], int]]:
    """What one step asks of the learner, in agent steps; and updates alone from one minibatch."""
    num_envs = settings.environment.num_envs
    env = make_env(find_game(GAME), 1, training_rules(settings.environment))
    agent, sampler = make_agent(settings, env.spec, device), make_sampler(settings, env.spec, device)
    fill(sampler.replay)
    generator = np.random.default_rng(0)
    (batch,) = sampler.replay.sample(generator, 1024)
    agent.initialize(batch.obs)
    (batch,) = sampler.minibatches(generator, 1, 0)

    def step() -> int:
        agent.act(sampler.replay.latest_observation(), 0.1)
        for each in sampler.minibatches(generator, num_envs // settings.learning.update_period_steps, 0):
            agent.update(each)
        return num_envs

    def update() -> int:
        for _ in range(20):
            agent.update(batch)
        synchronize(device)
        return 20

    return step, update


def training(settings: Settings, device: torch.device) -> Callable[[float], int]:
    """A function that trains for a number of seconds and returns the agent steps made."""
    state, run_until = trainer(settings, device)

    def run(seconds: float) -> int:
        before, until_s = state.steps, time.perf_counter() + seconds
        run_until(lambda: time.perf_counter() >= until_s)
        made: int = state.steps - before
        return made

    while state.updates < 100:
        run(0.2)
    return run


@click.command(help=__doc__)
@click.option("--device", "device_name", default="cuda", show_default=True, help="cuda or cpu")
@click.option("--num-envs", default="8,32,64,128", show_default=True, help="games in lockstep")
@click.option("--params", default="wn,standard", show_default=True)
@click.option("--precisions", default="float32,tf32,bf16", show_default=True)
@click.option("--capacity", default=200_000, show_default=True, help="transitions in the replay")
@click.option("--windows", default=3, show_default=True, help="windows for each figure")
@click.option("--seconds", default=1.0, show_default=True, help="of a window")
def main(
    device_name: str, num_envs: str, params: str, precisions: str, capacity: int, windows: int, seconds: float
) -> None:
    device = torch.device(device_name)
    many = [int(each) for each in num_envs.split(",")]
    choices = list(itertools.product(params.split(","), precisions.split(",")))
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {num_cores()} cores, torch {torch.__version__}; median (range) of {windows} windows\n")

    print("| emulators alone, N | agent steps/s |\n|---|---|")
    ceiling: dict[int, float] = {}
    for number in many:
        found = rates(emulators(settings_of("wn", number, "float32", capacity)), device, windows, seconds)
        ceiling[number] = statistics.median(found)
        print(f"| {number} | {spread(found)} |", flush=True)

    print("\n| learner alone | N | agent steps/s | microseconds per update |\n|---|---|---|---|")
    learned: dict[tuple[str, str, int], float] = {}
    for (param, precision), number in itertools.product(choices, many):
        prepare_torch(device, precision)
        step, update = learner(settings_of(param, number, precision, capacity), device)
        found = rates(step, device, windows, seconds)
        learned[param, precision, number] = statistics.median(found)
        update_us = ""
        if number == many[-1]:
            update_us = spread([1e6 / rate for rate in rates(update, device, windows, seconds / 2)])
        print(f"| {param}, {precision} | {number} | {spread(found)} | {update_us} |", flush=True)

    print("\n| training | N | agent steps/s | of the smaller ceiling |\n|---|---|---|---|")
    for (param, precision), number in itertools.product(choices, many):
        prepare_torch(device, precision)
        run = training(settings_of(param, number, precision, capacity), device)
        found = []
        for _ in range(windows):
            began_s = time.perf_counter()
            steps = run(seconds)
            found.append(steps / (time.perf_counter() - began_s))
        share = statistics.median(found) / min(ceiling[number], learned[param, precision, number])
        print(f"| {param}, {precision} | {number} | {spread(found)} | {share:.2f} |", flush=True)
    if device.type == "cuda":
        print(f"\nat most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU")


if __name__ == "__main__":
    main()
