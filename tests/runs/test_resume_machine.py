"""Train, stop, kill, resume and extend in any order: the run ends in the bits of one that was left alone.

Kills are simulated in this process, by an exception that nothing catches, so that many can be tried; real ones, also in
the middle of a write, are in test_faults.py.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from small_runs import assert_same, outcome, settings_for, train

from wn_dqn.config.schema import Settings
from wn_dqn.runs.experiment import Experiment
from wn_dqn.runs.run_directory import RunDirectory

EPOCH_STEPS = 80
pytestmark = pytest.mark.usefixtures("small_network")


def run_of(epochs: int) -> Settings:
    """Whole epochs: a run that ends within one is evaluated there, and one that goes on is not."""
    return settings_for(
        learning={"total_steps": epochs * EPOCH_STEPS, "start_steps": 40},
        evaluation={"epoch_steps": EPOCH_STEPS, "steps": 30},
        replay={"capacity": 80},
        output={"log_period_steps": 16, "checkpoint_period_steps": 48},
    )


@functools.cache
def left_alone(epochs: int) -> dict[str, Any]:
    """The outcome of a run that nobody disturbed."""
    with tempfile.TemporaryDirectory() as folder:
        assert train(run_of(epochs), Path(folder) / "run") == 0
        return outcome(Path(folder) / "run")


class Killed(BaseException):
    """The process is gone."""


class AnyOrder(RuleBasedStateMachine):
    """One run directory, and what may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.run = RunDirectory(self.folder / "run")
        self.epochs = 1

    def teardown(self) -> None:
        self.finish()
        shutil.rmtree(self.folder)

    @rule(steps=st.integers(1, 20))
    def stop(self, steps: int) -> None:
        """Begin or go on, and be asked to stop after `steps` steps of all games."""

        def ask(experiment: Experiment) -> None:
            experiment.stop.request("the test", 0)

        with pytest.MonkeyPatch.context() as patch:
            after_calls(patch, "after_step", steps, ask)
            assert train(run_of(self.epochs), self.run.path) == 0
        assert self.run.read_status()["status"] in ("paused", "finished")

    @rule(where=st.sampled_from(["after_step", "save", "evaluate", "write_status"]), calls=st.integers(1, 20))
    def kill(self, where: str, calls: int) -> None:
        """Begin or go on, and die at a call: of a step, a checkpoint, an evaluation, or just after a checkpoint."""

        def die(_experiment: Experiment) -> None:
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            after_calls(patch, where, calls if where == "after_step" else 1 + calls % 3, die)
            with contextlib.suppress(Killed):
                assert train(run_of(self.epochs), self.run.path) == 0

    @precondition(lambda self: self.epochs < 3)
    @rule()
    def extend(self) -> None:
        """Raise --steps, of a finished run or of one that is on its way."""
        self.epochs += 1

    @rule()
    def finish(self) -> None:
        """The same command to the end."""
        assert train(run_of(self.epochs), self.run.path) == 0
        assert self.run.read_status()["status"] == "finished"
        assert_same(outcome(self.run.path), left_alone(self.epochs))


def after_calls(patch: pytest.MonkeyPatch, name: str, calls: int, action: Any) -> None:
    """Do `action` instead of the call number `calls` of a method of the experiment; for a step, after it."""
    original = getattr(Experiment, name)
    left = calls

    def method(experiment: Experiment, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and name != "after_step":
            action(experiment)
        result = original(experiment, *args, **kwargs)
        if left == 0 and name == "after_step":
            action(experiment)
        return result

    patch.setattr(Experiment, name, method)


TestAnyOrder = AnyOrder.TestCase
# Few and not shrunk: every step of it is a training.
TestAnyOrder.settings = settings(
    max_examples=settings().max_examples // 5,
    stateful_step_count=5,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
