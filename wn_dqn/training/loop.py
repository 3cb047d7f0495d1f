"""The loop: deep Q-learning with experience replay (Mnih et al. 2015, algorithm 1), N games in lockstep.

The loop is concurrent and synchronized, after Daley & Amato (2021). The actions of a step are chosen before its
updates, and the replay does not change during the updates. So the emulators and the learner work at the same time, and
the result does not depend on their speed. There is one update per `update_period_steps` transitions for any N. With
N = 1 the order is that of DeepMind's program: store the transition, choose the next action, then learn.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from wn_dqn.envs.vector_env import EnvironmentFailure, EnvStep, VectorEnv
from wn_dqn.errors import RunError
from wn_dqn.nn.curvature import CURVATURE_METRICS
from wn_dqn.replay.buffer import ReplayBuffer, Sampler
from wn_dqn.seeding import env_seeds, numpy_generator, torch_generator
from wn_dqn.training.agent import Agent, Measured
from wn_dqn.training.host import Host, Stop
from wn_dqn.training.metrics import Metrics
from wn_dqn.training.plan import TrainingPlan
from wn_dqn.training.state import PeriodStatistics, TrainingState

_MEASURED_STATES = 256
"""number of the held-out states that are used; they are in random order, and a forward pass over all is slow"""


def train(
    plan: TrainingPlan,
    env: VectorEnv,
    agent: Agent,
    sampler: Sampler,
    metrics: Metrics,
    host: Host,
    state: TrainingState,
) -> None:
    """Train `agent` from `state` until `plan.total_steps`.

    Raises Stop on request, and EnvironmentFailure if the environment fails, both after saving. Raises RunError if a
    loss or a parameter is not finite.
    """
    replay = sampler.replay
    while True:
        if _evaluation_is_due(plan, state):
            with _saving_if_ended(host, state):
                _evaluate(agent, sampler, metrics, host, plan, state)
        if state.steps >= plan.total_steps:
            return
        if not games_in_progress(plan, state):
            with _saving_if_ended(host, state):
                begin_games(plan, env, replay, state)

        began_s = time.perf_counter()
        if state.action is None:
            _normalize(agent, state)
            state.action = agent.act(replay.latest_observation(), plan.epsilon(state.steps))
            env.send(state.action)
            if state.steps >= state.learning_from_steps and state.held_out is None:
                _begin_learning(plan, agent, replay, host, state)
            if plan.learning_rate is not None:
                agent.set_learning_rate(plan.learning_rate(state.steps))
            for batch in sampler.minibatches(state.replay_generator, _updates_due(plan, state), state.steps):
                outcome = agent.update(batch)
                replay.update_priorities(outcome.priority)
                state.add_update(outcome)
                if state.updates % plan.target_period_updates == 0:
                    agent.update_target()
        else:  # resumed from a save during this step, when the environment failed: its updates have been done
            env.send(state.action)
        with _saving_if_ended(host, state):
            _record(replay, state, state.action, env.receive())
        state.action = None
        host.after_step(state)
        state.add_time(time.perf_counter() - began_s)

        if _crossed(state, plan.log_period_steps):
            _log(agent, sampler, metrics, plan, state)
        with _saving_if_ended(host, state):
            host.check_stop()
            if _crossed(state, plan.checkpoint_period_steps) and not _evaluation_is_due(plan, state):
                host.save(state, None)


def _crossed(state: TrainingState, period: int) -> bool:
    """Whether the last step reached or passed a multiple of `period` steps; true at 0."""
    return state.steps // period > (state.steps - state.num_envs) // period


def _evaluation_is_due(plan: TrainingPlan, state: TrainingState) -> bool:
    ended = state.steps >= plan.total_steps or _crossed(state, plan.epoch_steps)
    return ended and state.evaluated_at != state.steps


def _updates_due(plan: TrainingPlan, state: TrainingState) -> int:
    """The number of updates due after the last step: one per `update_period_steps` transitions of learning."""
    learned = max(state.steps - state.learning_from_steps, 0)
    learned_before = max(state.steps - state.num_envs - state.learning_from_steps, 0)
    return learned // plan.update_period_steps - learned_before // plan.update_period_steps


def begin_games(plan: TrainingPlan, env: VectorEnv, replay: ReplayBuffer, state: TrainingState) -> None:
    """Start new games from seeds that depend only on the step.

    Emulators cannot save their state. So a resumed run restores them from these seeds and the actions since.
    """
    frames = env.reset(env_seeds(plan.seed, "environment", state.steps, num_envs=state.num_envs))
    state.begin_games(frames)
    if state.statistics is not None:
        state.statistics.add(frames)
    replay.begin(frames)
    state.epoch_began_at = state.steps
    state.epoch_actions.clear()
    state.game_return[:] = 0.0
    state.game_steps[:] = 0


def _normalize(agent: Agent, state: TrainingState) -> None:
    """Set the network's mean and variance of observations, if it normalizes observations."""
    statistics = state.statistics
    if statistics is not None and agent.online.normalization is not None:
        mean, variance = torch.from_numpy(statistics.mean), torch.from_numpy(statistics.variance)
        agent.online.normalization.set_(mean, variance)


def games_in_progress(plan: TrainingPlan, state: TrainingState) -> bool:
    """Whether the games continue from `state`. Otherwise new games start with the next epoch."""
    return state.action is not None or not _crossed(state, plan.epoch_steps)


