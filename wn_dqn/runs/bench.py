"""Measures training speed, and whether the emulators or the learner limit it.

Training does two things at once: emulators play, and the learner acts and updates. The speed of each one alone is an
upper limit for training. This module measures both limits, then the loop itself, and its share of the smaller limit.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
import torch

from wn_dqn.config.files import make_settings, merge, read_config
from wn_dqn.config.games import game_of
from wn_dqn.config.schema import Precision, Settings
from wn_dqn.envs.factory import make_env, spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.parts import make_agent, make_plan, make_sampler
from wn_dqn.system.hardware import num_cores, prepare_torch
from wn_dqn.training.agent import Agent
from wn_dqn.training.loop import train
from wn_dqn.training.metrics import NullMetrics
from wn_dqn.training.state import TrainingState, new_state

GAME = "SpaceInvaders"
CONFIGS = ("salimans2016", "quick")
_REPLAY = 20_000  # transitions; beyond the caches' size, the cost of a gather does not depend on it
_WARM_UP_UPDATES = 20
_LONG_RUN_UPDATES = 50_000
_ADVICE_S = 0.5
BFLOAT16_PAYS = 0.9
"""share of float32's time; bfloat16 is recommended only below it"""


@dataclass(frozen=True)
class Effort:
    """The effort of a measurement: the numbers of games in lockstep, and the seconds for each number."""

    # Creating an emulator takes 0.1 s. N = 128 as well would take a sixth of the whole time.
    emulators: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 256)
    learner: Sequence[int] = (8, 32, 64)
    seconds: float = 0.6
    loop_seconds: float = 4.0


WHOLE = Effort()
BRIEF = Effort(emulators=(8,), learner=(8,), loop_seconds=2.0)
"""the effort of `wn-dqn doctor` without --bench"""


@dataclass
class Bench:
    """The measurements. Rates are agent steps per second of Space Invaders, by the number of games N."""

    device: str
    cores: int
    threads: int
    emulators: dict[int, float] = field(default_factory=dict)
    """random actions, no learner"""
    update_ms: dict[str, float] = field(default_factory=dict)
    """milliseconds of an update of 64 alone, by precision"""
    one_thread_update_ms: float | None = None
    """the same in float32 with one thread; None on a GPU, or if torch uses only one thread anyway"""
    learner: dict[str, dict[int, float]] = field(default_factory=dict)
    """actions and updates from a full replay, without emulators, by precision"""
    loops: dict[str, Loop] = field(default_factory=dict)
    """of the named configs"""

    @property
    def fastest_precision(self) -> str:
        """The precision with the fastest update; float32 unless another is faster by more than a tenth."""
        fastest = min(self.update_ms, key=lambda name: self.update_ms[name])
        return fastest if self.update_ms[fastest] < BFLOAT16_PAYS * self.update_ms["float32"] else "float32"

    def as_json(self) -> dict[str, Any]:
        """All measurements, with keys that are valid in JSON."""
        return asdict(self) | {"fastest_precision": self.fastest_precision}


@dataclass(frozen=True)
class Loop:
    """Training with a config on this machine."""

    game: str
    num_envs: int
    precision: str
    steps_per_s: float
    smaller_limit: float | None
    """agent steps/s of the emulators or the learner alone, whichever is slower; None if they were not measured"""
    hours: float
    """hours of the whole run, including the random play before learning and the evaluations"""


