"""Sweeps on this machine. The children are `fake_train.py`, but for the last test, which trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import wn_dqn

from wn_dqn.errors import UsageError
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.sweeps import child, local
from wn_dqn.sweeps.cells import Cell, read_manifest, standing
from wn_dqn.sweeps.child import Ending
from wn_dqn.sweeps.local import Local
from wn_dqn.sweeps.stopping import Stopping

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
FAKE = (sys.executable, "-S", "-E", str(Path(__file__).with_name("fake_train.py")))
MIB = 2**20


@pytest.fixture(autouse=True)
def _fake_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "PROGRAM", FAKE)


def cell(folder: Path, param: str, name: str = "") -> Cell:
    name = name or param
    return Cell(name, ("train", "--param", param, "--run-dir", str(folder / name)), folder / name, 100, MIB)


class Driver:
    """What a driver does, without its messages."""

    def __init__(self, executor: Local, stop: Stopping | None = None) -> None:
        self.executor, self.stop = executor, stop or Stopping()
        self.endings: dict[str, Ending] = {}

    def train(self, *cells: Cell) -> dict[str, Ending]:
        self.executor(cells, None, self.stop, lambda cell, ending: self.endings.update({cell.name: ending}))
        return self.endings


def test_what_each_exit_status_means(tmp_path: Path) -> None:
    """0 is done; 3 is started again; 1 has failed, with its line; a cell that only dies is given up."""
    cells = [cell(tmp_path, param) for param in ("standard", "wn", "bn", "wn-exp")]
    endings = Driver(Local(2, [])).train(*cells)
    assert endings == {"standard": "done", "wn": "done", "bn": "failed", "wn-exp": "failed"}
    starts = {each.name: len((each.folder / "starts").read_text().splitlines()) for each in cells}
    assert starts == {"standard": 1, "wn": 2, "bn": 1, "wn-exp": 3}
    standings = {each.name: standing(each) for each in cells}
    assert [each.state for each in standings.values()] == ["finished", "finished", "failed", "failed"]
    assert standings["bn"].reason == "the emulator is ill"
    assert standings["wn-exp"].reason.startswith("killed 3 times without having saved anything new (SIGKILL)")


def test_cores_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "num_cores", lambda: 8)
    Driver(Local(3, [])).train(cell(tmp_path, "standard"))
    assert (tmp_path / "standard" / "starts").read_text() == "2\n"


def test_too_little_memory_says_how_many_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "available_memory_bytes", lambda: 5 * 2**30)
    sizes = [2**30, 3 * 2**30, 2**30, 2**30]
    Local(3, sizes)
    with pytest.raises(UsageError, match=r"4 runs at a time need 6.0 GiB, 5.0 GiB are available; --jobs 3 fits"):
        Local(4, sizes)
    with pytest.raises(UsageError, match="not even one fits"):
        Local(2, [6 * 2**30])


def test_settings_of_the_shell_do_not_reach_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WN_DQN_STEPS", "5")
    monkeypatch.setenv("WN_DQN_KERNELS", "0")
    environment = child._environment(1)
    assert "WN_DQN_STEPS" not in environment
    assert environment["WN_DQN_KERNELS"] == "0"


def test_a_cell_that_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    """And never trained twice at once: here the other one lets go after the second look."""
    busy = cell(tmp_path, "standard")
    directory = RunDirectory(busy.folder)
    directory.create()
    looks = []
    with directory.locked():
        assert standing(busy).state == "running"
        assert standing(busy).host.startswith(f"process {os.getpid()} on ")
        stop = Stopping()

        def stop_at_second_look(each: Cell) -> bool:
            looks.append(each)
            stop.reason = "the test" if len(looks) == 2 else ""
            return True

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local, "is_elsewhere", stop_at_second_look)
            assert Driver(Local(1, [], pause_s=0.0), stop).train(busy) == {}
    assert not (busy.folder / "starts").exists()
    assert Driver(Local(1, [], pause_s=0.0)).train(busy) == {"standard": "done"}


def test_what_another_driver_has_done_is_not_begun(tmp_path: Path) -> None:
    """Two drivers work on one folder: a cell that waited for the other one's child is finished by then."""
    other, ours = cell(tmp_path, "standard"), cell(tmp_path, "wn")
    assert Driver(Local(1, [])).train(other) == {"standard": "done"}
    assert Driver(Local(2, [])).train(other, ours) == {"standard": "done", "wn": "done"}
    assert len((other.folder / "starts").read_text().splitlines()) == 1


