"""Standard streams that are closed, full or broken: messages are dropped, and the work ends as it would have."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import settings_for

from wn_dqn.config.files import dump_yaml
from wn_dqn.errors import STOPPED
from wn_dqn.runs.metrics_writer import EVALUATIONS_CSV
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


CONFIG: dict[str, Any] = {
    "game": "CatchVector",
    "replay": {"capacity": 120},
    "network": {"hidden": [8], "init_batch_size": 16},
    "learning": {"total_steps": 72, "start_steps": 32, "batch_size": 8, "target_period_steps": 40},
    "evaluation": {"epoch_steps": 72, "steps": 40, "num_envs": 3, "held_out_states": 16},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 72 steps, around a network of few units."""
    path = tmp_path_factory.mktemp("config") / "c.yaml"
    path.write_text(dump_yaml(CONFIG))
    return path


Command = Callable[..., tuple[int | None, str]]


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    """``wn-dqn ARGS`` in a folder, with three standard streams: exit status (None for a failure), standard error."""
    driver = [sys.executable, str(Path(__file__).parents[1] / "stream_driver.py")]
    with subprocess.Popen(driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def call(folder: Path, *args: str, streams: tuple[str, str, str]) -> tuple[int | None, str]:
            print(json.dumps([str(folder), args, streams]), file=process.stdin, flush=True)
            status, err = json.loads(process.stdout.readline())
            return status, err

        yield call
        process.stdin.close()


def train(config: Path) -> list[str]:
    return ["train", "--device", "cpu", "--config", str(config), "--run-dir", "run"]


def require_finished(run: Path) -> None:
    status = RunDirectory(run).read_status()
    assert (status["status"], status["steps"]) == ("finished", 72)
    assert (run / "model_card.md").exists()


STREAMS = [
    ("null", "file", "full"),
    ("null", "file", "closed"),
    ("null", "closed", "closed"),
    ("null", "full", "file"),
    ("null", "broken", "broken"),
]


@pytest.mark.survives(
    "messages that cannot be written: closed streams, broken pipes, a full disk",
    "training ends as it would have",
)
@pytest.mark.parametrize("streams", STREAMS, ids=" ".join)
def test_training_ends_as_it_would_have(
    streams: tuple[str, str, str], config: Path, command: Command, tmp_path: Path
) -> None:
    assert command(tmp_path, *train(config), streams=streams)[0] == 0
    require_finished(tmp_path / "run")


@pytest.mark.parametrize("streams", ["2>&1 | head -1", "<&- >&- 2>&-"])
def test_training_from_a_shell_ends_as_it_would_have(streams: str, config: Path, tmp_path: Path) -> None:
    """Python itself begins and ends with such streams, too."""
    done = shell(f"wn-dqn {' '.join(train(config))} {streams}", tmp_path)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    require_finished(tmp_path / "run")


@pytest.fixture(scope="module")
def run(config: Path, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    assert command(folder, *train(config), streams=("null", "file", "file"))[0] == 0
    return folder / "run"


@pytest.mark.survives(
    "other commands with closed or full streams",
    "they end as they would have; exit status 1 if their result could not be printed",
)
@pytest.mark.parametrize(
    ("args", "streams", "status"),
    [
        ("evaluate {run} --games 1", ("null", "closed", "file"), 0),
        ("evaluate {run} --games 1", ("null", "file", "full"), 0),
        ("play {run} -o game.webm --max-frames 9", ("null", "file", "closed"), 0),
        ("evaluate {run} --games 1", ("null", "full", "file"), 1),  # what was asked for cannot be said
        ("evaluate nowhere", ("null", "file", "full"), 2),
        ("evaluate nowhere", ("null", "file", "closed"), 2),
    ],
    ids=str,
)
def test_other_commands_end_as_they_would_have(
    args: str, streams: tuple[str, str, str], status: int, run: Path, command: Command, tmp_path: Path
) -> None:
    assert command(tmp_path, *args.format(run=run).split(), streams=streams)[0] == status


@pytest.mark.survives("a terminal that is closed (SIGHUP)", "the run is saved, and the same command goes on")
def test_a_terminal_that_closes_stops_the_run_as_a_signal_does(tmp_path: Path) -> None:
    """Its messages went to the terminal, which is gone before the last of them."""
    config = tmp_path / "c.yaml"
    config.write_text(dump_yaml(settings_for(learning={"total_steps": 1_000_000}).model_dump()))
    terminal, ours = os.openpty()
    command = [sys.executable, "-m", "wn_dqn", "train", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=ours, stdout=ours, stderr=ours, start_new_session=True) as process:
        os.close(ours)
        while not (tmp_path / "run" / EVALUATIONS_CSV).is_file():  # it has learned something
            os.read(terminal, 1000)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == STOPPED
    status = RunDirectory(tmp_path / "run").read_status()
    assert (status["status"], status["reason"]) == ("paused", "SIGHUP")
    assert RunDirectory(tmp_path / "run").find_checkpoint("last").steps == status["steps"]
