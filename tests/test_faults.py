"""What a run survives: a kill before any durable write, a disk that refuses, an emulator that hangs, a loss of NaN."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import assert_same, outcome, settings_for, train

from wn_dqn import checkpoint, launch
from wn_dqn.config import dump_yaml
from wn_dqn.errors import RunError, UsageError
from wn_dqn.run_directory import RunDirectory

DRIVER = Path(__file__).with_name("fault_driver.py")


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 6, 12])
def test_a_run_killed_before_any_durable_write_ends_in_the_same_bits(first: int, tmp_path: Path) -> None:
    """SIGKILL before an fsync, a rename or a removal: the same command goes on and nothing is lost or doubled."""
    config = tmp_path / "config.yaml"
    config.write_text(dump_yaml(settings_for().model_dump()))
    points = [str(point) for point in range(first, 90, 18)]
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(config), str(tmp_path), *points],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "undisturbed.count").read_text()) > 90  # there is a call at every point
    expected = outcome(tmp_path / "undisturbed")
    for point in points:
        assert_same(outcome(tmp_path / f"killed-at-{point}"), expected)


def refuse_writes(monkeypatch: pytest.MonkeyPatch, while_steps: range) -> None:
    """The disk is full while the run is at these steps."""

    def save(experiment: launch.Experiment, state: Any, score: float | None) -> None:
        nonlocal full
        full = state.steps in while_steps
        original_save(experiment, state, score)

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original_fsync(descriptor)

    full = False
    original_save, original_fsync = launch.Experiment.save, os.fsync
    monkeypatch.setattr(launch.Experiment, "save", save)
    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old checkpoint stays, the failure is told, and the next save succeeds: the outcome is the same."""
    assert train(settings_for(), tmp_path / "undisturbed") == 0
    with monkeypatch.context() as patch:
        refuse_writes(patch, range(150, 241))
        assert train(settings_for(), tmp_path / "run") == 0
    told = capsys.readouterr().err
    assert "checkpoint at step 200 failed" in told
    assert "No space left on device" in told
    assert RunDirectory(tmp_path / "run").read_status()["status"] == "finished"
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "undisturbed"))


def test_a_failed_last_save_is_an_error_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command does not claim success, and the same command finishes the run once there is room."""
    assert train(settings_for(), tmp_path / "undisturbed") == 0
    with monkeypatch.context() as patch:
        refuse_writes(patch, range(300, 1000))
        with pytest.raises(RunError, match=r"the last checkpoint could not be saved: .*No space left"):
            train(settings_for(), tmp_path / "run")
    assert train(settings_for(), tmp_path / "run") == 0
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "undisturbed"))


def test_a_loss_that_is_not_finite_stops_the_run_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A learning rate that explodes: one clear error, and no checkpoint holds a NaN."""
    folder = tmp_path / "run"
    settings = settings_for(optimizer={"learning_rate": 1e38}, output={"checkpoint_period_steps": 24})
    with pytest.raises(RunError, match=r"smaller optimizer\.learning_rate"):
        train(settings, folder)
    assert RunDirectory(folder).read_status()["status"] == "failed"
    last = RunDirectory(folder).find_checkpoint("last")
    online = checkpoint.load_checkpoint(last.path)["agent"]["online"]
    assert all(parameter.isfinite().all() for parameter in online.values())


def test_a_directory_in_use_is_refused_by_name(tmp_path: Path) -> None:
    """The second process learns who holds the directory, and touches nothing."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    with directory.locked(), pytest.raises(UsageError, match=rf"in use by process {os.getpid()} on "):
        train(settings_for(), tmp_path / "run")
    assert not directory.exists


HANG = """
import os, threading
import numpy as np
from wn_dqn.atari import vector_env

vector_env.HANG_TIMEOUT_S = 0.5
def told():
    print("told", flush=True)
    os._exit(7)
env = vector_env.AtariEnv("pong", 2, on_hang=told)
env.reset(np.arange(2))
env._env.send(np.array([99, 99]))  # past the check that keeps invalid actions from the emulator
env.receive()
"""


@pytest.mark.slow
def test_an_emulator_that_hangs_is_noticed() -> None:
    """The watchdog speaks up although the main thread waits in C++ for ever."""
    done = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("told\n", 7)


def test_status_tells_other_programs_how_the_run_is(tmp_path: Path) -> None:
    """status.json of a finished run."""
    assert train(settings_for(), tmp_path / "run") == 0
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["steps"]) == ("finished", 320)
