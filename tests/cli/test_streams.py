"""Standard streams that are closed, full or broken: messages are dropped, and the work ends as it would have."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import settings_for

from wn_dqn.config.files import dump_yaml
from wn_dqn.runs.run_directory import RunDirectory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a POSIX shell, /dev/full and pseudo-terminals are needed"),
]
COMMAND = f"{shlex.quote(sys.executable)} -m wn_dqn"


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` in bash, where a pipeline ends as its first part did."""
    program = f"set -o pipefail; {command.replace('wn-dqn', COMMAND)}"
    return subprocess.run(["bash", "-c", program], cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 72 steps, around a network of few units."""
    path = tmp_path_factory.mktemp("config") / "c.yaml"
    settings = settings_for(learning={"total_steps": 72, "start_steps": 32}, evaluation={"epoch_steps": 72})
    path.write_text(dump_yaml(settings.model_dump()))
    return path


@pytest.mark.survives(
    "messages that cannot be written: closed streams, broken pipes, a full disk",
    "training ends as it would have",
)
@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&1 | head -1", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_training_ends_as_it_would_have(streams: str, config: Path, tmp_path: Path) -> None:
    done = shell(f"wn-dqn train --device cpu --config {config} --run-dir run {streams}", tmp_path)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    status = RunDirectory(tmp_path / "run").read_status()
    assert (status["status"], status["steps"]) == ("finished", 72)
    assert (tmp_path / "run" / "model_card.md").exists()


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    assert shell(f"wn-dqn train --device cpu --config {config} --run-dir run", folder).returncode == 0
    return folder / "run"


@pytest.mark.survives(
    "other commands with closed or full streams",
    "they end as they would have; exit status 1 if their result could not be printed",
)
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("evaluate {run} --games 1 >&-", 0),
        ("evaluate {run} --games 1 2>/dev/full", 0),
        ("play {run} -o game.webm --max-frames 9 2>&-", 0),
        ("evaluate {run} --games 1 >/dev/full", 1),  # what was asked for cannot be said
        ("evaluate nowhere 2>/dev/full", 2),
        ("evaluate nowhere 2>&-", 2),
    ],
)
def test_other_commands_end_as_they_would_have(command: str, status: int, run: Path, tmp_path: Path) -> None:
    done = shell(f"wn-dqn {command.format(run=run)}", tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done


@pytest.mark.survives("a terminal that is closed (SIGHUP)", "the run is saved, and the same command goes on")
def test_a_terminal_that_closes_stops_the_run_as_a_signal_does(tmp_path: Path) -> None:
    """Its messages went to the terminal, which is gone before the last of them."""
    config = tmp_path / "c.yaml"
    config.write_text(dump_yaml(settings_for(learning={"total_steps": 1_000_000}).model_dump()))
    terminal, ours = os.openpty()
    command = [sys.executable, "-m", "wn_dqn", "train", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=ours, stdout=ours, stderr=ours, start_new_session=True) as process:
        os.close(ours)
        told = b""
        while b"step 120:" not in told:
            told = told[-1000:] + os.read(terminal, 1000)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 128 + signal.SIGHUP
    status = RunDirectory(tmp_path / "run").read_status()
    assert (status["status"], status["reason"]) == ("paused", "SIGHUP")
    assert RunDirectory(tmp_path / "run").find_checkpoint("last").steps == status["steps"]
