"""Exact resume: on the CPU a run that was stopped and continued ends in the same bits as one that never stopped."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import (
    CPU,
    NATURE,
    OBS_SHAPE,
    RAINBOW,
    SMALL_NETWORK,
    Widths,
    assert_same,
    network_of,
    outcome,
    settings_for,
    train,
)

from wn_dqn.analysis.model_card import card_text
from wn_dqn.analysis.read_runs import read_run
from wn_dqn.config.files import dump_yaml, make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.errors import STOPPED, RunError, UsageError
from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.interop import import_run
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.networks import NatureNetwork
from wn_dqn.runs import launch
from wn_dqn.runs.checkpoint import list_checkpoints, load_checkpoint, prune_checkpoints, save_checkpoint
from wn_dqn.runs.experiment import Experiment
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.state import TrainingState

# What is saved and restored does not depend on the layers' sizes; some cases have the real network all the same.
pytestmark = pytest.mark.usefixtures("small_network")


def stop_when(monkeypatch: pytest.MonkeyPatch, condition: Callable[[TrainingState], bool]) -> None:
    """Ask the run to stop at the first step after which `condition` holds."""

    def after_step(experiment: Experiment, state: TrainingState) -> None:
        original(experiment, state)
        if condition(state):
            experiment.stop.request("the test", 0)

    original = Experiment.after_step
    monkeypatch.setattr(Experiment, "after_step", after_step)


STOPS = {
    "before learning starts": lambda state: state.steps >= 40,
    "just before the initialization from data": lambda state: state.steps >= 64,
    "just after the initialization from data": lambda state: state.initialized,
    "right after a target copy": lambda state: state.updates >= 10,
    "at an epoch's end": lambda state: state.steps >= 120,
    "at a ring wrap of the replay": lambda state: state.steps >= 160 + 4 * state.num_envs,
    "in mid-game, in the last epoch": lambda state: state.steps >= 248,
    "at the last step": lambda state: state.steps >= 320,
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Settings], dict[str, Any]]:
    """The outcome of a run that never stopped; each setting is run once."""

    @functools.cache
    def run(key: str, widths: Widths) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("uninterrupted") / "run"
        with network_of(widths):
            assert train(make_settings(json.loads(key)), folder) == 0
        return outcome(folder)

    return lambda settings, widths=SMALL_NETWORK: run(settings.model_dump_json(), widths)


def assert_stops_and_resumes(
    settings: Settings, where: str, expected: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters, optimizer, replay, generators, counters, tables and curves are equal."""
    with monkeypatch.context() as patch:
        stop_when(patch, STOPS[where])
        assert train(settings, folder) == 0
        assert RunDirectory(folder).read_status()["status"] == "paused"
    assert train(settings, folder) == 0
    assert RunDirectory(folder).read_status()["status"] == "finished"
    assert_same(outcome(folder), expected)


# What a run saves of these is what it saves of wn, standard and bn.
LIKE_OTHERS = ("wn-projected", "ws", "ln", "wn-all")
IN_MID_GAME = "in mid-game, in the last epoch"


