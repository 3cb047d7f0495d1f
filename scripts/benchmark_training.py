"""Measures training speed, and compares it with the machine's limits and with Stable-Baselines3.

    python scripts/benchmark_training.py                                  # wn, standard, N = 1 and SB3 (needs .[bench])
    python scripts/benchmark_training.py --no-sb3 --sweep num_envs=1,8,16,32,64
    python scripts/benchmark_training.py --no-sb3 --sweep capacity=100000,1000000 --full-replay
    python scripts/benchmark_training.py --env gymnasium:CartPole-v1 --batch 32 --cores 1 --window-steps 8192
    python scripts/benchmark_training.py --env gymnasium:MinAtar/Breakout-v1 --batch 32 --cores 1 --window-steps 4096

Every arm trains Space Invaders with the Nature network, or --env with the network that fits, one update per 4 agent
steps and epsilon 0.1, in its own process. The arms alternate, with a window of steps each, so that a drift of the
machine's speed affects all equally. Ratios are computed within a round. The limits are measured in the same rounds: a
large float32 matrix product, the emulators alone, and one update alone. The floor of an arm is the time of
the matrix products of one update at that speed, plus the emulators' time for 4 steps. For --env it is one update in
plain torch (the same network and minibatch: two forward passes, the loss, its gradient, torch's own Adamax), plus the
environment's time for 4 steps.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

GAME = "SpaceInvaders"
WARM_UP_STEPS = 2_048
LIMITS = "limits"
SB3 = "sb3"
# Multiplications and additions of one sample's forward pass through the Nature network (6 actions), by layer.
FORWARD_FLOP = (2 * 400 * 32 * 256, 2 * 81 * 64 * 512, 2 * 49 * 64 * 576, 2 * 3136 * 512, 2 * 512 * 6)
# Target forward, online forward, gradient of weights; gradient of inputs for all layers but the first.
UPDATE_FLOP_PER_SAMPLE = 4 * sum(FORWARD_FLOP) - FORWARD_FLOP[0]


def settings_for(arm: dict[str, Any]) -> Any:
    """The settings of a training: the arm's, and nothing but steps and updates."""
    from wn_dqn.config.files import make_settings

    return make_settings(
        {
            "game": arm["env"],
            "param": arm["param"],
            "environment": {"num_envs": arm["num_envs"]},
            "replay": {"capacity": arm["capacity"]},
            "learning": {"start_steps": WARM_UP_STEPS, "batch_size": arm["batch"], "precision": arm["precision"]},
            "exploration": {"initial": 0.1, "final": 0.1},
            "evaluation": {"held_out_states": 512, "epoch_steps": 10**9},
            "output": {"log_period_steps": 10**9, "checkpoint_period_steps": 10**9},
        }
    )


def synchronize(device: Any) -> None:
    """Wait until a GPU has finished its queued work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def wn_dqn_arm(arm: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Train, a window of steps per item."""
    import numpy as np
    import torch

    from wn_dqn.runs.bench import trainer
    from wn_dqn.system.hardware import prepare_torch

    device = torch.device(arm["device"])
    prepare_torch(device, arm["precision"])
    state, run_until = trainer(settings_for(arm), device, full_replay=arm["full_replay"])

    def run(steps: int) -> None:
        until = state.steps + steps
        run_until(lambda: state.steps >= until)

    def measured(seconds: float, steps: int) -> dict[str, float]:
        gpu = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        return {"s_per_step": seconds / steps, "gpu_bytes": float(gpu), "threads": float(torch.get_num_threads())}

    run(WARM_UP_STEPS + 256)
    assert np.isfinite(state.period.metrics()["train/loss"])
    yield from timed(run, arm["window_steps"], measured)