def restore_games(plan: TrainingPlan, env: VectorEnv, state: TrainingState, on_step: Callable[[int], None]) -> None:
    """Restore `env` to the state of a saved run: reset it as at the epoch's start, and repeat every action.

    Raises RunError if the last observation differs from the saved one, for instance after an emulator's update.
    """
    state.begin_games(env.reset(env_seeds(plan.seed, "environment", state.epoch_began_at, num_envs=state.num_envs)))
    for done, action in enumerate(state.epoch_actions):
        env.send(action.astype(np.int64))
        state.observe(env.receive())
        on_step(done)
    if state.obs_crc32() != state.saved_obs_crc32:
        raise RunError(
            "the games cannot be restored: the emulator does not repeat itself; was it updated since? New games begin "
            "with --set environment.repeats=false --accept-changes"
        )


def _begin_learning(plan: TrainingPlan, agent: Agent, replay: ReplayBuffer, host: Host, state: TrainingState) -> None:
    """Initialize the network from data, unless it was imported, and draw the held-out states for mean max-Q."""
    generator = numpy_generator(plan.seed, "init")
    (batch,) = replay.sample(generator, plan.init_batch_size)
    outcome = None if state.initialized else agent.initialize(batch.obs)
    (batch,) = replay.sample(generator, plan.held_out_states)
    state.held_out = batch.obs.cpu()
    if outcome is not None:
        state.initialized = True
        host.on_initialized(outcome)


def _record(replay: ReplayBuffer, state: TrainingState, action: NDArray[np.int64], step: EnvStep) -> None:
    """Append the step to the replay, and count it."""
    reward = np.clip(step.reward, -1.0, 1.0) if state.spec.clip_rewards else step.reward
    replay.append(
        action,
        reward,
        step.terminal,
        step.truncated & ~step.terminated,
        step.frame,
        step.new_game,
        step.final_frame,
        step.skipped,
    )
    state.record(action, step)


def _measured(plan: TrainingPlan, sampler: Sampler, state: TrainingState) -> Measured | None:
    """The data for the instruments at this step; None before learning starts.

    It is drawn by a generator that is seeded with the step. So instruments do not change what is learned, and have no
    state to save.
    """
    if state.held_out is None or state.steps < state.learning_from_steps:
        return None
    (batch,) = sampler.minibatches(numpy_generator(plan.seed, "replay", state.steps), 1, state.steps)
    return Measured(batch, state.held_out[:_MEASURED_STATES])


def _log(agent: Agent, sampler: Sampler, metrics: Metrics, plan: TrainingPlan, state: TrainingState) -> None:
    """Write a row of metrics about the period since the last row."""
    row = state.period.metrics()
    if state.period.updates and not math.isfinite(row["train/loss"]):
        raise RunError(
            f"the loss is {row['train/loss']} at step {state.steps:,}; "
            "a smaller optimizer.learning_rate is the usual remedy"
        )
    diagnostics = agent.diagnostics(_measured(plan, sampler, state))
    if not state.initialized:
        diagnostics = dict.fromkeys(diagnostics, math.nan)
    counters = {
        "train/epsilon": plan.epsilon(state.steps),
        "train/updates": state.updates,
        "time/train_s": state.train_s,
    }
    metrics.write(state.steps, {**row, **counters, **sampler.replay.metrics(), **diagnostics})
    state.period = PeriodStatistics()


def _evaluate(
    agent: Agent,
    sampler: Sampler,
    metrics: Metrics,
    host: Host,
    plan: TrainingPlan,
    state: TrainingState,
) -> None:
    """Evaluate the agent, write the outcome, and save."""
    agent.check_finite()
    evaluation = host.evaluate(state.steps)
    row = {**evaluation.metrics(), "held_out_max_q": math.nan, "train_s": state.train_s}
    row |= {
        "visited_max_q": evaluation.visited_max_q,
        "visited_return": evaluation.visited_return,
        "overestimation": evaluation.visited_max_q - evaluation.visited_return,
    }
    if state.held_out is not None:
        max_q = [agent.q_values(chunk).amax(dim=1) for chunk in torch.split(state.held_out, 256)]
        row["held_out_max_q"] = torch.cat(max_q).mean().item()
    measured = _measured(plan, sampler, state)
    if plan.curvature_products:
        row |= _curvature(agent, plan, measured, state.steps)
    metrics.write_evaluation(state.steps, row, agent.histograms(measured))
    state.evaluated_at = state.steps
    host.save(state, evaluation.mean)


def _curvature(agent: Agent, plan: TrainingPlan, measured: Measured | None, steps: int) -> dict[str, float]:
    """`CURVATURE_METRICS` of the loss of a minibatch that no update uses; NaN before learning starts."""
    if measured is None:
        return dict.fromkeys(CURVATURE_METRICS, math.nan)
    return agent.curvature(measured.batch, plan.curvature_products, torch_generator(plan.seed, "curvature", steps))


@contextlib.contextmanager
def _saving_if_ended(host: Host, state: TrainingState) -> Iterator[None]:
    """Save the run if a stop is requested, or if the environment fails."""
    try:
        yield
    except (Stop, EnvironmentFailure):
        host.save(state, None)
        raise
