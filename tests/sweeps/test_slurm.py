"""SLURM: the script of a job array, with an `sbatch`, a `squeue` and a `scontrol` that a test puts on PATH."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import wn_dqn

from wn_dqn.sweeps import child, slurm
from wn_dqn.sweeps.cells import Cell
from wn_dqn.sweeps.parts import Resources
from wn_dqn.sweeps.stopping import Stopping

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SLURM's scripts are for bash")
FAKE = (sys.executable, "-S", "-E", str(Path(__file__).with_name("fake_train.py")))
NAMES = [f"CatchVector-{param}-seed0" for param in ("standard", "wn", "bn")]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(child, "PROGRAM", FAKE)
    monkeypatch.setattr("wn_dqn.cli.cmd_sweep._memory_bytes", lambda *_: dict.fromkeys(NAMES, 2**30))
    Path("s.yaml").write_text(
        "base: catch-vector\ndirectory: s\nset: {learning.total_steps: 100}\n"
        "grid: {param: [standard, wn, bn]}\nresources: {cpus: 2, gpus: 0.5}\n"
    )
    return tmp_path / "s"


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH. What was asked of the queue stands in `asked` there."""
    folder = tmp_path / "bin"
    program(folder / "squeue", f'echo squeue "$@" >> {folder}/asked; cat {folder}/queue 2>/dev/null; true')
    program(folder / "sbatch", f'echo sbatch "$@" >> {folder}/asked; echo Submitted batch job 7')
    program(folder / "scontrol", f'echo scontrol "$@" >> {folder}/asked')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_sweep_is_submitted_once(study: Path, cluster: Path) -> None:
    status, out, _ = wn_dqn("sweep", "run", "s.yaml", "--on", "slurm", "--partition", "long", "--sbatch=--time=8:00:00")
    assert (status, out.splitlines()[0]) == (0, "Submitted batch job 7")
    asked = (cluster / "asked").read_text().splitlines()
    assert asked == ["squeue --me --noheader --format=%A --name=wn-dqn-s", "sbatch s/sweep.sbatch"]
    lines = [line.removeprefix("#SBATCH ") for line in (study / "sweep.sbatch").read_text().splitlines()]
    assert lines[1:14] == [
        *("--job-name=wn-dqn-s", "--array=0-2%3", "--ntasks=1", "--cpus-per-task=2", "--mem=1127M", "--gpus=1"),
        *("--signal=B:USR1@120", "--requeue", "--open-mode=append", f"--output={study}/slurm-%a.log"),
        *("--partition=long", "--time=8:00:00", f"cd {study.parent} || exit 2"),
    ]
    (cluster / "queue").write_text("7\n")
    status, _, err = wn_dqn("sweep", "run", "s.yaml", "--on", "slurm")
    assert (status, err) == (2, "wn-dqn: s is in the queue already, job 7; scancel it first\n")


def test_only_what_is_left_is_submitted(study: Path, cluster: Path) -> None:
    wn_dqn("sweep", "run", "s.yaml")
    out = wn_dqn("sweep", "retry", "s", "--on", "slurm", "--dry-run")[1]
    assert "#SBATCH --array=2%1\n" in out
    assert not (cluster / "asked").exists()
    assert wn_dqn("sweep", "run", "s.yaml", "--on", "slurm")[1] == "nothing is left to do\n"


def test_a_refusal_of_sbatch_is_one_line(study: Path, cluster: Path) -> None:
    program(cluster / "sbatch", "echo 'sbatch: error: invalid partition specified: log' >&2; exit 1")
    status, _, err = wn_dqn("sweep", "run", "s.yaml", "--on", "slurm", "--partition", "log")
    assert (status, err) == (2, "wn-dqn: sbatch failed: sbatch: error: invalid partition specified: log\n")


def test_without_slurm_one_line(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, err = wn_dqn("sweep", "run", "s.yaml", "--on", "slurm")
    assert (status, err.count("\n")) == (2, 1)
    assert "there is no sbatch here" in err


def test_ranges() -> None:
    assert slurm._ranges([7, 0, 1, 2, 9, 8]) == "0-2,7-9"
    assert slurm._ranges([4]) == "4"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of a sweep in a folder with a name that a shell would take apart; its program is `$PROGRAM`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm.sys, "executable", str(tmp_path / "bin" / "task"))
    path = tmp_path / "script"
    options = ["--partition=a", "--plugin=my plugin"]
    path.write_text(slurm.script(Path("a 'name'"), [0, 2], 2**30, Resources(), 2, options))
    return path


def test_the_script_is_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
        assert done.stdout == ""


def run_task(script: Path, cluster: Path, text: str, *numbers: signal.Signals) -> tuple[int, list[str]]:
    """Run an array task whose program does `text`, send it signals; its exit status, and what it asked of the queue."""
    program(cluster / "task", f'printf "%s|" "$@" > {cluster}/words\n{text}')
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "9"}
    with subprocess.Popen(["bash", str(script)], env=environment, stdout=subprocess.PIPE) as task:
        assert task.stdout is not None
        for number in numbers:
            assert task.stdout.readline() == b"ready\n"
            task.send_signal(number)
        task.stdout.read()
        status = task.wait()
    asked = cluster / "asked"
    return status, asked.read_text().splitlines() if asked.exists() else []


# `wait` ends with a signal, as a builtin does not.
STOPS_WHEN_ASKED = """trap 'kill "$!"; exit 3' TERM; sleep 20 >&- & echo ready; wait; exit 9"""


def test_a_task_is_the_command_of_its_cell(script: Path, cluster: Path) -> None:
    assert run_task(script, cluster, "exit 1") == (1, [])
    words = (cluster / "words").read_text()
    assert words == "-m|wn_dqn|sweep|cell|--plugin=my plugin|a 'name'|2|"


def test_a_task_whose_time_ends_saves_and_is_requeued(script: Path, cluster: Path) -> None:
    assert run_task(script, cluster, STOPS_WHEN_ASKED, signal.SIGUSR1) == (3, ["scontrol requeue 9"])


def test_a_task_that_is_cancelled_saves_and_is_not_requeued(script: Path, cluster: Path) -> None:
    assert run_task(script, cluster, STOPS_WHEN_ASKED, signal.SIGTERM) == (3, [])


def test_the_statuses_of_a_task(study: Path) -> None:
    """Those of `train`; a child that was killed has been started again."""
    wn_dqn("sweep", "run", "s.yaml", "--on", "slurm", "--dry-run")
    assert [wn_dqn("sweep", "cell", "s", str(index))[0] for index in (0, 1, 2, 2)] == [0, 0, 1, 0]
    assert json.loads((study / NAMES[1] / "status.json").read_text())["status"] == "finished"
    status, _, err = wn_dqn("sweep", "cell", "s", "3")
    assert (status, err) == (2, "wn-dqn: s has 3 cells; there is no number 3\n")


def test_a_task_that_is_told_to_stop_ends_with_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "PROGRAM", FAKE)
    folder = tmp_path / "a"
    cell = Cell("a", ("train", "--param", "forever", "--run-dir", str(folder)), folder, 100)
    assert slurm.train_one(cell, Stopping(0.2)) == 3
