"""Runs with environments from outside: exact resume, honest resume, failures that cost nothing, trust."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import CPU, assert_same, outcome, settings_for, train
from toy_envs import Walk

from wn_dqn.config.games import OutsideGame, find_game
from wn_dqn.config.schema import Settings
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.twin import first_difference
from wn_dqn.envs.vector_env import EnvironmentFailure
from wn_dqn.errors import RunError, UsageError
from wn_dqn.runs.experiment import Experiment
from wn_dqn.runs.policy import load_policy
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.training.state import TrainingState


@pytest.fixture(autouse=True)
def nothing_goes_wrong() -> Iterator[None]:
    Walk.failures.clear()
    yield
    Walk.failures.clear()


def walk_settings(game: str = "toy_envs:Walk", **environment: Any) -> Settings:
    return settings_for(game=game, environment={"num_envs": 4, **environment}, network={"hidden": [8, 8]})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def of(game: str) -> Any:
        folder = tmp_path_factory.mktemp("undisturbed")
        assert train(walk_settings(game), folder) == 0
        return outcome(folder)

    return of


@pytest.mark.parametrize(
    ("game", "stop_at"),
    [
        *itertools.product(["toy_envs:Walk", "toy_envs:Keeping"], [30, 100, 123, 150, 290]),
        ("gymnasium:CartPole-v1", 150),
        ("gymnasium:MinAtar/Seaquest-v0", 150),
    ],
)
def test_a_stopped_run_ends_in_the_same_bits(
    game: str, stop_at: int, undisturbed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_once(patch, stop_at)
        train(walk_settings(game), tmp_path)
    assert RunDirectory(tmp_path).read_status()["status"] == "paused"
    assert train(walk_settings(game), tmp_path) == 0
    assert_same(outcome(tmp_path), undisturbed(game))


def stop_once(patch: pytest.MonkeyPatch, steps: int) -> None:
    def after_step(experiment: Experiment, state: TrainingState) -> None:
        original(experiment, state)
        if state.steps >= steps:
            experiment.stop.request("the test", 0)

    original = Experiment.after_step
    patch.setattr(Experiment, "after_step", after_step)


@pytest.mark.parametrize("calls", [301, 350, 425, 480, 501, 700, 780])
def test_a_run_whose_environment_fails_is_saved_and_goes_on_exactly(
    calls: int, undisturbed: Any, tmp_path: Path
) -> None:
    """Whether it fails in training or in an evaluation. The first calls are those of the twins."""
    Walk.failures[:] = [str(calls), "error"]
    with pytest.raises(EnvironmentFailure, match=r"raised ValueError in step at toy_envs\.py:\d+: the wind") as caught:
        train(walk_settings(), tmp_path)
    status = RunDirectory(tmp_path).read_status()
    assert status["status"] == "failed"
    assert str(caught.value).endswith(
        f"; the run is saved at step {status['steps']:,}; the same command goes on from there"
    )
    assert "\n" not in str(caught.value)
    assert train(walk_settings(), tmp_path) == 0
    assert_same(outcome(tmp_path), undisturbed("toy_envs:Walk"))


@pytest.mark.thorough
def test_a_run_whose_worker_process_dies_goes_on_exactly(tmp_path: Path) -> None:
    """Of two runs of the same settings one loses a worker; the next start ends it in the bits of the other."""
    file = tmp_path / "die"
    settings = settings_for(
        game="hostile_envs:Hostile",
        environment={
            "num_envs": 1,
            "vectorization": "async",
            "repeats": True,
            "args": {"wrong": f"exit once {file}", "after": 70},
        },
        evaluation={"num_envs": 1},
        network={"hidden": [4]},
    )
    assert train(settings, tmp_path / "undisturbed") == 0
    file.touch()
    with pytest.raises(EnvironmentFailure, match="a worker process of hostile_envs:Hostile has died; the run is saved"):
        train(settings, tmp_path / "disturbed")
    assert not file.exists()
    assert train(settings, tmp_path / "disturbed") == 0
    assert_same(outcome(tmp_path / "disturbed"), outcome(tmp_path / "undisturbed"))


def test_an_environment_that_does_not_repeat_itself_is_known_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = walk_settings("toy_envs:Forgetful")
    with monkeypatch.context() as patch:
        stop_once(patch, 150)
        train(settings, tmp_path)
    assert "toy_envs:Forgetful does not repeat itself" in "".join(capsys.readouterr())
    assert RunDirectory(tmp_path).read_settings().environment.repeats is False
    assert train(settings, tmp_path) == 0
    printed = "".join(capsys.readouterr())
    assert "new games begin" in printed
    assert "differs" not in printed, "it was tried again"
    assert RunDirectory(tmp_path).read_status()["steps"] == 320


def test_the_verdict_is_in_the_config(tmp_path: Path) -> None:
    train(walk_settings(), tmp_path)
    assert RunDirectory(tmp_path).read_settings().environment.repeats is True


@pytest.mark.parametrize(
    ("name", "repeats"),
    [
        ("toy_envs:Walk", True),
        ("toy_envs:Keeping", True),
        ("toy_envs:Bits", True),
        ("toy_envs:walks", True),
        ("gymnasium:CartPole-v1", True),
        ("gymnasium:MinAtar/Seaquest-v1", True),
        ("toy_envs:Forgetful", False),
    ],
)
def test_twins_tell_whether_an_environment_repeats_itself(name: str, repeats: bool) -> None:
    game = find_game(name)
    assert isinstance(game, OutsideGame)
    assert (first_difference(game, EnvRules()) is None) == repeats


def test_a_vector_environment_that_keeps_something_does_not_repeat_itself() -> None:
    """It is not made anew, as single environments are."""
    game = find_game("toy_envs:keeping_walks")
    assert isinstance(game, OutsideGame)
    assert first_difference(game, EnvRules()) is not None


def test_a_run_of_somebody_else_runs_no_code(tmp_path: Path) -> None:
    train(walk_settings(), tmp_path)
    with pytest.raises(UsageError, match="add --env toy_envs:Walk"):
        load_policy(tmp_path, "best", CPU)
    load_policy(tmp_path, "best", CPU, named=["toy_envs:Walk"])
    load_policy(tmp_path, "best", CPU, trust=True)


def test_a_run_that_cannot_find_its_games_again_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_once(patch, 150)
        train(walk_settings(), tmp_path)
    original = Walk._obs
    monkeypatch.setattr(Walk, "_obs", lambda self: 2 * original(self))
    with pytest.raises(RunError, match=r"--set environment\.repeats=false --accept-changes"):
        train(walk_settings(), tmp_path)


def test_the_status_of_a_failed_run_tells_why(tmp_path: Path) -> None:
    Walk.failures[:] = ["500", "error"]
    with pytest.raises(EnvironmentFailure):
        train(walk_settings(), tmp_path)
    assert "the wind is too strong" in json.loads((tmp_path / "status.json").read_text())["error"]
