"""`wn-dqn sweep`: plan, status and retry. The children are `fake_train.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from command import wn_dqn

from wn_dqn.config.files import make_settings, read_config
from wn_dqn.runs.status import write_status
from wn_dqn.sweeps import child
from wn_dqn.sweeps.cells import mark_stopped_early, read_manifest
from wn_dqn.sweeps.plan import needs_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
FAKE = (sys.executable, "-S", "-E", str(Path(__file__).with_name("fake_train.py")))
STUDY = "base: catch-vector\ndirectory: s\nset: {learning.total_steps: 100}\ngrid: {param: [standard, wn, bn]}\n"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(child, "PROGRAM", FAKE)
    monkeypatch.setattr("wn_dqn.cli.cmd_sweep._memory_bytes", lambda *_: dict.fromkeys(NAMES, 1))
    Path("s.yaml").write_text(STUDY)
    return tmp_path / "s"


NAMES = [f"CatchVector-{param}-seed0" for param in ("standard", "wn", "bn")]


def test_a_sweep_from_its_plan_to_its_last_retry(study: Path) -> None:
    status, out, _ = wn_dqn("sweep", "plan", "s.yaml", "--json")
    planned = json.loads(out)["cells"]
    assert (status, [row["name"] for row in planned]) == (0, NAMES)
    assert planned[0]["memory_bytes"] > 2**30
    assert planned[0]["command"].startswith("wn-dqn train --config s/base.yaml --game CatchVector --param standard ")
    assert not study.exists()

    status, out, err = wn_dqn("sweep", "run", "s.yaml", "--jobs", "2")
    assert (status, out) == (1, "")
    assert err.splitlines()[-4:] == [
        "3 cells: 2 finished, 1 failed",
        f"failed: s/{NAMES[2]}: the emulator is ill; its log: s/{NAMES[2]}/train.log",
        "again: wn-dqn sweep retry s",
        "next: wn-dqn report s",
    ]
    status, _, err = wn_dqn("sweep", "run", "s.yaml")
    assert (status, err.count("at step")) == (1, 0)  # nothing is trained that has failed or finished

    status, out, _ = wn_dqn("sweep", "status", "s")
    assert (status, out.splitlines()[-2:]) == (
        0,
        [f"{NAMES[2]}  failed  10 of 100  the emulator is ill", "3 cells: 2 finished, 1 failed"],
    )
    status, _, err = wn_dqn("sweep", "retry", "s")
    assert (status, err.splitlines()[-2:]) == (0, ["3 cells: 3 finished", "next: wn-dqn report s"])
    assert [(study / name / "starts").read_text().count("\n") for name in NAMES] == [1, 2, 2]
    assert wn_dqn("sweep", "status", "s", "--watch")[1].splitlines()[-1] == "3 cells: 3 finished"


def test_cells_that_stopped_early_are_left_alone(study: Path) -> None:
    wn_dqn("sweep", "run", "s.yaml")
    wn_dqn("sweep", "retry", "s")
    loser = read_manifest(study).cells[1]
    write_status(loser.folder, "paused", steps=50)
    mark_stopped_early(loser, "place 3 of 3 at step 50", 50)
    status, _, err = wn_dqn("sweep", "run", "s.yaml")
    assert (status, err.splitlines()[0]) == (0, "3 cells: 2 finished, 1 stopped early")


def test_the_table_of_a_plan(study: Path) -> None:
    lines = wn_dqn("sweep", "plan", "s.yaml", "--no-cost")[1].splitlines()
    assert lines[0].split() == ["run", "steps", "memory", "disk", "time"]
    assert lines[1].split() == [NAMES[0], "100", "1.0", "GiB", "81", "MB", "-"]
    assert lines[-2:] == ["3 runs in s: their time is not measured; 0.2 GB of disk", "--cost measures all"]
    measured = wn_dqn("sweep", "plan", "s.yaml", "--cost")[1].splitlines()
    assert measured[1].split()[-1].startswith("0:00:0")
    assert measured[-1].startswith("3 runs in s: 0:00:0")


def test_a_plan_of_many_cells_measures_none() -> None:
    settings = make_settings(read_config("catch-vector"))
    assert {need.seconds for need in needs_of([settings] * 201, torch.device("cpu"))} == {None}


@pytest.mark.parametrize("command", ["status", "retry"])
def test_a_folder_that_is_no_sweep(command: str, tmp_path: Path) -> None:
    status, _, err = wn_dqn("sweep", command, str(tmp_path))
    assert (status, err.count("\n")) == (2, 1)
    assert f"{tmp_path} is not a sweep: its sweep.json cannot be read" in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["checkpoint", "list"], "is not `wn-dqn train`"),
        (["train", "--env", "evil:make"], "this would run code from outside of wn-dqn, evil:make"),
        (["train", "--plugin", "evil"], "this would run the plugin evil"),
    ],
)
def test_a_manifest_of_somebody_else_runs_no_code_of_theirs(command: list[str], message: str, tmp_path: Path) -> None:
    cell = {"name": "a", "command": command, "total_steps": 1}
    (tmp_path / "sweep.json").write_text(json.dumps({"cells": [cell]}))
    status, _, err = wn_dqn("sweep", "retry", str(tmp_path))
    assert status == 2
    assert message in err