def measure(
    device: torch.device,
    effort: Effort = WHOLE,
    config: str | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure all of it, in about a minute. `on_stage` is called with the name of each measurement at its start.

    `config`: a named config or a file whose training is measured beside those of `CONFIGS`.
    """
    bench = Bench(str(device), num_cores(), torch.get_num_threads())
    settings = make_settings({"game": GAME})
    for num_envs in effort.emulators:
        on_stage(f"emulators, N = {num_envs}")
        bench.emulators[num_envs] = _emulators(settings_of(settings, num_envs), effort.seconds)
    on_stage("updates")
    bench.update_ms = _updates(settings, device, effort.seconds)
    if device.type == "cpu" and bench.threads > 1:
        bench.one_thread_update_ms = _one_thread(settings, device, effort.seconds, bench.threads)
    for precision, num_envs in itertools.product(dict.fromkeys(["float32", bench.fastest_precision]), effort.learner):
        on_stage(f"learner, {precision}, N = {num_envs}")
        speed = _learner(settings_of(settings, num_envs, precision), device, effort.seconds)
        bench.learner.setdefault(precision, {})[num_envs] = speed
    for name in dict.fromkeys([*CONFIGS, *([config] if config else [])]):
        on_stage(f"training, {name}")
        bench.loops[name] = _loop(name, device, bench, effort)
    return bench


def settings_of(settings: Settings, num_envs: int, precision: str = "float32") -> Settings:
    """`settings` with another number of games and precision, and with a replay small enough to fill at once."""
    changes = {
        "environment": {"num_envs": num_envs},
        "learning": {"precision": precision, "start_steps": 2048},
        "replay": {"capacity": _REPLAY},
        "network": {"init_batch_size": 64},
        "evaluation": {"held_out_states": 256},
    }
    return make_settings(merge([settings.model_dump(), changes]))


def rate(call: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Units per second, where `call` returns its number of units: the median of three windows after a first call."""
    call()
    found = []
    for _ in range(3):
        began_s, done = time.perf_counter(), 0
        while not done or time.perf_counter() - began_s < seconds / 3:
            done += call()
        _wait_for(device)
        found.append(done / (time.perf_counter() - began_s))
    return statistics.median(found)


def _wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _emulators(settings: Settings, seconds: float) -> float:
    """Agent steps/s of random play."""
    num_envs = settings.environment.num_envs
    env = make_env(game_of(settings), num_envs, training_rules(settings.environment))
    env.reset(np.full(num_envs, -1))  # without a seed: seeding takes 0.05 s per game
    generator = np.random.default_rng(0)

    def step() -> int:
        env.send(generator.integers(0, env.spec.num_actions, num_envs))
        env.receive()
        return num_envs

    return rate(step, seconds, torch.device("cpu"))


def _precisions(device: torch.device) -> list[str]:
    return [name for name in get_args(Precision) if name != "tf32" or device.type == "cuda"]


def _updates(settings: Settings, device: torch.device, seconds: float) -> dict[str, float]:
    """Milliseconds of an update, by precision. The measurements alternate, so that a drift in speed affects all."""
    spec = spec_of(game_of(settings), training_rules(settings.environment))
    calls = {name: updater(settings_of(settings, 8, name), spec, device) for name in _precisions(device)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < seconds * len(calls) or len(times["float32"]) < 3:
        for name, call in calls.items():
            prepare_torch(device, name)
            call_s = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - call_s)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def precision_advice(settings: Settings, device: torch.device) -> str | None:
    """A recommendation if this run would be faster in bfloat16 by more than a tenth, else None. Takes a second.

    Only long runs are measured, on processors that multiply bfloat16.
    """
    learning = settings.learning
    updates = (learning.total_steps - learning.start_steps) // learning.update_period_steps
    able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if device.type != "cpu" or learning.precision != "float32" or updates < _LONG_RUN_UPDATES or not able:
        return None
    found = _updates(settings, device, _ADVICE_S / 2)
    ratio = found["bf16"] / found["float32"]
    if ratio >= BFLOAT16_PAYS:
        return None
    return f"--precision bf16 would take {ratio:.2f} of the time of an update here (float32: {found['float32']:.0f} ms)"


def updater(settings: Settings, spec: EnvSpec, device: torch.device) -> Callable[[], float]:
    """A function that updates an agent from random data, and returns when the update is done.

    It has been called twice already, to warm up.
    """
    prepare_torch(device, settings.learning.precision)
    agent, batch = make_agent(settings, spec, device), random_batch(spec, settings.learning.batch_size, device)
    agent.initialize(batch.obs)

    def update() -> float:
        return float(agent.update(batch).loss)

    for _ in range(2):
        update()
    return update


def random_batch(spec: EnvSpec, size: int, device: torch.device) -> TransitionBatch:
    """A minibatch of random data, for measurements."""
    generator = torch.Generator().manual_seed(0)
    channels = spec.frame_shape[0]
    shape = (size, channels + spec.obs_shape[0], *spec.obs_shape[1:])
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    zeros, discount = torch.zeros(size, device=device), torch.full((size,), 0.99, device=device)
    return TransitionBatch(frames[:, :-channels], zeros.long(), zeros, discount, frames[:, channels:])


def _one_thread(settings: Settings, device: torch.device, seconds: float, threads: int) -> float:
    spec = spec_of(game_of(settings), training_rules(settings.environment))
    torch.set_num_threads(1)
    try:
        call = updater(settings, spec, device)
        return 1e3 / rate(lambda: int(bool(call())) | 1, seconds, device)
    finally:
        torch.set_num_threads(threads)


def fill(replay: ReplayBuffer) -> None:
    """Fill `replay` with random transitions.

    Rewards are not all 0. Otherwise the network would learn to predict 0, its gradients would become denormal numbers,
    and these slow a CPU down.
    """
    generator = np.random.default_rng(0)
    spec, num_envs = replay.spec, replay.num_envs
    frames = generator.integers(0, 256, (num_envs, *spec.frame_shape)).astype(spec.frame_dtype)
    no = np.zeros(num_envs, np.bool_)
    replay.begin(frames)
    for _ in range(replay.num_slots):
        actions = generator.integers(0, spec.num_actions, num_envs)
        rewards = generator.integers(-1, 2, num_envs).astype(np.float32)
        replay.append(actions, rewards, no, no, frames, no)


def _learner(settings: Settings, device: torch.device, seconds: float) -> float:
    """Agent steps/s of the learner alone: an action for each game, and the updates that are due."""
    prepare_torch(device, settings.learning.precision)
    spec = spec_of(game_of(settings), training_rules(settings.environment))
    agent, sampler = make_agent(settings, spec, device), make_sampler(settings, spec, device)
    fill(sampler.replay)
    generator = np.random.default_rng(0)
    agent.initialize(next(iter(sampler.minibatches(generator, 1, 0))).obs)
    num_envs = settings.environment.num_envs

    def step() -> int:
        agent.act(sampler.replay.latest_observation(), 0.1)
        for batch in sampler.minibatches(generator, num_envs // settings.learning.update_period_steps, 0):
            agent.update(batch)
        return num_envs

    return rate(step, seconds, device)


class _Window(Exception):  # noqa: N818 - it ends a loop and is not an error
    """The window of steps is over."""


class _Windows:
    """A host of the loop that ends a window of training when `over`, and does nothing else."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def check_stop(self) -> None:
        if self._over():
            raise _Window

    def save(self, state: TrainingState, score: float | None) -> None: ...
    def after_step(self, state: TrainingState) -> None: ...
    def on_initialized(self, outcome: Mapping[str, int]) -> None: ...
    def evaluate(self, steps: int) -> Evaluation:
        raise AssertionError("an epoch is longer than any window")


def trainer(
    settings: Settings, device: torch.device, *, full_replay: bool = False
) -> tuple[TrainingState, Callable[[Callable[[], bool]], None]]:
    """The training state as in ``wn-dqn train``, and a function that trains until its argument returns True."""
    num_envs = settings.environment.num_envs
    env = make_env(game_of(settings), num_envs, training_rules(settings.environment))
    agent: Agent = make_agent(settings, env.spec, device)
    sampler = make_sampler(settings, env.spec, device)
    if full_replay:
        fill(sampler.replay)
    plan = make_plan(settings)
    state = new_state(env.spec, num_envs, plan)

    def run(over: Callable[[], bool]) -> None:
        with contextlib.suppress(_Window):
            train(plan, env, agent, sampler, NullMetrics(), _Windows(over), state)
        _wait_for(device)

    return state, run


def _loop(name: str, device: torch.device, bench: Bench, effort: Effort) -> Loop:
    """Train with the config for a few seconds, and measure the speed."""
    chosen = make_settings({"game": GAME} | read_config(name))
    num_envs, precision = chosen.environment.num_envs, chosen.learning.precision
    speed = training_speed(chosen, device, effort.loop_seconds)
    limits = [bench.emulators.get(num_envs), bench.learner.get(precision, {}).get(num_envs)]
    known = [limit for limit in limits if limit is not None] if _works_as_measured(chosen) else []
    hours = hours_of(chosen, speed, max(bench.emulators.values(), default=speed))
    return Loop(chosen.game, num_envs, precision, speed, min(known) if len(known) == 2 else None, hours)


def training_speed(chosen: Settings, device: torch.device, seconds: float) -> float:
    """Agent steps/s of training after learning has started, measured for `seconds`."""
    prepare_torch(device, chosen.learning.precision)
    short = {
        "learning": {
            "total_steps": 10**9,
            "start_steps": max(chosen.learning.batch_size, 32, chosen.environment.num_envs * chosen.learning.n_steps),
        },
        "network": {"init_batch_size": 32},
        "replay": {"capacity": min(chosen.replay.capacity, _REPLAY)},
        "exploration": {"initial": chosen.exploration.final},
        "evaluation": {"held_out_states": 32, "epoch_steps": 10**9},
        "output": {"log_period_steps": 10**9, "checkpoint_period_steps": 10**9},
    }
    state, run = trainer(make_settings(merge([chosen.model_dump(), short])), device)
    run(lambda: state.updates >= _WARM_UP_UPDATES)
    before, began_s = state.steps, time.perf_counter()
    run(lambda: time.perf_counter() >= began_s + seconds)
    return (state.steps - before) / (time.perf_counter() - began_s)


def _works_as_measured(settings: Settings) -> bool:
    """Whether a step is the same work for the emulators and the learner as in :func:`measure`."""
    default = make_settings({"game": GAME})
    learning = {"batch_size", "update_period_steps", "n_steps"}
    return all(
        mine.model_dump(include=parts) == theirs.model_dump(include=parts)
        for mine, theirs, parts in (
            (settings, default, {"game", "agent", "param", "network"}),
            (settings.learning, default.learning, learning),
        )
    )


def hours_of(settings: Settings, steps_per_s: float, played: float = 0.0) -> float:
    """Hours of the whole run, with `steps_per_s` while learning.

    Random play and evaluations run at half of `played` (emulator steps/s), or at `steps_per_s` if that is faster.
    """
    learning, evaluation = settings.learning, settings.evaluation
    tests = -(-learning.total_steps // evaluation.epoch_steps) * evaluation.steps
    learning_steps = max(learning.total_steps - learning.start_steps, 0)
    return (learning_steps / steps_per_s + (learning.start_steps + tests) / max(played / 2, steps_per_s)) / 3600