def sb3_arm(arm: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Stable-Baselines3's DQN on the same work."""
    import torch
    from stable_baselines3 import DQN

    policy, env, kwargs = sb3_atari() if arm["env"] == GAME else sb3_small(arm["env"], arm["num_envs"])
    model = DQN(
        policy,
        env,
        policy_kwargs=kwargs,
        learning_rate=1e-4,
        buffer_size=min(arm["capacity"], 100_000),  # its buffer stores whole stacks, twice: 56 KB per transition
        learning_starts=WARM_UP_STEPS,
        batch_size=arm["batch"],
        train_freq=max(4 // env.num_envs, 1),  # in steps of all environments
        gradient_steps=max(env.num_envs // 4, 1),
        target_update_interval=10_000,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        device=arm["device"],
    )

    def run(steps: int) -> None:
        model.learn(steps, reset_num_timesteps=False, log_interval=10**9)

    run(WARM_UP_STEPS + 256)
    yield from timed(
        run, arm["window_steps"], lambda s, n: {"s_per_step": s / n, "threads": float(torch.get_num_threads())}
    )


def sb3_atari() -> tuple[str, Any, dict[str, Any]]:
    """Policy, one game (what its documentation trains), and the policy's settings."""
    import ale_py
    import gymnasium
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return "CnnPolicy", VecFrameStack(make_atari_env(f"{GAME}NoFrameskip-v4", n_envs=1, seed=0), n_stack=4), {}


def sb3_small(name: str, num_envs: int) -> tuple[str, Any, dict[str, Any]]:
    """The same for `num_envs` games of a small environment, with the network that ours has."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import DummyVecEnv
    from torch import nn

    from wn_dqn.config.games import find_game
    from wn_dqn.config.schema import NetworkSettings
    from wn_dqn.envs.outside import make_one
    from wn_dqn.envs.rules import EnvRules

    class ChannelsFirst(gymnasium.ObservationWrapper):
        """MinAtar's bool [10, 10, C] as bytes [C, 10, 10]."""

        def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
            super().__init__(env)
            height, width, channels = env.observation_space.shape or ()
            self.observation_space = gymnasium.spaces.Box(0, 1, (channels, height, width), np.uint8)

        def observation(self, observation: Any) -> Any:
            return observation.transpose(2, 0, 1).astype(np.uint8)

    class MinAtarFeatures(BaseFeaturesExtractor):
        """16 filters of 3x3 and 128 units (Young & Tian 2019)."""

        def __init__(self, space: Any) -> None:
            super().__init__(space, 128)
            channels, height, width = space.shape
            self.layers = nn.Sequential(
                nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * (height - 2) * (width - 2), 128)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.layers(x))

    def make() -> Any:
        env = make_one(find_game(name), EnvRules())  # type: ignore[arg-type]
        return ChannelsFirst(env) if len(env.observation_space.shape or ()) == 3 else env

    env = DummyVecEnv([make] * num_envs)
    if len(env.observation_space.shape or ()) == 3:
        return (
            "MlpPolicy",
            env,
            {"features_extractor_class": MinAtarFeatures, "net_arch": [], "normalize_images": False},
        )
    return "MlpPolicy", env, {"net_arch": list(NetworkSettings().hidden)}


def limits_arm(arm: dict[str, Any]) -> Iterator[dict[str, float]]:
    """The speed of a matrix product, the time of the emulators for one agent step, and that of one update."""
    import numpy as np
    import torch

    from wn_dqn.config.files import make_settings
    from wn_dqn.config.games import find_game
    from wn_dqn.envs.factory import make_env
    from wn_dqn.envs.rules import training_rules
    from wn_dqn.runs.bench import random_batch
    from wn_dqn.runs.parts import make_agent
    from wn_dqn.system.hardware import prepare_torch

    settings = make_settings({"game": arm["env"], "learning": {"precision": arm["precision"]}})
    device = torch.device(arm["device"])
    prepare_torch(device, arm["precision"])
    size = 2048 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    env = make_env(find_game(arm["env"]), arm["num_envs"], training_rules(settings.environment))
    env.reset(np.arange(arm["num_envs"]))
    agent = make_agent(settings, env.spec, device)
    batch = random_batch(env.spec, arm["batch"], device)
    agent.initialize(batch.obs)
    generator = np.random.Generator(np.random.PCG64(0))

    def emulate() -> None:
        env.send(generator.integers(0, env.spec.num_actions, arm["num_envs"]))
        env.receive()

    plain = plain_update(agent.online, batch) if arm["env"] != GAME else None
    while True:
        matmul_s = median_seconds(lambda: (torch.mm(a, a), synchronize(device)), 1.0)
        flop_per_s, emulator_s = 2 * size**3 / matmul_s, median_seconds(emulate, 1.0) / arm["num_envs"]
        yield {
            "flop_per_s": flop_per_s,
            "emulator_s": emulator_s,
            "update_s": median_seconds(lambda: (agent.update(batch), synchronize(device)), 1.5),
            "floor_s": 4 * emulator_s
            + (
                median_seconds(lambda: (plain(), synchronize(device)), 1.5)
                if plain
                else UPDATE_FLOP_PER_SAMPLE * arm["batch"] / flop_per_s
            ),
        }


def plain_update(network: Any, batch: Any) -> Callable[[], None]:
    """An update in a few lines of plain torch, with a network of the same shape as `network`."""
    import copy

    import torch
    import torch.nn.functional as F
    from torch import nn

    from wn_dqn.nn.layers import layer_kit

    online = network.with_layers(layer_kit("standard")).to(batch.reward.device)
    for parameter in online.parameters():
        nn.init.normal_(parameter, std=0.05)
    target = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.Adamax(online.parameters(), lr=1e-4, foreach=True)

    def update() -> None:
        with torch.no_grad():
            y = batch.reward + batch.discount * target(batch.next_obs).amax(dim=1)
        q = online(batch.obs).gather(1, batch.action.unsqueeze(1)).squeeze(1)
        optimizer.zero_grad()
        F.huber_loss(q, y).backward()
        optimizer.step()

    return update


def timed(
    run: Callable[[int], None], steps: int, measured: Callable[[float, int], dict[str, float]]
) -> Iterator[dict[str, float]]:
    while True:
        began_s = time.perf_counter()
        run(steps)
        yield measured(time.perf_counter() - began_s, steps)


def median_seconds(call: Callable[[], object], budget_s: float) -> float:
    call()
    times = []
    while sum(times) < budget_s:
        began_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def peak_memory_bytes() -> float:
    """The peak memory of this process; NaN if the system does not report it, like Windows."""
    try:
        import resource
    except ImportError:
        return math.nan
    return (1.0 if sys.platform == "darwin" else 1024.0) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def work(arm: dict[str, Any]) -> None:
    """The main function of an arm's process: prints a JSON line for every line on its standard input."""
    if arm["cores"]:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arm["cores"]])
        os.environ["OMP_NUM_THREADS"] = str(arm["cores"])  # before torch is loaded
    kinds = {LIMITS: limits_arm, SB3: sb3_arm}
    windows = kinds.get(arm["kind"], wn_dqn_arm)(arm)
    for _ in sys.stdin:
        window = next(windows)
        window["peak_bytes"] = peak_memory_bytes()
        print(json.dumps(window), flush=True)


