"""Hostile environments: whatever they do wrong is one line, and what the run has learned is saved."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hostile_envs import WRONGS
from hypothesis import example, given
from hypothesis import strategies as st
from small_runs import settings_for, train

from wn_dqn.envs.vector_env import EnvironmentFailure
from wn_dqn.errors import RunError, UsageError
from wn_dqn.runs.checkpoint import list_checkpoints
from wn_dqn.runs.run_directory import RunDirectory

IN_A_STEP = [
    *WRONGS,
    "error in step",
    "SystemExit",
    "four values",
    "ambiguous end",
    *(f"reward {name}" for name in ("NaN", "infinity", "text", "None", "list")),
]
IN_A_RESET = ["error in reset", *(f"reset with {name}" for name in WRONGS)]


@given(
    wrong=st.sampled_from([*IN_A_STEP, *IN_A_RESET, "no info", "error in the constructor"]),
    after=st.integers(1, 12),
    length=st.integers(1, 5),
    tried_before=st.booleans(),
)
@example(wrong="error in step", after=12, length=1, tried_before=False)
@example(wrong="NaN", after=1, length=1, tried_before=False)  # in a last observation, which nobody learns from
def test_whatever_goes_wrong_is_one_line_and_the_run_is_saved(
    wrong: str, after: int, length: int, tried_before: bool
) -> None:
    """In training, in an evaluation, or while it is tried whether the environment repeats itself."""
    environment = {
        "num_envs": 2,
        "args": {"wrong": wrong, "after": after, "length": length},
        "repeats": None if tried_before else True,
    }
    settings = settings_for(
        game="hostile_envs:Hostile",
        environment=environment,
        network={"hidden": [4], "init_batch_size": 4},
        learning={"total_steps": 40, "start_steps": 8, "batch_size": 4},
        evaluation={"epoch_steps": 30, "steps": 12, "num_envs": 2, "held_out_states": 4},
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        with pytest.raises((UsageError, RunError)) as caught:
            train(settings, run.path)
        assert "\n" not in str(caught.value)
        assert "hostile_envs:Hostile" in str(caught.value)
        if not run.exists:
            assert tried_before or wrong in ("error in the constructor", "no info")
            return
        status, checkpoints = run.read_status(), list_checkpoints(run.checkpoints)
        assert isinstance(caught.value, EnvironmentFailure)
        assert status["status"] == "failed"
        assert status["error"] in str(caught.value)
        assert [checkpoints[-1].steps, status["saved_steps"]] == [status["steps"]] * 2


@pytest.mark.parametrize("length", [1, 2])
def test_games_of_one_step_are_games(length: int, tmp_path: Path) -> None:
    settings = settings_for(game="hostile_envs:Hostile", environment={"args": {"length": length}})
    assert train(settings, tmp_path) == 0
