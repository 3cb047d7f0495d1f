"""The executor of Ray, without Ray: what a task does, and what is said where there is no cluster.

A real cluster of two nodes, of which one is killed, is in `scripts/prove_sweeps.py`.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path

import pytest
from command import wn_dqn

from wn_dqn.errors import UsageError
from wn_dqn.sweeps import child, on_ray
from wn_dqn.sweeps.cells import Cell, standing
from wn_dqn.sweeps.on_ray import OnRay, train_cell
from wn_dqn.sweeps.parts import Resources

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
FAKE = (sys.executable, "-S", "-E", str(Path(__file__).with_name("fake_train.py")))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(child, "PROGRAM", FAKE)
    return tmp_path


def cell(param: str) -> Cell:
    """With a relative path, as in a manifest."""
    return Cell(param, ("train", "--param", param, "--run-dir", f"s/{param}"), Path("s") / param, 100)


def test_a_task_trains_a_cell_to_its_end(make: Path) -> None:
    """From the folder of the driver; one that stops for another reason is started again."""
    assert [train_cell(cell(param), None, 3, str(make)) for param in ("standard", "wn", "bn")] == [
        "done",
        "done",
        "failed",
    ]
    assert (make / "s" / "wn" / "starts").read_text() == "3\n3\n"


def test_a_task_that_is_cancelled_lets_its_child_save(make: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray cancels by KeyboardInterrupt."""
    original = child.Child.poll
    interrupted = []

    def poll(self: child.Child) -> int | None:
        if not interrupted and "ready" in (make / "s/forever/train.log").read_text():
            interrupted.append(True)
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(child.Child, "poll", poll)
    assert train_cell(cell("forever"), None, 1, str(make)) == "again"
    assert (standing(cell("forever")).state, standing(cell("forever")).steps) == ("waiting", 20)


def test_a_node_that_does_not_share_the_folder() -> None:
    with pytest.raises(UsageError, match="has no folder /nowhere: the nodes must share the folder of the sweep"):
        train_cell(cell("standard"), None, 1, "/nowhere")


def test_without_ray_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wn_dqn.cli.cmd_sweep._memory_bytes", lambda *_: {"CatchVector-wn-seed0": 1})
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find_spec(name, *rest)
    )
    Path("s.yaml").write_text("base: catch-vector\n")
    status, _, err = wn_dqn("sweep", "run", "s.yaml", "--on", "ray")
    assert (status, err) == (2, "wn-dqn: Ray is not installed: pip install 'wn-dqn[ray]'\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("while true; do read -r -t 9 <> <(:); done", "within 0 s"),
        (
            "echo trace; echo ConnectionError: no >&2; exit 1",
            "ConnectionError: no",
        ),
    ],
)
def test_a_cluster_that_does_not_answer(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/bash\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(on_ray, "_ANSWER_S", 0.3)
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda _name: True)
    monkeypatch.setattr(on_ray.sys, "executable", str(program))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"no Ray cluster answers at {address}.*{message}"):
            OnRay(address, Resources())
    with pytest.raises(UsageError, match=f"no Ray cluster answers at {address}: .*refused; see `ray status`"):
        OnRay(address, Resources())
