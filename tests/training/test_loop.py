"""The loop: every call it makes, in order, against literal counts and a literal transcription of the algorithm."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_runs import assert_same
from torch import Tensor

from wn_dqn.config.files import make_settings
from wn_dqn.config.schema import Settings
from wn_dqn.envs.catch import SPEC as CATCH
from wn_dqn.envs.vector_env import EnvStep
from wn_dqn.errors import RunError
from wn_dqn.evaluation.rollout import Evaluation, GameResult
from wn_dqn.replay.buffer import ReplayBuffer, Sampler
from wn_dqn.replay.prioritized import PrioritizedReplay
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.parts import make_plan
from wn_dqn.seeding import env_seeds
from wn_dqn.training.agent import Measured, UpdateMetrics
from wn_dqn.training.host import Stop
from wn_dqn.training.loop import restore_games, train
from wn_dqn.training.metrics import NullMetrics
from wn_dqn.training.schedules import LinearSchedule
from wn_dqn.training.state import TrainingState, new_state

Event = tuple[Any, ...]
ENVS = [1, 2, 8, 3]
SPEC = dataclasses.replace(CATCH, clip_rewards=True)


def settings_for(num_envs: int = 1, total: int = 64, **overrides: int | float | bool) -> Settings:
    """Tiny settings; `overrides` are dotted keys with `__` for the dot."""
    values = {
        "environment": {"num_envs": num_envs},
        "replay": {"capacity": 200},
        "network": {"init_batch_size": 7},
        "learning": {
            "total_steps": total, "start_steps": 20, "update_period_steps": 4, "batch_size": 5,
            "target_period_steps": 12,
        },
        "exploration": {"decay_steps": 30},
        "evaluation": {"epoch_steps": 1000, "held_out_states": 11},
        "output": {"log_period_steps": 1000, "checkpoint_period_steps": 1000},
    }  # fmt: skip
    for key, value in overrides.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    return make_settings({"game": "Catch", "seed": 3, **values})


Script = Callable[[int], Mapping[str, Any]]
"""Number of the step since the start of the run -> what differs from an uneventful step of N games."""


class Run:
    """A run of the loop on a scripted environment, with everything that is called written down in `events`.

    The frame of an environment's step t is filled with t: it can be recognized in the replay.
    """

    def __init__(self, settings: Settings, script: Script = lambda _step: {}) -> None:
        self.settings, self.script = settings, script
        self.events: list[Event] = []
        self.plan = make_plan(settings)
        self.state = new_state(SPEC, settings.environment.num_envs, self.plan)
        self.replay: ReplayBuffer = RecordingReplay(self, settings.replay.capacity)
        self.rows: dict[int, dict[str, float]] = {}
        self.measured: dict[int, Measured | None] = {}
        self.evaluations: dict[int, dict[str, float]] = {}

        num_envs = settings.environment.num_envs
        self.num_envs, self.num_actions, self.spec = num_envs, 3, SPEC
        self.env_steps = 0
        self.stop_at: Callable[[TrainingState], bool] = lambda _state: False
        self.stop_in_evaluation_at = -1
        self.losses = itertools.count(1.0)

    def train(self) -> Run:
        train(self.plan, self, self, self.sampler, RunMetrics(self), self, self.state)
        return self

    def of(self, *names: str) -> list[Event]:
        return [event for event in self.events if event[0] in names]

    def log(self, *event: Any) -> None:
        self.events.append(event)

    # the environment

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.log("reset", self.state.steps, seeds.tolist())
        return self._obs()

    def send(self, actions: NDArray[np.int64]) -> None:
        self.log("send", actions.tolist())

    def receive(self) -> EnvStep:
        self.log("receive")
        self.env_steps += 1
        never = np.zeros(self.num_envs, np.bool_)
        uneventful = EnvStep(self._obs(), np.zeros(self.num_envs, np.float32), never, never, never)
        return uneventful._replace(**{name: np.array(v) for name, v in self.script(self.env_steps).items()})

    def _obs(self) -> NDArray[np.uint8]:
        return np.full((self.num_envs, 1, 84, 84), self.env_steps, np.uint8)

    # the agent

    @property
    def sampler(self) -> Sampler:
        learning, per = self.settings.learning, self.settings.replay
        beta = LinearSchedule(per.importance_exponent, 1.0, learning.start_steps, per.importance_anneal_steps)
        return Sampler(self.replay, learning.batch_size, beta)

    def initialize(self, obs: Tensor) -> dict[str, int]:
        self.log("initialize", self.state.steps, len(obs))
        return {"figure": 1}

    def act(self, obs: Tensor, epsilon: float) -> NDArray[np.int64]:
        assert obs.shape == (self.num_envs, 4, 84, 84)
        assert (obs[:, -1] == self.env_steps).all()
        self.log("act", self.state.steps, epsilon)
        return (np.arange(self.num_envs) + self.env_steps) % self.num_actions

    def q_values(self, obs: Tensor) -> Tensor:
        return obs[:, -1, 0, :3] * torch.tensor([0.0, 1.0, 2.0])

    def update(self, batch: TransitionBatch) -> UpdateMetrics:
        self.log("update", len(batch.action), self.replay.num_transitions)
        loss = torch.tensor(next(self.losses))
        return UpdateMetrics(loss, torch.tensor(0.5), -loss * torch.arange(5), loss * torch.arange(5))

    def set_learning_rate(self, rate: float) -> None:
        self.log("rate", rate)

    def update_target(self) -> None:
        self.log("target")

    def diagnostics(self, measured: Measured | None) -> dict[str, float]:
        self.measured[self.state.steps] = measured
        return {"layers/one": 1.5}

    def histograms(self, measured: Measured | None) -> dict[str, Tensor]:
        self.measured[self.state.steps] = measured
        return {"parameters/one": torch.ones(3)}

    def check_finite(self) -> None:
        self.log("check_finite")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    # the callbacks

    def evaluate(self, steps: int) -> Evaluation:
        self.log("evaluate", steps)
        if steps == self.stop_in_evaluation_at:
            raise Stop("asked", 0)
        games = (GameResult(float(steps), 9, finished=True),)
        return Evaluation(games, unfinished_games=0, visited_max_q=2.5, visited_return=0.5)

    def save(self, state: TrainingState, score: float | None) -> None:
        self.log("save", state.steps, score)

    def after_step(self, state: TrainingState) -> None:
        self.log("after_step", state.steps)

    def on_initialized(self, figures: Mapping[str, int]) -> None:
        assert figures == {"figure": 1}

    def check_stop(self) -> None:
        if self.stop_at(self.state):
            raise Stop("asked", 0)


class RunMetrics(NullMetrics):
    def __init__(self, run: Run) -> None:
        self.run = run

    def write(self, steps: int, figures: Mapping[str, float]) -> None:
        self.run.rows[steps] = dict(figures)

    def write_evaluation(self, steps: int, figures: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        assert list(histograms) == ["parameters/one"]
        self.run.evaluations[steps] = dict(figures)


class RecordingReplay(ReplayBuffer):
    def __init__(self, run: Run, capacity: int) -> None:
        super().__init__(SPEC, capacity, run.settings.environment.num_envs, 0.9, torch.device("cpu"))
        self._run = run

    def begin(self, frames: NDArray[np.uint8]) -> None:
        super().begin(frames)
        self._run.log("begin")

    def append(self, *transition: Any) -> None:
        super().append(*transition)
        self._run.log("append")


class RecordingPriorities(PrioritizedReplay):
    def __init__(self, run: Run) -> None:
        num_envs, replay = run.settings.environment.num_envs, run.settings.replay
        super().__init__(SPEC, replay.capacity, num_envs, 0.9, torch.device("cpu"), 1, replay.priority_exponent, 1e-6)
        self._run = run

    def minibatches(self, *arguments: Any) -> Iterator[TransitionBatch]:
        for batch in super().minibatches(*arguments):
            self._run.log("draw", self._run.state.steps, arguments[-1])
            yield batch

    def update_priorities(self, td_error: Tensor) -> None:
        super().update_priorities(td_error)
        self._run.log("report", *td_error.tolist())


@pytest.mark.parametrize("num_envs", ENVS)
def test_order_of_the_calls_of_each_step(num_envs: int) -> None:
    """Act, send, learn while the emulators run, receive, remember; initialize once, exactly when learning starts."""
    run = Run(settings_for(num_envs)).train()
    names = [event[0] for event in run.events if event[0] not in ("check_finite", "evaluate", "save")]
    assert names[:2] == ["reset", "begin"]
    steps = " ".join(names[2:]).split(" after_step")
    assert steps.pop() == ""  # nothing follows the last step
    assert len(steps) == -(-64 // num_envs)
    for number, step in enumerate(steps):
        seen = number * num_envs
        calls = step.split()
        begins = seen - num_envs < 20 <= seen
        learning = calls[3:-2] if begins else calls[2:-2]
        assert calls == ["act", "send", *["initialize"] * begins, *learning, "receive", "append"]
        assert set(learning) <= {"update", "target"}
    (initialize,) = run.of("initialize")
    assert initialize == ("initialize", -(-20 // num_envs) * num_envs, 7)
    assert all(event[1] == 5 for event in run.of("update"))


@pytest.mark.parametrize("num_envs", ENVS)
@pytest.mark.parametrize(("start", "period"), [(20, 4), (21, 3), (16, 1), (17, 50)])
def test_number_of_updates(num_envs: int, start: int, period: int) -> None:
    """One per `period` transitions since learning started, of those seen before the step, for every N."""
    settings = settings_for(
        num_envs, 100, learning__start_steps=start, learning__update_period_steps=period,
        learning__target_period_steps=3 * period,
    )  # fmt: skip
    updates = targets = seen = 0
    for event in Run(settings).train().events:
        if event[0] == "update":
            updates += 1
            assert event[2] == seen  # the replay does not change under the learner
        elif event[0] == "target":
            targets += 1
            assert updates == 3 * targets
        elif event[0] == "receive":
            assert updates == max((seen - start) // period, 0)
            assert targets == updates // 3
            seen += num_envs
    assert seen == math.ceil(100 / num_envs) * num_envs


def algorithm_1(total: int, start: int, update_period: int, target_period_updates: int) -> list[Event]:
    """Mnih et al. (2015), algorithm 1, for one game, with the two details of their methods section: learning starts
    after `start` steps of random play, and there is one update per `update_period` actions.

    As in DeepMind's program, the next action is selected as soon as a transition is stored, then comes the minibatch.
    """
    calls: list[Event] = []
    memory: list[int] = []  # initialize replay memory D
    updates = 0
    for t in range(total):
        epsilon = 1.0 if t < start else max(0.1, 1.0 - 0.9 * (t - start) / 30)
        calls.append(("act", t, pytest.approx(epsilon)))  # with probability epsilon a random action, else the best one
        if t > start and (t - start) % update_period == 0:
            calls.append(("update", 5, len(memory)))  # a minibatch from D, a gradient descent step
            updates += 1
            if updates % target_period_updates == 0:
                calls.append(("target",))  # every C updates: target Q := Q
        memory.append(t)  # execute the action, store the transition in D
    return calls


def test_one_game_is_algorithm_1() -> None:
    run = Run(settings_for(1, 200)).train()
    assert run.of("act", "update", "target") == algorithm_1(200, start=20, update_period=4, target_period_updates=3)


@pytest.mark.parametrize("num_envs", ENVS)
def test_epsilon_falls_on_a_line_from_the_start_of_learning(num_envs: int) -> None:
    run = Run(settings_for(num_envs, exploration__final=0.25)).train()
    seen = {steps: epsilon for _, steps, epsilon in run.of("act")}
    assert seen == {s: pytest.approx(np.interp(s, [20, 50], [1.0, 0.25])) for s in range(0, 64, num_envs)}


@pytest.mark.parametrize("num_envs", ENVS)
def test_the_learning_rate_falls_on_a_line_from_the_start_of_learning(num_envs: int) -> None:
    falling = {"learning_rate": 1e-3, "final_learning_rate": 2e-4, "decay_steps": 30}
    settings = settings_for(num_envs, **{f"optimizer__{name}": value for name, value in falling.items()})
    run = Run(settings).train()
    steps, rates = [steps for _, steps, _ in run.of("act")], [rate for _, rate in run.of("rate")]
    assert rates == pytest.approx(np.interp(steps, [20, 50], [1e-3, 2e-4]))
    assert not Run(settings_for(num_envs)).train().of("rate")


@pytest.mark.parametrize("num_envs", ENVS)
def test_epochs_begin_new_games_and_end_with_an_evaluation(num_envs: int) -> None:
    """Seeds depend on the seed and the step alone; the end of training is evaluated once, be it an epoch's or not."""
    run = Run(settings_for(num_envs, 70, evaluation__epoch_steps=30)).train()
    boundaries = [-(-epoch // num_envs) * num_envs for epoch in (30, 60, 70)]
    assert [event[1] for event in run.of("evaluate")] == boundaries
    assert run.of("reset") == [
        ("reset", steps, env_seeds(3, "environment", steps, num_envs=num_envs).tolist())
        for steps in [0, *boundaries[:2]]
    ]
    assert len({str(event[2]) for event in run.of("reset")}) == 3
    order = [event[0] for event in run.of("check_finite", "evaluate", "save", "reset", "begin")]
    assert order == (3 * ["reset", "begin", "check_finite", "evaluate", "save"])
    assert run.of("save") == [("save", steps, float(steps)) for steps in boundaries]
    exact = Run(settings_for(num_envs, 48, evaluation__epoch_steps=24)).train()
    assert [event[1] for event in exact.of("evaluate")] == [24, 48]
    assert len(exact.of("reset")) == 2  # none after the last step


def test_what_was_evaluated_is_not_evaluated_again() -> None:
    """Going on from the end of training does nothing; with more steps to do it goes on within the epoch."""
    run = Run(settings_for(2, 40, evaluation__epoch_steps=30)).train()
    del run.events[:]
    assert run.train().events == []
    run.plan = make_plan(settings_for(2, 50, evaluation__epoch_steps=30))
    assert run.train().of("evaluate", "reset") == [("evaluate", 50)]


def test_evaluation_figures() -> None:
    """The score, and mean max-Q on the states that were drawn when learning started."""
    run = Run(settings_for(2, 60, evaluation__epoch_steps=10)).train()
    assert sorted(run.evaluations) == [10, 20, 30, 40, 50, 60]
    for steps, figures in run.evaluations.items():
        assert figures["mean_return"] == steps
        assert math.isnan(figures["held_out_max_q"]) == (steps <= 20)
        assert (figures["visited_max_q"], figures["visited_return"], figures["overestimation"]) == (2.5, 0.5, 2.0)
    assert run.state.held_out is not None
    assert run.state.held_out.shape == (11, 4, 84, 84)
    mean = 2.0 * run.state.held_out[:, -1, 0, 0].double().mean()
    assert run.evaluations[30]["held_out_max_q"] == run.evaluations[60]["held_out_max_q"] == pytest.approx(mean)


def test_checkpoints_between_evaluations() -> None:
    """At their own period; where an evaluation is due its own checkpoint is the only one."""
    run = Run(settings_for(4, 80, evaluation__epoch_steps=40, output__checkpoint_period_steps=10)).train()
    assert run.of("save") == [
        ("save", steps, float(steps) if steps in (40, 80) else None) for steps in (12, 20, 32, 40, 52, 60, 72, 80)
    ]


EVENTFUL = {  # of two games, by step
    1: {"reward": [7.0, -0.25]},
    2: {"reward": [-3.0, 0.0], "terminal": [True, False]},
    3: {"reward": [1.0, 2.0], "terminated": [True, False], "terminal": [True, False]},
    4: {"reward": [5.0, 5.0], "truncated": [False, True]},
    5: {"reward": [0.0, 1.0], "terminated": [False, True], "truncated": [False, True], "terminal": [False, True]},
}


def test_replay_contents() -> None:
    """A terminal step need not begin a new game, a truncated game is never a false zero, rewards are clipped."""
    settings = settings_for(2, 20, evaluation__epoch_steps=12)
    run = Run(settings, lambda step: EVENTFUL.get(step, {})).train()
    slots = run.replay.read(0, 7)
    np.testing.assert_array_equal(slots["reward"][:, :5], [[1, -1, 1, 1, 0], [-0.25, 0, 1, 1, 1]])
    np.testing.assert_array_equal(slots["terminal"][0, :6], [0, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(slots["terminal"][1, :6], [0, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(slots["drawable"][0, :7], [1, 1, 1, 1, 1, 1, 0])  # the epoch ends after six steps
    np.testing.assert_array_equal(slots["drawable"][1, :7], [1, 1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(slots["history"], [[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 0, 0, 1]])
    np.testing.assert_array_equal(slots["frames"][:, :, 0, 0], [np.arange(7)] * 2)
    np.testing.assert_array_equal(slots["action"][:, :6], np.add.outer(np.arange(2), np.arange(6)) % 3)
    after_boundary = run.replay.read(7, 8)
    np.testing.assert_array_equal(after_boundary["history"], [[0], [0]])


def test_rows_of_metrics() -> None:
    """One per log period, about that period alone; returns are raw scores of whole games."""
    settings = settings_for(2, 60, output__log_period_steps=10)
    run = Run(settings, lambda step: EVENTFUL.get(step, {})).train()
    assert list(run.rows) == [10, 20, 30, 40, 50, 60]
    first, second, learning = run.rows[10], run.rows[20], run.rows[30]
    # game 0: 7 - 3 + 1 in 3 steps; game 1: -0.25 + 2 + 5 in 4 steps, then 1 in 1 step
    assert first["train/games"] == 3
    assert first["train/episode_return"] == pytest.approx((5.0 + 6.75 + 1.0) / 3)
    assert first["train/episode_steps"] == pytest.approx((3 + 4 + 1) / 3)
    assert second["train/games"] == 0
    for row in (first, second):
        assert math.isnan(row["train/loss"])
        assert math.isnan(row["train/mean_q"])
        assert math.isnan(row["layers/one"])  # nothing to tell of a network that is not initialized
        assert row["train/updates"] == 0
    assert math.isnan(second["train/episode_return"])
    assert learning["train/updates"] == 2  # after 28 steps, before the row's last
    assert learning["train/loss"] == pytest.approx((1 + 2) / 2)
    assert run.rows[40]["train/loss"] == pytest.approx((3 + 4) / 2)
    assert run.rows[50]["train/loss"] == pytest.approx((5 + 6 + 7) / 3)
    assert learning["train/mean_q"] == 0.5
    assert learning["layers/one"] == 1.5
    assert [row["train/epsilon"] for row in run.rows.values()] == pytest.approx([1.0, 1.0, 0.7, 0.4, 0.1, 0.1])
    times = [row["time/train_s"] for row in run.rows.values()]
    assert times == sorted(times)
    for previous, (steps, row) in zip([0.0, *times], run.rows.items(), strict=False):
        assert row["speed/steps_per_s"] == pytest.approx(10 / (row["time/train_s"] - previous)), steps
    assert len({tuple(row) for row in run.rows.values()}) == 1


def test_instruments_look_at_a_minibatch_of_their_own() -> None:
    """Once learning has begun; the learner's random numbers are the same however often it is watched."""
    rare, often = (
        Run(settings_for(2, 60, evaluation__epoch_steps=30, output__log_period_steps=period)).train()
        for period in (60, 10)
    )
    assert sorted(often.measured) == [10, 20, 30, 40, 50, 60]
    assert [steps for steps, measured in often.measured.items() if measured is None] == [10, 20]
    for run in (rare, often):
        measured = run.measured[60]
        assert measured is not None
        assert run.state.held_out is not None
        assert torch.equal(measured.states, run.state.held_out)
        assert len(measured.batch.action) == 5
    assert len({str(often.measured[steps].batch.obs[:, -1, 0, 0]) for steps in (30, 40, 50, 60)}) == 4  # type: ignore[union-attr]
    assert rare.of("act", "update", "target") == often.of("act", "update", "target")
    assert rare.state.replay_generator.bit_generator.state == often.state.replay_generator.bit_generator.state


def prioritized_run(num_envs: int, **overrides: Any) -> Run:
    settings = settings_for(
        num_envs, 64, replay__priority_exponent=0.5, replay__importance_exponent=0.2,
        replay__importance_anneal_steps=30, **overrides,
    )  # fmt: skip
    run = Run(settings)
    run.replay = RecordingPriorities(run)
    return run.train()


@pytest.mark.parametrize("num_envs", ENVS)
def test_priorities_follow_each_update_and_beta_a_line(num_envs: int) -> None:
    """The TD errors of an update are reported before the next minibatch is drawn; instruments report none."""
    run = prioritized_run(num_envs)
    learning, watching = run.of("draw", "update", "report")[:-1], run.of("draw", "update", "report")[-1]
    assert watching == ("draw", 64 if num_envs != 3 else 66, pytest.approx(1.0))
    assert [event[0] for event in learning] == ["draw", "update", "report"] * (len(learning) // 3)
    for number, (draw, report) in enumerate(zip(learning[::3], learning[2::3], strict=True), start=1):
        assert draw[2] == pytest.approx(np.interp(draw[1], [20, 50], [0.2, 1.0]))
        assert report == ("report", *(float(number * i) for i in range(5)))
    assert len({draw[2] for draw in run.of("draw")}) > 3


def test_instruments_leave_priorities_as_they_are() -> None:
    """However often it is watched, what is drawn and reported is the same; rows have priorities from the first on."""
    rare, often = (prioritized_run(2, output__log_period_steps=period) for period in (64, 2))
    assert_same(rare.replay.state_dict(), often.replay.state_dict())
    assert rare.state.replay_generator.bit_generator.state == often.state.replay_generator.bit_generator.state
    assert rare.of("report", "act", "target") == often.of("report", "act", "target")
    measured = often.measured[60]
    assert measured is not None
    assert measured.batch.weight is not None
    assert often.rows[2]["replay/max_priority"] == 1.0
    assert often.rows[64]["replay/max_priority"] == pytest.approx(4.0 * len(often.of("update")), rel=1e-5)
    assert 0.0 < often.rows[64]["replay/evenness"] < 1.0
    assert len({tuple(row) for row in often.rows.values()}) == 1


def test_rewards_before_a_new_epoch_are_in_no_return() -> None:
    """A game that the end of an epoch cut short has no return, and leaves nothing to the next game."""
    script = {2: {"reward": [100.0]}, 15: {"reward": [3.0], "terminated": [True]}}
    run = Run(settings_for(1, 20, evaluation__epoch_steps=10, output__log_period_steps=20), lambda s: script.get(s, {}))
    row = run.train().rows[20]
    assert (row["train/games"], row["train/episode_return"], row["train/episode_steps"]) == (1, 3.0, 5.0)


@pytest.mark.parametrize("num_envs", ENVS)
def test_a_stop_is_saved_and_passed_on(num_envs: int) -> None:
    """Between two steps: the step is complete, and nothing is evaluated."""
    run = Run(settings_for(num_envs))
    run.stop_at = lambda state: state.steps >= 41
    with pytest.raises(Stop):
        run.train()
    stopped_at = -(-41 // num_envs) * num_envs
    assert run.events[-2:] == [("after_step", stopped_at), ("save", stopped_at, None)]
    assert not run.of("evaluate")


def test_a_stop_during_an_evaluation_is_saved_and_evaluated_later() -> None:
    """No outcome is written; going on from the same state begins with the evaluation."""
    run = Run(settings_for(2, evaluation__epoch_steps=30))
    run.stop_in_evaluation_at = 30
    with pytest.raises(Stop):
        run.train()
    assert run.events[-2:] == [("evaluate", 30), ("save", 30, None)]
    assert run.evaluations == {}
    del run.events[:]
    run.stop_in_evaluation_at = -1
    run.train()
    assert [event[0] for event in run.events[:5]] == ["check_finite", "evaluate", "save", "reset", "begin"]
    assert list(run.evaluations) == [30, 60, 64]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(loss: float) -> None:
    """With the row it would have spoiled; nothing is saved over the last good checkpoint."""
    run = Run(settings_for(2, output__log_period_steps=10, output__checkpoint_period_steps=8))
    run.losses = itertools.chain([1.0, 2.0, 3.0, loss], itertools.repeat(1.0))
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step 40"):
        run.train()
    assert list(run.rows) == [10, 20, 30]
    assert run.of("save")[-1] == ("save", 32, None)


def test_a_parameter_that_is_not_finite_ends_the_run() -> None:
    run = Run(settings_for(2, evaluation__epoch_steps=30))

    def check_finite() -> None:
        raise RunError("parameter one is NaN")

    run.check_finite = check_finite  # type: ignore[method-assign]
    with pytest.raises(RunError, match="parameter one"):
        run.train()
    assert not run.of("evaluate", "save")


def test_games_are_restored_by_stepping_the_actions_again() -> None:
    """From the seeds of the epoch's beginning; an emulator that does not repeat itself is noticed."""
    settings = settings_for(3, evaluation__epoch_steps=30)
    run = Run(settings).train()
    saved = run.state.state_dict()
    assert saved["epoch_actions"].shape == (2, 3)  # steps 60..66
    again = Run(settings)
    again.state.load_state_dict(saved)
    assert_same(again.state.state_dict(), saved)  # though it has no observations yet
    arrays = {name: torch.from_numpy(value) for name, value in saved.items() if isinstance(value, np.ndarray)}
    again.state.load_state_dict(saved | arrays)  # as a checkpoint gives it back
    assert_same(again.state.state_dict(), saved)
    again.env_steps = 20
    restore_games(run.plan, again, again.state, lambda _done: None)
    (_, _, seeds), (_, _, seeds_before) = again.of("reset")[0], run.of("reset")[-1]
    assert seeds == seeds_before
    assert again.of("send") == run.of("send")[-2:]
    assert again.state.observed is not None
    assert run.state.observed is not None
    np.testing.assert_array_equal(again.state.observed.obs, run.state.observed.obs)
    with pytest.raises(RunError, match="was it updated since"):
        restore_games(run.plan, again, again.state, lambda _done: None)
