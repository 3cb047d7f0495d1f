"""The loop: deep Q-learning with experience replay (Mnih et al. 2015, algorithm 1), N games in lockstep.

Concurrent and synchronized, after Daley & Amato (2021): the actions of a step are chosen before the updates of that
step run, and the updates see a replay that does not change under them, so the emulators work while the learner does
and nothing depends on who is faster. There is one update per `update_period_steps` transitions whatever N is. N = 1 is
the order of DeepMind's program: store the transition, choose the next action, then learn.
"""

from __future__ import annotations

import contextlib
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.agent import Agent, Measured, UpdateMetrics
from wn_dqn.config import Settings
from wn_dqn.environment import EnvStep, VectorEnv
from wn_dqn.errors import RunError
from wn_dqn.evaluation import Evaluation
from wn_dqn.metrics import Metrics
from wn_dqn.replay import ReplayBuffer
from wn_dqn.schedules import LinearSchedule
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.transitions import TransitionBatch

_MEASURED_STATES = 256
"""of the held-out states, which were drawn at random: a forward pass over all of them takes as long as many updates"""


class Stop(Exception):  # noqa: N818 - not an error: somebody asked the run to stop
    """Raised by `Callbacks.check_stop` and passed on once the run is saved."""


class Callbacks(Protocol):
    """What the loop asks for at its joints. Nothing here changes what is learned."""

    def evaluate(self, steps: int) -> Evaluation:
        """Test the agent; the outcome depends on the network, the seed and `steps` alone. May raise Stop."""
        ...

    def save(self, state: TrainingState, score: float | None) -> None:
        """Save everything an identical continuation needs."""
        ...

    def on_initialized(self, figures: Mapping[str, int]) -> None:
        """Told what the agent says of its initialization."""
        ...

    def after_step(self, state: TrainingState) -> None:
        """Called after every step: progress, writing behind."""
        ...

    def check_stop(self) -> None:
        """Raise Stop if the run has been asked to stop."""
        ...


@dataclass
class PeriodStatistics:
    """What happened since the last row of metrics: sums, so that a resumed run ends in the same row."""

    returns: list[float] = field(default_factory=list)
    game_steps: list[int] = field(default_factory=list)
    steps: int = 0
    updates: int = 0
    train_s: float = 0.0
    loss_sum: Tensor | None = None
    q_sum: Tensor | None = None

    def add_update(self, metrics: UpdateMetrics) -> None:
        """Nobody waits for the device here: sums stay tensors until the row is written."""
        self.loss_sum = metrics.loss.double() if self.loss_sum is None else self.loss_sum + metrics.loss
        self.q_sum = metrics.mean_q.double() if self.q_sum is None else self.q_sum + metrics.mean_q

    def figures(self) -> dict[str, float]:
        """Means over the period; NaN where nothing happened."""
        return {
            "train/episode_return": _mean(self.returns),
            "train/episode_steps": _mean(self.game_steps),
            "train/games": len(self.returns),
            "train/loss": math.nan if self.loss_sum is None else self.loss_sum.item() / self.updates,
            "train/mean_q": math.nan if self.q_sum is None else self.q_sum.item() / self.updates,
            "speed/steps_per_s": self.steps / self.train_s,
            "speed/updates_per_s": self.updates / self.train_s,
        }