@pytest.mark.parametrize(
    ("param", "num_envs", "where"),
    [
        *itertools.product(("wn",), (1, 8), STOPS),
        *((param, 8, IN_MID_GAME) for param in PARAMETERIZATIONS if param not in ("wn", *LIKE_OTHERS)),
        *(
            pytest.param("standard", num_envs, where, marks=pytest.mark.thorough)
            for num_envs, where in itertools.product((1, 8), STOPS)
            if (num_envs, where) != (8, IN_MID_GAME)
        ),
    ],
)
def test_a_stopped_run_ends_in_the_same_bits(
    param: str, num_envs: int, where: str, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(param=param, environment={"num_envs": num_envs})
    assert_stops_and_resumes(settings, where, uninterrupted(settings), tmp_path / "run", monkeypatch)


@pytest.mark.parametrize(("param", "num_envs"), [("wn", 8), pytest.param("standard", 1, marks=pytest.mark.thorough)])
@pytest.mark.usefixtures("nature_network")
def test_a_stopped_run_with_the_real_network_ends_in_the_same_bits(
    param: str, num_envs: int, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(param=param, environment={"num_envs": num_envs})
    assert_stops_and_resumes(settings, IN_MID_GAME, uninterrupted(settings, NATURE), tmp_path / "run", monkeypatch)


PRIORITIZED = {"priority_exponent": 0.6, "importance_anneal_steps": 300}


@pytest.mark.parametrize(
    "difference",
    [
        {"network": {"dueling": True}},
        RAINBOW,
    ],
    ids=str,
)
def test_other_agents_resume_exactly(
    difference: dict[str, Any], uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(**difference)
    with monkeypatch.context() as patch:
        stop_when(patch, STOPS[IN_MID_GAME])
        assert train(settings, tmp_path / "run") == 0
    assert train(settings, tmp_path / "run") == 0
    assert_same(outcome(tmp_path / "run"), uninterrupted(settings))


def test_an_imported_network_goes_on_with_priorities(tmp_path: Path) -> None:
    """It comes without a replay; the run that goes on from it saves its priorities with its own."""
    settings = settings_for(replay=PRIORITIZED, learning={"total_steps": 120})
    import_run.import_run(settings, tmp_path, NatureNetwork(layer_kit("standard"), OBS_SHAPE, 3), CPU)
    assert train(settings, tmp_path) == 0
    values = outcome_state(tmp_path)["priorities"]["values"]
    assert values.shape == (8, 160 // 8 + 4)
    assert (values > 0).sum() == 120
    assert len(values.unique()) > 30, "those that were learned from differ"


def test_a_run_stopped_during_evaluation_evaluates_again(
    uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation that was cut short is played whole, once."""
    settings = settings_for()

    def interrupted(experiment: Experiment, _steps: int) -> Evaluation:
        experiment.stop.request("the test", 0)
        return original(experiment, _steps)

    original = Experiment.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "evaluate", interrupted)
        assert train(settings, tmp_path / "run") == 0
        assert RunDirectory(tmp_path / "run").read_status()["steps"] == 120
    assert train(settings, tmp_path / "run") == 0
    assert_same(outcome(tmp_path / "run"), uninterrupted(settings))


def test_a_run_stopped_after_every_few_steps_ends_in_the_same_bits(
    uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is stopped."""
    settings = settings_for()
    stops = 0
    while RunDirectory(tmp_path / "run").read_status().get("status") != "finished":
        begin = RunDirectory(tmp_path / "run").read_status().get("steps", 0)
        with monkeypatch.context() as patch:
            stop_when(patch, lambda state, begin=begin: state.steps >= begin + 32)
            assert train(settings, tmp_path / "run") == 0
        stops += 1
    assert stops == 320 // 32 + 1  # the one at the last step, before the last evaluation, included
    assert_same(outcome(tmp_path / "run"), uninterrupted(settings))


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [2, *(pytest.param(number, marks=pytest.mark.thorough) for number in (1, 8))])
def test_a_real_game_with_sticky_actions_resumes_exactly(
    num_envs: int, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulators, which save no state, are brought back by their seeds and the logged actions."""
    settings = settings_for(
        game="Breakout",
        environment={"num_envs": num_envs, "repeat_action_probability": 0.25},
        evaluation={"epoch_steps": 240, "num_envs": 1},  # an emulator takes a tenth of a second to begin
    )
    with monkeypatch.context() as patch:
        stop_when(patch, lambda state: state.steps >= 200)
        assert train(settings, tmp_path / "run") == 0
    assert train(settings, tmp_path / "run") == 0
    assert_same(outcome(tmp_path / "run"), uninterrupted(settings))


@pytest.mark.parametrize("replay", [{}, PRIORITIZED], ids=str)
def test_a_finished_run_is_extended_exactly(replay: dict[str, Any], uninterrupted: Any, tmp_path: Path) -> None:
    """Raising the steps goes on as if the run had never ended at an epoch's end."""
    settings = settings_for(replay=replay)
    assert train(settings_for(replay=replay, learning={"total_steps": 240}), tmp_path / "run") == 0
    assert train(settings, tmp_path / "run") == 0
    assert_same(outcome(tmp_path / "run"), uninterrupted(settings))


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose two newest checkpoints are both resumable; copy it, do not touch it."""
    folder = tmp_path_factory.mktemp("two") / "run"
    assert train(settings_for(learning={"total_steps": 240}), folder) == 0
    return folder


def only_in_newest(folder: Path) -> list[Path]:
    """The files of the newest checkpoint, and those of the replay that no older checkpoint names."""
    older, newest = sorted((folder / "checkpoints").glob("step-*"))[-2:]
    names = [{file["name"] for file in load_checkpoint(path)["replay"]["segments"]} for path in (older, newest)]
    return sorted(newest.iterdir()) + sorted(folder / "replay" / name for name in names[1] - names[0])


def link_if_immutable(source: str, target: str) -> None:
    """Checkpoints and segments are never written again."""
    (os.link if {"checkpoints", "replay"} & set(Path(source).parts) else shutil.copy)(source, target)


def flip(path: Path) -> None:
    """One bit in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 4]))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), r"bytes instead of|is damaged"),
    "flipped": (flip, r"is damaged"),
    "emptied": (lambda path: os.truncate(path, 0), r"has 0 bytes instead of|is damaged"),
    "deleted": (lambda path: path.unlink(), r"cannot be read: No such file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_the_checkpoint_is_skipped_for_the_one_before(
    damage: str, two_checkpoints: Path, uninterrupted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file that the newest checkpoint alone needs: the run goes on from the older one, and says why."""
    do, reason = DAMAGES[damage]
    settings = settings_for(learning={"total_steps": 248})
    expected = only_in_newest(two_checkpoints)
    assert {path.name for path in expected} >= {"manifest.json", "state.json", "tensors.safetensors"}
    assert any(path.name.startswith("tail-") for path in expected)
    assert any(path.name.startswith("segment-") for path in expected)
    for number, original in enumerate(expected):
        folder = tmp_path / str(number)
        shutil.copytree(two_checkpoints, folder, copy_function=link_if_immutable)
        path = folder / original.relative_to(two_checkpoints)
        path.unlink()
        shutil.copy(original, path)
        do(path)
        capsys.readouterr()
        assert train(settings, folder) == 0
        printed = capsys.readouterr().err
        (skipped,) = [line for line in printed.splitlines() if line.startswith("skipping a checkpoint: ")]
        assert path.name in skipped
        assert re.search(reason, skipped), skipped
        assert "resumed from step-0000000200: step 200, 40 steps lost" in printed
        assert_same(outcome(folder), uninterrupted(settings))
        shutil.rmtree(folder)


def test_no_whole_checkpoint_is_an_error_and_nothing_is_overwritten(tmp_path: Path) -> None:
    """Starting anew would throw away what the user may still want to rescue."""
    folder, settings = tmp_path / "run", settings_for()
    assert train(settings_for(learning={"total_steps": 120}), folder) == 0
    for manifest in (folder / "checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    before = (folder / "metrics.csv").read_bytes()
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read"):
        train(settings, folder)
    assert (folder / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("replay", [{}, PRIORITIZED], ids=str)
def test_without_the_replay_learning_waits_until_it_has_filled_again(
    replay: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`save_replay: false` resumes, inexactly, and says so; no update is made up for."""
    settings = settings_for(output={"save_replay": False}, replay=replay)
    with monkeypatch.context() as patch:
        stop_when(patch, lambda state: state.steps >= 200)
        assert train(settings, tmp_path / "run") == 0
    assert train(settings, tmp_path / "run") == 0
    assert "the replay was not saved" in capsys.readouterr().err
    updates = outcome_state(tmp_path / "run")["training"]["updates"]
    # One per 4 transitions, but for the warm-up of 64 and its repetition; the last step's are made by no one.
    assert updates == (200 - 8 - 64) // 4 + (320 - 8 - 200 - 64) // 4


@pytest.mark.parametrize("threads", [1, 2])
def test_another_number_of_threads_is_told(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sums are added in another order; whoever compares bits should know. One line, and none if nothing changed."""
    settings, folder = settings_for(), tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_when(patch, lambda state: state.steps >= 40)
        assert train(settings, folder) == 0
    assert outcome_state(folder)["arithmetic"]["torch_threads"] == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # other tests have one
    capsys.readouterr()
    assert train(settings_for(learning={"total_steps": 64}), folder) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if "arithmetic" in line]
    one_line = "other arithmetic than before (torch_threads: 1 -> 2): the last bits may differ"
    assert printed == ([one_line] if threads == 2 else [])
    entries = json.loads((folder / "provenance.json").read_bytes())
    assert [entry["machine"]["torch_threads"] for entry in entries] == [1, threads]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.slow
@pytest.mark.usefixtures("nature_network")  # as the other process has it
def test_a_second_signal_exits_at_once(tmp_path: Path) -> None:
    """While the first is still waiting for the step to be complete: the process dies of it, nothing half-written."""
    config = tmp_path / "config.yaml"
    config.write_text(dump_yaml(settings_for(learning={"total_steps": 1_000_000}).model_dump()))
    # The step during which the first signal comes never ends.
    program = f"""
import signal, sys
from pathlib import Path
from wn_dqn.cli.main import main
from wn_dqn.runs.experiment import Experiment

def after_step(experiment, state):
    original(experiment, state)
    if state.steps == 160:
        signal.raise_signal(signal.SIGINT)
        print("a step that never ends", flush=True)
        while True:
            signal.pause()

original = Experiment.after_step
Experiment.after_step = after_step
sys.argv = ["wn-dqn", "train", "--config", {str(config)!r}, "--run-dir", {str(tmp_path / "run")!r}]
main()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a step that never ends\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    assert outcome_state(tmp_path / "run")["training"]["steps"] == 120  # the last good one
    settings = settings_for(learning={"total_steps": 168})
    assert train(settings, tmp_path / "run") == 0
    assert train(settings, tmp_path / "undisturbed") == 0
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "undisturbed"))