class Arm:
    """A process that trains for one window at a time."""

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        self.name, self.spec = name, spec
        self.windows: list[dict[str, float]] = []
        command = [sys.executable, __file__, "--worker", json.dumps(spec)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    def turn(self) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self.name} ended with status {self._process.wait()}")
        return dict(json.loads(line))

    def end(self) -> None:
        self._process.communicate()


def spread(values: list[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


@click.command(help=__doc__)
@click.option("--env", default=GAME, show_default=True, help="GAME, or an environment as for `wn-dqn train --env`")
@click.option("--rounds", default=7, show_default=True, help="windows of each arm")
@click.option("--window-steps", default=512, show_default=True, help="agent steps in a window")
@click.option("--num-envs", default=8, show_default=True, help="games in lockstep")
@click.option("--batch", default=64, show_default=True, help="transitions per update")
@click.option("--capacity", default=100_000, show_default=True, help="transitions in the replay")
@click.option("--precision", default="float32", show_default=True, help="float32, tf32 or bf16")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda")
@click.option("--cores", default=0, show_default=True, help="cores to use; 0: all")
@click.option("--full-replay", is_flag=True, help="fill the replay first, as in a long run")
@click.option("--sb3/--no-sb3", default=True, show_default=True, help="compare with Stable-Baselines3's DQN")
@click.option("--sweep", metavar="KEY=A,B,...", help="wn alone, with other values of one of the options above")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="also write every window here")
@click.option("--worker", hidden=True)
def main(rounds: int, sb3: bool, sweep: str | None, json_path: Path | None, worker: str | None, **base: Any) -> None:
    if worker is not None:
        work(json.loads(worker))
        return
    if base["cores"] and not hasattr(os, "sched_setaffinity"):
        raise click.UsageError("this system does not let a process choose its cores; leave out --cores")
    from wn_dqn.system.hardware import num_cores

    arms = make_arms(base, sb3, sweep)
    print(
        f"{platform.processor() or platform.machine()}, {num_cores()} cores, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "ale-py", *(["stable-baselines3"] * sb3)))
    )
    with click.progressbar(length=(rounds + 1) * len(arms), label="measuring", file=sys.stderr) as progress:
        for round_number in range(rounds + 1):
            for arm in arms:
                window = arm.turn()
                if round_number:  # the first round warms up
                    arm.windows.append(window)
                progress.update(1)
    for arm in arms:
        arm.end()
    report(arms)
    if json_path is not None:
        json_path.write_bytes(json.dumps({arm.name: arm.windows for arm in arms}, indent=1).encode())


def make_arms(base: dict[str, Any], sb3: bool, sweep: str | None) -> list[Arm]:
    specs: dict[str, dict[str, Any]] = {LIMITS: {"kind": LIMITS}}
    if sweep is None:
        num_envs = base["num_envs"]
        specs |= {f"{param}, N={num_envs}": {"kind": "wn_dqn", "param": param} for param in ("wn", "standard")}
        specs["wn, N=1"] = {"kind": "wn_dqn", "param": "wn", "num_envs": 1}
    else:
        key, _, values = sweep.replace("-", "_").partition("=")
        if key not in base or not values:
            raise click.UsageError(f"--sweep {sweep!r} is not KEY=A,B,... with one of {', '.join(sorted(base))}")
        for value in values.split(","):
            specs[f"wn, {key}={value}"] = {"kind": "wn_dqn", "param": "wn", key: type(base[key])(value)}
    if sb3:
        specs["Stable-Baselines3"] = {"kind": SB3}
    return [Arm(name, {"param": "wn", **base, **spec}) for name, spec in specs.items()]


def report(arms: list[Arm]) -> None:
    limits, *trained = arms
    flop_per_s = [window["flop_per_s"] for window in limits.windows]
    print(f"matrix product {spread([f / 1e9 for f in flop_per_s])} GFLOP/s; ", end="")
    print(f"emulators alone {spread([1 / w['emulator_s'] for w in limits.windows])} agent steps/s; ", end="")
    print(f"one update alone, wn {spread([w['update_s'] * 1e3 for w in limits.windows], 2)} ms")
    print("\nmedian (range) over rounds; ratios within rounds")
    print("| arm | agent steps/s | updates/s | time / floor | times SB3 | peak memory |")
    print("|---|---|---|---|---|---|")
    peer = trained[-1] if trained[-1].spec["kind"] == SB3 else None
    for arm in trained:
        speeds = [1 / window["s_per_step"] for window in arm.windows]
        over_floor = [
            4 * w["s_per_step"] / limit["floor_s"] for w, limit in zip(arm.windows, limits.windows, strict=True)
        ]
        ratio = "" if peer is None else spread(pairwise(peer.windows, arm.windows), 2)
        peak = max(window["peak_bytes"] for window in arm.windows) / 2**30
        on_gpu = max(window.get("gpu_bytes", 0.0) for window in arm.windows) / 2**30
        memory = f"{peak:.1f} GiB" + (f" + {on_gpu:.1f} GiB on the GPU" if on_gpu else "")
        updates = statistics.median(speeds) / 4
        print(f"| {arm.name} | {spread(speeds)} | {updates:,.1f} | {spread(over_floor, 2)} | {ratio} | {memory} |")
    if len(trained) > 1 and trained[1].name.startswith("standard"):
        print(f"\ntime of wn / time of standard: {spread(pairwise(trained[0].windows, trained[1].windows), 3)}")


def pairwise(slow: list[dict[str, float]], fast: list[dict[str, float]]) -> list[float]:
    """The ratio of the times of `slow` and `fast`, for each round."""
    return [a["s_per_step"] / b["s_per_step"] for a, b in zip(slow, fast, strict=True)]


if __name__ == "__main__":
    main()
