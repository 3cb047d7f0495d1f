"""What a run survives: a kill at any kind of moment, a full disk, an emulator that hangs, a loss of NaN."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_driver import RESUME_MOMENTS
from small_runs import assert_same, outcome, settings_for, train

from wn_dqn.config.files import dump_yaml
from wn_dqn.errors import RunError, UsageError
from wn_dqn.runs import checkpoint
from wn_dqn.runs.experiment import Experiment
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("small_network")
DRIVER = Path(__file__).parents[1] / "fault_driver.py"


_WRITTEN = ("checkpoint", "segment", "small file")
MOMENTS = {
    *(f"in a write ({what})" for what in (*_WRITTEN, "table")),
    *(f"{when} fsync ({what})" for when in ("before", "after") for what in (*_WRITTEN, "table")),
    *(f"{when} replace ({what})" for when in ("before", "after") for what in _WRITTEN),
    *(f"{when} rename (checkpoint)" for when in ("before", "after")),
    *(f"{when} unlink ({what} prune)" for when in ("before", "after") for what in ("checkpoint", "replay")),
    *(f"{when} rmdir (checkpoint prune)" for when in ("before", "after")),
    "in an evaluation",
    *RESUME_MOMENTS,
}


@pytest.mark.survives("a kill at any kind of moment", "the same command goes on, and ends in the same bits")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the driver forks")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "moments"),
    [
        ("small", sorted(MOMENTS)[0::2]),
        ("small", sorted(MOMENTS)[1::2]),
        ("nature", ["in a write (checkpoint)", "in a write (segment)"]),
    ],
    ids=["small network 1", "small network 2", "real network"],
)
def test_a_run_killed_at_any_kind_of_moment_ends_in_the_same_bits(
    network: str, moments: list[str], tmp_path: Path
) -> None:
    """SIGKILL in the middle of a write, before and after each kind of fsync, rename and removal, in an evaluation."""
    config = tmp_path / "config.yaml"
    settings = settings_for(
        learning={"total_steps": 120, "start_steps": 32},
        replay={"capacity": 80},
        evaluation={"epoch_steps": 80, "steps": 30},
        output={"log_period_steps": 24, "checkpoint_period_steps": 40, "keep_checkpoints": 1},
    )
    config.write_text(dump_yaml(settings.model_dump()))
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(config), str(tmp_path), network, *moments],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {*json.loads(done.stdout), *RESUME_MOMENTS} == MOMENTS
    expected = outcome(tmp_path / "undisturbed")
    for moment in moments:
        assert_same(outcome(tmp_path / moment), expected)


def refuse_writes(monkeypatch: pytest.MonkeyPatch, while_steps: range) -> None:
    """The disk is full while the run is at these steps."""

    def save(experiment: Experiment, state: Any, score: float | None) -> None:
        nonlocal full
        full = state.steps in while_steps
        original_save(experiment, state, score)

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original_fsync(descriptor)

    full = False
    original_save, original_fsync = Experiment.save, os.fsync
    monkeypatch.setattr(Experiment, "save", save)
    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old checkpoint stays, the failure is reported, and the next save succeeds: the outcome is the same."""
    assert train(settings_for(), tmp_path / "undisturbed") == 0
    with monkeypatch.context() as patch:
        refuse_writes(patch, range(150, 241))
        assert train(settings_for(), tmp_path / "run") == 0
    printed = capsys.readouterr().err
    assert "checkpoint at step 200 failed" in printed
    assert "No space left on device" in printed
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for the small run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={32 * 2**20}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Take every byte that is left."""
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    with contextlib.suppress(OSError), (disk / "ballast").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1))


@pytest.mark.survives("a full disk", "training goes on, rows wait in memory, and nothing is lost")
def test_a_disk_that_is_really_full_loses_nothing(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, an evaluation and a checkpoint are refused; the status says so, and all are written when there is room."""

    def after_step(experiment: Experiment, state: TrainingState) -> None:
        if state.steps == 104:  # a checkpoint at step 100 has just been written; rows follow at 112, 120, ...
            fill(small_disk)
        if state.steps == 200:  # before the checkpoint of this step, after the evaluation at step 120
            seen.append(experiment.directory.read_status())
        if state.steps == 216:
            (small_disk / "ballast").unlink()
        original(experiment, state)

    seen: list[dict[str, Any]] = []
    original = Experiment.after_step
    settings = settings_for(output={"log_period_steps": 8})
    assert train(settings, tmp_path / "undisturbed") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "after_step", after_step)
        assert train(settings, small_disk / "run") == 0
    (status,) = seen
    assert (status["status"], status["steps"] >= 120) == ("degraded", True)
    assert "No space left" in status["error"]
    printed = capsys.readouterr().err
    for message in (
        "rows of the tables wait",
        "checkpoint at step 120 failed",
        "checkpoint at step 200 failed",
        "the disk accepts checkpoints again",
    ):
        assert message in printed
    assert RunDirectory(small_disk / "run").read_status()["status"] == "finished"
    assert_same(outcome(small_disk / "run"), outcome(tmp_path / "undisturbed"))


def test_a_disk_full_to_the_end_is_an_error_and_the_run_goes_on_later(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint could not be saved: no success is claimed, and the good one before it is there."""

    def after_step(experiment: Experiment, state: TrainingState) -> None:
        original(experiment, state)
        if state.steps == 256:
            fill(small_disk)

    original = Experiment.after_step
    assert train(settings_for(), tmp_path / "undisturbed") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "after_step", after_step)
        with pytest.raises(RunError, match=r"the last checkpoint could not be saved: .*No space left"):
            train(settings_for(), small_disk / "run")
    run = RunDirectory(small_disk / "run")
    assert run.read_status()["status"] == "degraded"
    assert run.find_checkpoint("last").steps == 240
    (small_disk / "ballast").unlink()
    assert train(settings_for(), small_disk / "run") == 0
    assert_same(outcome(small_disk / "run"), outcome(tmp_path / "undisturbed"))


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
from wn_dqn.envs import atari as vector_env
from wn_dqn.envs.rules import EnvRules

vector_env.HANG_TIMEOUT_S = 0.5
def printed():
    print("printed", flush=True)
    os._exit(7)
env = vector_env.AtariEnv("pong", 2, EnvRules(), on_hang=printed)
env.reset(np.arange(2))
env._env.send(np.array([99, 99]))  # past the check that keeps invalid actions from the emulator
env.receive()
"""


@pytest.mark.slow
def test_an_emulator_that_hangs_is_noticed() -> None:
    """The watchdog speaks up although the main thread waits in C++ for ever."""
    done = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("printed\n", 7)


def test_status_tells_other_programs_how_the_run_is(tmp_path: Path) -> None:
    """status.json of a finished run."""
    assert train(settings_for(), tmp_path / "run") == 0
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["steps"]) == ("finished", 320)