@pytest.mark.parametrize("_", range(3))
def test_a_child_that_is_asked_in_its_first_moment_has_not_died(_: int, tmp_path: Path) -> None:
    """It ends by the signal before it listens, or saves after it: it is to be started again, and that is no failure."""
    first = child.Child(cell(tmp_path, "forever"), cores=1)
    first.ask_to_stop()
    assert first.wait(lambda: True) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_children(number: signal.Signals, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """By SIGHUP, which does no harm where the scheduler has sent its own to all."""
    cells = [cell(tmp_path, "forever", name) for name in "abc"]
    stop = Stopping()
    heard = signal.signal(number, signal.SIG_DFL)  # tests in the background of a shell have SIGINT ignored
    request.addfinalizer(lambda: signal.signal(number, heard))
    with stop.on_signals(), _when(lambda: all("ready" in _log(each) for each in cells[:2]), number):
        assert Driver(Local(2, []), stop).train(*cells) == {}
    assert [standing(each).state for each in cells] == ["waiting"] * 3
    reasons = [json.loads((each.folder / "status.json").read_text())["reason"] for each in cells[:2]]
    assert reasons == ["SIGHUP", "SIGHUP"]
    assert not (cells[2].folder / "starts").exists()


def test_a_second_signal_kills_the_children(tmp_path: Path) -> None:
    stop = Stopping()
    stop._on_signal(signal.SIGINT, None)
    assert (stop(), stop.at_once) == (True, False)
    stop._on_signal(signal.SIGHUP, None)
    assert not stop.at_once
    stop = Stopping()
    with stop.on_signals(), _when(lambda: "ready" in _log(deaf), signal.SIGTERM, signal.SIGTERM):
        deaf = cell(tmp_path, "forever")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(child.Child, "ask_to_stop", lambda _child: None)
            Driver(Local(1, []), stop).train(deaf)
    assert json.loads((deaf.folder / "status.json").read_text())["status"] == "running"  # it had no time to say more


def test_a_time_budget_stops_the_children(tmp_path: Path) -> None:
    stop = Stopping(0.3)
    Driver(Local(1, []), stop).train(cell(tmp_path, "forever"))
    assert stop.reason == "time budget used up"


def _log(each: Cell) -> str:
    return each.log.read_text() if each.log.exists() else ""


class _when:  # noqa: N801 - reads as a word of the `with` statement
    """Sends this process signals, one after another, once a condition holds: looked at where the executor looks."""

    def __init__(self, condition: Callable[[], bool], *numbers: signal.Signals) -> None:
        self._condition, self._numbers, self._patch = condition, list(numbers), pytest.MonkeyPatch()

    def __enter__(self) -> None:
        sleep = time.sleep

        def sleep_or_signal(seconds: float) -> None:
            if self._numbers and self._condition():
                signal.raise_signal(self._numbers.pop(0))
            sleep(seconds)

        self._patch.setattr(local.time, "sleep", sleep_or_signal)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


STUDY = """
base: catch-vector
directory: s
set:
  learning.total_steps: 4000000
  output.save_replay: true
  evaluation.epoch_steps: 400
grid: {seed: [0]}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(STUDY)
    return tmp_path / "s"


@pytest.mark.slow
def test_the_command_trains_stops_and_goes_on(study: Path) -> None:
    """SIGTERM reaches the driver and the child, as a scheduler may send it: the child still saves."""
    command = [sys.executable, "-m", "wn_dqn", "sweep", "run", "s.yaml"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr is not None
        log = study / "CatchVector-wn-seed0" / "train.log"
        while not log.exists() or "step 800: mean score" not in log.read_text():
            time.sleep(0.02)
        (each,) = read_manifest(study).cells
        trainer = int(standing(each).host.split()[1])
        driver.send_signal(signal.SIGTERM)
        os.kill(trainer, signal.SIGTERM)
        err = driver.stderr.read()
        assert driver.wait(60) == 3
    assert "stopped (SIGTERM); the same command goes on" in err
    run = RunDirectory(each.folder)
    assert run.read_status()["status"] == "paused"
    assert run.find_checkpoint("last").steps == run.read_status()["steps"]
    status, out, _ = wn_dqn("sweep", "status", "s", "--json")
    assert (status, json.loads(out)[0]["state"]) == (0, "waiting")