def test_a_time_budget_saves_and_exits_with_3(uninterrupted: Any, tmp_path: Path) -> None:
    """`--stop-after`: the status says paused and why, and the same command goes on."""
    settings, folder = settings_for(), tmp_path / "run"
    assert launch.train_run(settings, folder, CPU, ProgressReporter(), stop=StopRequest(0.0)) == STOPPED
    status = RunDirectory(folder).read_status()
    assert (status["status"], status["reason"], status["steps"]) == ("paused", "time budget used up", 8)
    assert outcome_state(folder)["training"]["steps"] == 8
    assert train(settings, folder) == 0
    assert_same(outcome(folder), uninterrupted(settings))


def outcome_state(folder: Path) -> dict[str, Any]:
    """The newest checkpoint."""
    return load_checkpoint(RunDirectory(folder).find_checkpoint("last").path)


def test_other_settings_are_refused_and_listed(tmp_path: Path) -> None:
    """A run directory holds one experiment."""
    assert train(settings_for(learning={"total_steps": 120}), tmp_path / "run") == 0
    with pytest.raises(UsageError, match=r"learning.batch_size: 8 -> 4; .*optimizer.beta1: 0.5 -> 0.9"):
        train(settings_for(learning={"batch_size": 4}, optimizer={"beta1": 0.9}), tmp_path / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_with_its_status(number: signal.Signals, tmp_path: Path) -> None:
    """The process ends with status 3, its checkpoint loads, and the status says paused."""
    config = tmp_path / "config.yaml"
    config.write_text(dump_yaml(settings_for(learning={"total_steps": 1_000_000}).model_dump()))
    command = [sys.executable, "-m", "wn_dqn", "train", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 120:"):  # the first evaluation is over
                process.send_signal(number)
        assert process.wait(60) == STOPPED
    status = RunDirectory(tmp_path / "run").read_status()
    assert (status["status"], status["reason"]) == ("paused", number.name)
    assert outcome_state(tmp_path / "run")["training"]["steps"] == status["steps"]


class TestExtendedInTheMiddleOfAnEpoch:
    """Epochs of 120 steps; a run of 280 that is extended to 480, and one of 480 that never stopped."""

    @pytest.mark.survives(
        "a run extended in the middle of an epoch",
        "the test there is left out of every statistic, and one line says so; all else is the same",
    )
    def test_all_statistics_are_those_of_a_run_that_never_stopped(self, tmp_path: Path) -> None:
        for name, ends in (("extended", (280, 480)), ("undisturbed", (480,))):
            for total_steps in ends:
                assert train(settings_for(learning={"total_steps": total_steps}), tmp_path / name) == 0
        runs = tmp_path / "extended", tmp_path / "undisturbed"
        extended, undisturbed = map(read_run, runs)
        assert extended.evaluations["steps"].tolist() == [120, 240, 360, 480]
        for name, column in undisturbed.evaluations.items():
            if name != "train_s":
                np.testing.assert_array_equal(extended.evaluations[name], column)
        (problem,) = extended.problems
        assert problem.endswith("tests in the middle of an epoch, where the run ended once, are left out: step 280")
        assert_same(*(load_checkpoint(RunDirectory(run).find_checkpoint("last").path)["agent"] for run in runs))
        best = [RunDirectory(run).find_checkpoint("best") for run in runs]
        assert best[0].steps == best[1].steps
        cards = [card_text(read_run(run), picture=False) for run in runs]
        assert cards[0] == cards[1]

    def test_the_end_of_a_run_counts_as_long_as_it_is_the_end(self, tmp_path: Path) -> None:
        assert train(settings_for(learning={"total_steps": 280}), tmp_path / "run") == 0
        assert read_run(tmp_path / "run").evaluations["steps"].tolist() == [120, 240, 280]

    def test_the_best_of_the_epochs_is_kept_beside_a_better_end(self, tmp_path: Path) -> None:
        """The end may become the middle of an epoch."""
        settings = settings_for(learning={"total_steps": 280})
        for steps, score in ((120, 5.0), (240, 1.0), (264, 1.0), (280, 9.0)):
            save_checkpoint(tmp_path, steps, {}, score)
        prune_checkpoints(tmp_path, 1, settings.counts_test_at, settings.ends_epoch)
        assert [info.steps for info in list_checkpoints(tmp_path)] == [120, 280]


@pytest.mark.parametrize(("before", "after"), [("zstd", "none"), ("none", "zstd")])
def test_compression_may_change(before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in mid-game, and resumed with the other kind of memory: the bits of a run that never stopped."""
    kinds = {kind: settings_for(replay={"compression": kind}) for kind in (before, after)}
    assert train(kinds[after], tmp_path / "whole") == 0
    with monkeypatch.context() as context:
        stop_when(context, STOPS["in mid-game, in the last epoch"])
        train(kinds[before], tmp_path / "run")
    assert train(kinds[after], tmp_path / "run") == 0
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "whole"))