@dataclass
class TrainingState:
    """Where the loop is. With the agent, the replay and the metrics, this is all that a continuation needs."""

    num_envs: int
    replay_generator: np.random.Generator
    obs: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """the newest observations, as the environment gave them"""
    saved_obs_crc32: int = 0
    """of the observations that were saved: where games begin anew with an epoch, they are not brought back"""
    steps: int = 0
    updates: int = 0
    learning_from_steps: int = 0
    """the step that updates are counted from"""
    initialized: bool = False
    """whether the network is more than random numbers: initialized from data, or imported"""
    evaluated_at: int = 0
    epoch_began_at: int = -1
    epoch_actions: list[NDArray[np.uint8]] = field(default_factory=list)
    """every action since the games were reset: stepping them again restores the emulators, which save no state"""
    game_return: NDArray[np.float64] = field(init=False)
    game_steps: NDArray[np.int64] = field(init=False)
    period: PeriodStatistics = field(default_factory=PeriodStatistics)
    train_s: float = 0.0
    """seconds spent in training, evaluations not counted"""
    held_out: Tensor | None = None

    def __post_init__(self) -> None:
        self.game_return = np.zeros(self.num_envs)
        self.game_steps = np.zeros(self.num_envs, np.int64)

    def add_time(self, seconds: float) -> None:
        """Count seconds spent in training."""
        self.train_s += seconds
        self.period.train_s += seconds

    def state_dict(self) -> dict[str, Any]:
        """Everything but the held-out states, which never change and are saved once."""
        actions = np.stack(self.epoch_actions) if self.epoch_actions else np.zeros((0, self.num_envs), np.uint8)
        return {
            "steps": self.steps,
            "updates": self.updates,
            "learning_from_steps": self.learning_from_steps,
            "initialized": self.initialized,
            "evaluated_at": self.evaluated_at,
            "epoch_began_at": self.epoch_began_at,
            "epoch_actions": actions,
            "obs_crc32": zlib.crc32(self.obs.tobytes()) if self.obs.size else self.saved_obs_crc32,
            "train_s": self.train_s,
            "game_return": self.game_return,
            "game_steps": self.game_steps,
            "period": {key: value for key, value in vars(self.period).items() if value is not None},
            "replay_generator": self.replay_generator.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.steps, self.updates, self.train_s = state["steps"], state["updates"], state["train_s"]
        self.learning_from_steps, self.initialized = state["learning_from_steps"], state["initialized"]
        self.evaluated_at, self.epoch_began_at = state["evaluated_at"], state["epoch_began_at"]
        self.epoch_actions = list(state["epoch_actions"].numpy())
        self.game_return = state["game_return"].numpy().copy()
        self.game_steps = state["game_steps"].numpy().copy()
        self.period = PeriodStatistics(**state["period"])
        self.saved_obs_crc32 = state["obs_crc32"]
        self.replay_generator.bit_generator.state = state["replay_generator"]


def new_state(settings: Settings) -> TrainingState:
    """The state of a run that has not begun."""
    return TrainingState(
        settings.environment.num_envs,
        numpy_generator(settings.seed, "replay"),
        learning_from_steps=settings.learning.start_steps,
    )


def train(
    settings: Settings,
    env: VectorEnv,
    agent: Agent,
    replay: ReplayBuffer,
    metrics: Metrics,
    callbacks: Callbacks,
    state: TrainingState,
) -> None:
    """Train `agent` from `state` until `settings.learning.total_steps`.

    Raises Stop when asked to (after saving), RunError when a loss or a parameter is no longer finite.
    """
    learning, exploration, output = settings.learning, settings.exploration, settings.output
    epsilon = LinearSchedule(exploration.initial, exploration.final, learning.start_steps, exploration.decay_steps)
    while True:
        if _evaluation_is_due(settings, state):
            with _saving_if_stopped(callbacks, state):
                _evaluate(settings, agent, replay, metrics, callbacks, state)
        if state.steps >= learning.total_steps:
            return
        if _crossed(state, settings.evaluation.epoch_steps):
            _begin_epoch(settings, env, replay, state)

        began_s = time.perf_counter()
        action = agent.act(replay.latest_observation(), epsilon(state.steps))
        env.send(action)
        if state.steps >= state.learning_from_steps and state.held_out is None:
            _begin_learning(settings, agent, replay, callbacks, state)
        for batch in _minibatches(settings, replay, state, state.replay_generator, _updates_due(settings, state)):
            outcome = agent.update(batch)
            replay.update_priorities(outcome.td_error)
            state.period.add_update(outcome)
            state.updates += 1
            state.period.updates += 1
            if state.updates % settings.target_period_updates == 0:
                agent.update_target()
        _record(settings, replay, state, action, env.receive())
        callbacks.after_step(state)
        state.add_time(time.perf_counter() - began_s)

        if _crossed(state, output.log_period_steps):
            _log(settings, agent, replay, metrics, state, epsilon(state.steps))
        with _saving_if_stopped(callbacks, state):
            callbacks.check_stop()
            if _crossed(state, output.checkpoint_period_steps) and not _evaluation_is_due(settings, state):
                callbacks.save(state, None)


def _crossed(state: TrainingState, period: int) -> bool:
    """Whether the last step reached or passed a multiple of `period` steps; true at 0."""
    return state.steps // period > (state.steps - state.num_envs) // period


def _evaluation_is_due(settings: Settings, state: TrainingState) -> bool:
    ended = state.steps >= settings.learning.total_steps or _crossed(state, settings.evaluation.epoch_steps)
    return ended and state.evaluated_at != state.steps


def _updates_due(settings: Settings, state: TrainingState) -> int:
    """Updates that the last step made due: one per `update_period_steps` transitions since learning started."""
    learned = max(state.steps - state.learning_from_steps, 0)
    learned_before = max(state.steps - state.num_envs - state.learning_from_steps, 0)
    period = settings.learning.update_period_steps
    return learned // period - learned_before // period


def _minibatches(
    settings: Settings, replay: ReplayBuffer, state: TrainingState, generator: np.random.Generator, number: int
) -> Iterator[TransitionBatch]:
    """`number` minibatches to learn from; beta, of prioritized replay, goes to 1 as epsilon goes down: on a line."""
    learning, per = settings.learning, settings.replay
    beta = LinearSchedule(per.importance_exponent, 1.0, learning.start_steps, per.importance_anneal_steps)
    return replay.minibatches(generator, learning.batch_size, number, beta(state.steps))


def _begin_epoch(settings: Settings, env: VectorEnv, replay: ReplayBuffer, state: TrainingState) -> None:
    """Begin new games from seeds that depend on the step alone: emulators save no state, but this restores them."""
    state.obs = env.reset(env_seeds(settings.seed, "environment", state.steps, num_envs=state.num_envs))
    replay.begin(state.obs[:, -1])
    state.epoch_began_at = state.steps
    state.epoch_actions.clear()
    state.game_return[:] = 0.0
    state.game_steps[:] = 0


def games_in_progress(settings: Settings, state: TrainingState) -> bool:
    """Whether the games go on from `state`, rather than beginning anew with an epoch."""
    return not _crossed(state, settings.evaluation.epoch_steps)


def restore_games(settings: Settings, env: VectorEnv, state: TrainingState, on_step: Callable[[int], None]) -> None:
    """Bring `env` to where a saved run left it: reset as at the epoch's beginning, and step every action again.

    RunError if that does not end in the observation that was saved, as with another version of the emulator.
    """
    state.obs = env.reset(env_seeds(settings.seed, "environment", state.epoch_began_at, num_envs=state.num_envs))
    for done, action in enumerate(state.epoch_actions):
        env.send(action.astype(np.int64))
        state.obs = env.receive().obs
        on_step(done)
    if zlib.crc32(state.obs.tobytes()) != state.saved_obs_crc32:
        raise RunError("the games cannot be restored: the emulator does not repeat itself; was ale-py updated since?")


def _begin_learning(
    settings: Settings, agent: Agent, replay: ReplayBuffer, callbacks: Callbacks, state: TrainingState
) -> None:
    """The data-dependent initialization (not of a network that was given) and the states to follow mean max-Q on."""
    generator = numpy_generator(settings.seed, "init")
    (batch,) = replay.sample(generator, settings.network.init_batch_size)
    if not state.initialized:
        callbacks.on_initialized(agent.initialize(batch.obs))
        state.initialized = True
    (batch,) = replay.sample(generator, settings.evaluation.held_out_states)
    state.held_out = batch.obs.cpu()


def _record(
    settings: Settings, replay: ReplayBuffer, state: TrainingState, action: NDArray[np.int64], step: EnvStep
) -> None:
    """Put the step into the replay and count it."""
    over = step.terminated | step.truncated
    terminal = step.terminated | step.life_lost if settings.environment.terminal_on_life_loss else step.terminated
    reward = np.clip(step.reward, -1.0, 1.0)
    replay.append(action, reward, terminal, step.truncated & ~step.terminated, step.obs[:, -1], over)
    state.obs = step.obs
    state.epoch_actions.append(action.astype(np.uint8))
    state.steps += state.num_envs
    state.period.steps += state.num_envs
    state.game_return += step.reward
    state.game_steps += 1
    state.period.returns += state.game_return[over].tolist()
    state.period.game_steps += state.game_steps[over].tolist()
    state.game_return[over] = 0.0
    state.game_steps[over] = 0


def _measured(settings: Settings, replay: ReplayBuffer, state: TrainingState) -> Measured | None:
    """What the instruments look at now; None while there is no learning.

    Drawn by a generator of this step's own: no instrument moves what is learned, or needs a memory to be saved.
    """
    if state.held_out is None or state.steps < state.learning_from_steps:
        return None
    (batch,) = _minibatches(settings, replay, state, numpy_generator(settings.seed, "replay", state.steps), 1)
    return Measured(batch, state.held_out[:_MEASURED_STATES])


def _log(
    settings: Settings, agent: Agent, replay: ReplayBuffer, metrics: Metrics, state: TrainingState, epsilon: float
) -> None:
    """A row of metrics, about the time since the last one."""
    figures = state.period.figures()
    if state.period.updates and not math.isfinite(figures["train/loss"]):
        raise RunError(
            f"the loss is {figures['train/loss']} at step {state.steps:,}; "
            "a smaller optimizer.learning_rate is the usual remedy"
        )
    diagnostics = agent.diagnostics(_measured(settings, replay, state))
    if not state.initialized:
        diagnostics = dict.fromkeys(diagnostics, math.nan)
    counters = {"train/epsilon": epsilon, "train/updates": state.updates, "time/train_s": state.train_s}
    metrics.write(state.steps, {**figures, **counters, **replay.figures(), **diagnostics})
    state.period = PeriodStatistics()


def _evaluate(
    settings: Settings,
    agent: Agent,
    replay: ReplayBuffer,
    metrics: Metrics,
    callbacks: Callbacks,
    state: TrainingState,
) -> None:
    """Test the agent, write the outcome, and save."""
    agent.check_finite()
    evaluation = callbacks.evaluate(state.steps)
    figures = {**evaluation.figures(), "held_out_max_q": math.nan, "train_s": state.train_s}
    figures |= {
        "visited_max_q": evaluation.visited_max_q,
        "visited_return": evaluation.visited_return,
        "overestimation": evaluation.visited_max_q - evaluation.visited_return,
    }
    if state.held_out is not None:
        max_q = [agent.q_values(chunk).amax(dim=1) for chunk in torch.split(state.held_out, 256)]
        figures["held_out_max_q"] = torch.cat(max_q).mean().item()
    metrics.write_evaluation(state.steps, figures, agent.histograms(_measured(settings, replay, state)))
    state.evaluated_at = state.steps
    callbacks.save(state, evaluation.mean)


@contextlib.contextmanager
def _saving_if_stopped(callbacks: Callbacks, state: TrainingState) -> Iterator[None]:
    try:
        yield
    except Stop:
        callbacks.save(state, None)
        raise


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
