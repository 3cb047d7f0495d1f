"""What a run says and does when something of it is gone, changed or another's: one line, and nothing is deleted."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import wn_dqn
from small_runs import CPU, assert_same, outcome, settings_for, train

from wn_dqn.config.files import dump_yaml
from wn_dqn.config.schema import Settings
from wn_dqn.errors import RunError, UsageError
from wn_dqn.runs import launch
from wn_dqn.runs.experiment import Experiment
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("small_network")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="what is open cannot be moved on Windows, nor linked")
HALF, WHOLE = {"total_steps": 120}, {"total_steps": 168}


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 120 steps; copy it, do not touch it."""
    folder = tmp_path_factory.mktemp("half") / "run"
    assert train(settings_for(learning=HALF), folder) == 0
    return folder


@pytest.fixture
def run(half: Path, tmp_path: Path) -> Path:
    """A copy of the run of 120 steps."""
    return Path(shutil.copytree(half, tmp_path / "run"))


def go_on(run: Path, settings: Settings | None = None, *, accept: bool = False) -> int:
    """Train it to step 168."""
    reporter = ProgressReporter()
    return launch.train_run(settings or settings_for(learning=WHOLE), run, CPU, reporter, accept_changes=accept)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def link_to_nowhere(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("/nowhere/at/all")


def say_running(run: Path) -> None:
    """As an earlier version did, which kept no `saved_steps`."""
    (run / "status.json").write_text(json.dumps({"status": "running", "steps": 120}))


ABSENCES: dict[str, Callable[[Path], object]] = {
    "removed": lambda run: shutil.rmtree(run / "checkpoints"),
    "emptied": lambda run: [shutil.rmtree(path) for path in (run / "checkpoints").iterdir()],
    "on a disk that is not mounted": lambda run: link_to_nowhere(run / "checkpoints"),
    "removed, with the status": lambda run: [shutil.rmtree(run / "checkpoints"), (run / "status.json").unlink()],
    "removed, of an earlier version": lambda run: [shutil.rmtree(run / "checkpoints"), say_running(run)],
    "removed, with the tables": lambda run: [
        shutil.rmtree(run / "checkpoints"),
        *(path.unlink() for path in run.glob("*.csv")),
    ],
}


@pytest.mark.survives(
    "checkpoints that are gone, unreadable or not mounted",
    "the run is refused and stays as it is: training does not begin at step 0",
)
@pytest.mark.parametrize("how", ABSENCES)
def test_checkpoints_that_are_not_seen_are_no_beginning(how: str, run: Path) -> None:
    if sys.platform == "win32" and "mounted" in how:
        pytest.skip("links need a right there")
    ABSENCES[how](run)
    before = contents(run)
    with pytest.raises(RunError, match=r"no checkpoint is seen in .*: bring its checkpoints back|is a link"):
        go_on(run)
    assert contents(run) == before


@pytest.mark.survives("a kill before the first checkpoint", "the same command begins again, and ends in the same bits")
def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows and its status speak of steps, and nothing that was saved is lost."""

    def die(experiment: Experiment, state: TrainingState) -> None:
        original(experiment, state)
        if state.steps == 72:
            raise KeyboardInterrupt

    original = Experiment.after_step
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "after_step", die)
        with pytest.raises(KeyboardInterrupt):
            train(settings_for(learning=HALF), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert train(settings_for(learning=HALF), tmp_path / "run") == 0
    assert train(settings_for(learning=HALF), tmp_path / "undisturbed") == 0
    assert_same(outcome(tmp_path / "run"), outcome(tmp_path / "undisturbed"))


@pytest.mark.survives(
    "a status that says finished, and a checkpoint that does not",
    "the checkpoint is believed: training goes on",
)
def test_finished_is_not_believed_where_the_checkpoint_says_otherwise(run: Path, tmp_path: Path) -> None:
    status = {**RunDirectory(run).read_status(), "status": "finished", "steps": 168}
    (run / "status.json").write_text(json.dumps(status))
    assert go_on(run) == 0
    assert RunDirectory(run).find_checkpoint("last").steps == 168


def at_step(monkeypatch: pytest.MonkeyPatch, steps: int, action: Callable[[], object]) -> None:
    """Do `action` once, after so many steps."""

    def after_step(experiment: Experiment, state: TrainingState) -> None:
        original(experiment, state)
        if state.steps == steps:
            action()

    original = Experiment.after_step
    monkeypatch.setattr(Experiment, "after_step", after_step)


@pytest.mark.survives(
    "the run's folder is moved or removed while it trains",
    "the run stops with one line, and goes on once the folder is back",
)
@posix_only
@pytest.mark.parametrize("another_takes_its_place", [False, True])
def test_a_folder_that_moves_while_it_trains_stops_the_run(
    another_takes_its_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"

    def move() -> None:
        run.rename(moved)
        if another_takes_its_place:
            run.mkdir()

    settings = settings_for(learning=WHOLE)
    with monkeypatch.context() as patch:
        at_step(patch, 136, move)
        with pytest.raises(RunError, match=r"run was moved or removed while it was being trained; move it back"):
            train(settings, run)
    assert run.exists() == another_takes_its_place
    assert not run.exists() or not list(run.iterdir())
    if another_takes_its_place:
        run.rmdir()
    moved.rename(run)
    assert train(settings, run) == 0
    assert train(settings, tmp_path / "undisturbed") == 0
    assert_same(outcome(run), outcome(tmp_path / "undisturbed"))


def overwrite(path: Path, data: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        file.write(data)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": lambda path: path.unlink(),
    "filled with NULs": lambda path: overwrite(path, bytes(path.stat().st_size)),
    "cut by one byte": lambda path: os.truncate(path, path.stat().st_size - 1),
}
CHANGES = {**LOSSES, "no UTF-8": lambda path: overwrite(path, b"\xff\xfe")}


@pytest.mark.survives(
    "a table is emptied, deleted, cut or replaced while it is written",
    "the run stops with one line, and goes on once the table is back",
)
@posix_only
@pytest.mark.parametrize("table", ["metrics.csv", "evaluations.csv"])
@pytest.mark.parametrize("how", [*LOSSES, "replaced"])
def test_a_table_that_loses_rows_while_it_is_written_stops_the_run(
    how: str, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = tmp_path / "run", settings_for(learning={"total_steps": 240})
    good: list[bytes] = []

    def lose() -> None:
        good.append((run / table).read_bytes())
        {**LOSSES, "replaced": replace}[how](run / table)

    with monkeypatch.context() as patch:
        at_step(patch, 136, lose)
        with pytest.raises(RunError, match=rf"{table} was .* by another program"):
            train(settings, run)
    assert RunDirectory(run).read_status()["status"] == "failed"
    (run / table).write_bytes(good[0])
    assert train(settings, run) == 0
    rows = (run / table).read_text().splitlines()
    assert len(rows) == 1 + 240 // (24 if table == "metrics.csv" else 120)


@pytest.mark.survives(
    "a table that lost rows between two starts",
    "it is refused and stays as it is; `--accept-changes` goes on with the whole rows and records it",
)
@pytest.mark.parametrize("table", ["metrics.csv", "evaluations.csv"])
@pytest.mark.parametrize("checksum", [True, False], ids=["", "of an earlier version"])
@pytest.mark.parametrize("how", CHANGES)
def test_a_table_that_lost_rows_is_refused_and_nothing_is_touched(
    how: str, checksum: bool, table: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the loss is accepted: then it is recorded, and the whole rows that are left go on."""
    if not checksum:
        monkeypatch.setattr("wn_dqn.runs.metrics_writer._CHECKSUMS", "another key")
    CHANGES[how](run / table)
    before = contents(run)
    with pytest.raises(RunError, match=rf"{table} .*: put it back, or go on .*--accept-changes"):
        go_on(run)
    assert contents(run) == before
    assert go_on(run, accept=True) == 0
    entries = json.loads((run / "provenance.json").read_bytes())
    (message,) = entries[-1]["accepted_changes"]
    assert table in message
    header, *rows = (run / table).read_text().splitlines()
    assert header.startswith("steps,")
    assert [len(row.split(",")) for row in rows] == [len(header.split(","))] * len(rows)
    steps = [int(row.split(",")[0]) for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 168
    if how == "cut by one byte" and table == "metrics.csv":
        assert steps == [24, 48, 72, 96, 144, 168]
    assert go_on(run) == 0, "it is accepted once"


def edited(run: Path, old: str, new: str) -> None:
    config = run / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


@pytest.mark.survives(
    "settings other than those of the checkpoint",
    "each difference is named and refused; `--accept-changes` records them",
)
def test_settings_other_than_the_checkpoints_are_named_and_refused(run: Path) -> None:
    """Somebody edited config.yaml, and trains with what it says."""
    edited(run, "discount: 0.99", "discount: 0.19")
    before = contents(run)
    settings = settings_for(learning={**WHOLE, "discount": 0.19})
    with pytest.raises(UsageError, match=r"learning.discount: 0.99 -> 0.19.*--accept-changes"):
        go_on(run, settings)
    assert contents(run) == before
    assert go_on(run, settings, accept=True) == 0
    entries = json.loads((run / "provenance.json").read_bytes())
    assert ["accepted_changes" in entry for entry in entries] == [False, True]
    assert entries[-1]["accepted_changes"] == ["learning.discount: 0.99 -> 0.19"]
    assert go_on(run, settings_for(learning={"total_steps": 176, "discount": 0.19})) == 0, "it is asked once"


@pytest.mark.survives("checkpoints of another seed", "refused, and the run stays as it is")
def test_the_checkpoints_of_another_seed_are_refused(run: Path, tmp_path: Path) -> None:
    assert train(settings_for(learning=HALF, seed=1), tmp_path / "other") == 0
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", run / "checkpoints")
    before = contents(run)
    with pytest.raises(UsageError, match=r"was saved with other settings \(seed: 1 -> 0\)"):
        go_on(run)
    assert contents(run) == before


@pytest.mark.parametrize("change", [{"param": "standard"}, {"environment": {"num_envs": 4}}], ids=str)
def test_what_the_saved_state_has_the_shape_of_cannot_be_accepted(change: dict[str, Any], run: Path) -> None:
    before = contents(run)
    with pytest.raises(UsageError, match=r"other settings .*; choose another --run-dir$"):
        go_on(run, settings_for(**{"learning": WHOLE, **change}), accept=True)
    assert contents(run) == before


def test_the_command_accepts_changes(run: Path, tmp_path: Path) -> None:
    """Without being asked to, it ends with one line and exit status 2."""
    config = tmp_path / "changed.yaml"
    config.write_text(dump_yaml(settings_for(learning={**WHOLE, "discount": 0.19}).model_dump()))
    command = ["train", "--config", str(config), "--run-dir", str(run), "--device", "cpu"]
    status, _, message = wn_dqn(*command)
    assert (status, message.count("\n")) == (2, 1)
    assert "learning.discount: 0.99 -> 0.19" in message
    assert wn_dqn(*command, "--accept-changes")[0] == 0
    assert RunDirectory(run).find_checkpoint("last").steps == 168
