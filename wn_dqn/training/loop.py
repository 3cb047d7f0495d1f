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
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from wn_dqn.config.schema import Settings
from wn_dqn.envs.vector_env import EnvStep, VectorEnv
from wn_dqn.errors import RunError
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.training.agent import Agent, Measured
from wn_dqn.training.callbacks import Callbacks, Stop
from wn_dqn.training.metrics import Metrics
from wn_dqn.training.schedules import LinearSchedule
from wn_dqn.training.state import PeriodStatistics, TrainingState

_MEASURED_STATES = 256
"""of the held-out states, which were drawn at random: a forward pass over all of them takes as long as many updates"""


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
    row = state.period.metrics()
    if state.period.updates and not math.isfinite(row["train/loss"]):
        raise RunError(
            f"the loss is {row['train/loss']} at step {state.steps:,}; "
            "a smaller optimizer.learning_rate is the usual remedy"
        )
    diagnostics = agent.diagnostics(_measured(settings, replay, state))
    if not state.initialized:
        diagnostics = dict.fromkeys(diagnostics, math.nan)
    counters = {"train/epsilon": epsilon, "train/updates": state.updates, "time/train_s": state.train_s}
    metrics.write(state.steps, {**row, **counters, **replay.metrics(), **diagnostics})
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
    row = {**evaluation.metrics(), "held_out_max_q": math.nan, "train_s": state.train_s}
    row |= {
        "visited_max_q": evaluation.visited_max_q,
        "visited_return": evaluation.visited_return,
        "overestimation": evaluation.visited_max_q - evaluation.visited_return,
    }
    if state.held_out is not None:
        max_q = [agent.q_values(chunk).amax(dim=1) for chunk in torch.split(state.held_out, 256)]
        row["held_out_max_q"] = torch.cat(max_q).mean().item()
    metrics.write_evaluation(state.steps, row, agent.histograms(_measured(settings, replay, state)))
    state.evaluated_at = state.steps
    callbacks.save(state, evaluation.mean)


@contextlib.contextmanager
def _saving_if_stopped(callbacks: Callbacks, state: TrainingState) -> Iterator[None]:
    try:
        yield
    except Stop:
        callbacks.save(state, None)
        raise
