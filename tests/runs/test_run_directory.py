"""The run directory: one process at a time, and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import lock_descriptor

from wn_dqn.config.files import make_settings
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError
from wn_dqn.runs.checkpoint import CheckpointError, save_checkpoint
from wn_dqn.runs.run_directory import RunDirectory

HOLDER = """
import sys
from pathlib import Path
from wn_dqn.runs.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no open file, and links need rights")


def usage_error(action: Callable[[], object]) -> str:
    """The one line that `action` is refused with."""
    with pytest.raises(UsageError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def lock(run: RunDirectory) -> None:
    with run.locked():
        pass


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


@pytest.fixture
def some_settings() -> Settings:
    return make_settings({"game": "pong", "param": "standard", "seed": 2**62, "learning": {"discount": 0.1 + 0.2}})


def test_a_process_that_lives_keeps_others_out_and_one_that_died_does_not(run: RunDirectory) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "locked\n"
        message = usage_error(lambda: lock(run))
        assert f"process {holder.pid} on {socket.gethostname()}" in message
        assert "--run-dir" in message
        assert message == usage_error(lambda: lock(run)), "a refusal must not forget who holds the lock"
        holder.kill()
    lock(run)
    assert (run.path / ".lock").read_text() == f"\nprocess {os.getpid()} on {socket.gethostname()}\n"


def test_a_lock_is_free_after_use(run: RunDirectory) -> None:
    with pytest.raises(KeyError), run.locked():
        raise KeyError
    with run.locked():
        assert f"process {os.getpid()} " in usage_error(lambda: lock(run))
    lock(run)


@pytest.mark.survives(
    "the lock file of a run is removed while it trains",
    "nobody else gets in: the folder itself is locked",
)
@posix_only
def test_a_lock_file_that_is_removed_does_not_let_others_in(run: RunDirectory) -> None:
    with run.locked():
        (run.path / ".lock").unlink()
        assert "is in use by another process; wait for it" in usage_error(lambda: lock(run))
    lock(run)


def test_the_lock_of_an_earlier_version_counts(run: RunDirectory) -> None:
    """It locks the file alone, and its name begins with the first byte."""
    with (run.path / ".lock").open("a+") as file:
        assert lock_descriptor(file.fileno(), blocking=False)
        file.write("process 5 on a host\n")
        file.flush()
        assert "is in use by process 5 on a host; wait for it" in usage_error(lambda: lock(run))
    lock(run)


@posix_only
def test_a_lock_that_cannot_be_is_refused_in_one_line(run: RunDirectory, tmp_path: Path) -> None:
    (run.path / ".lock").symlink_to(tmp_path / "elsewhere")
    message = usage_error(lambda: lock(run))
    assert "cannot lock" in message
    assert "--run-dir" in message
    assert not (tmp_path / "elsewhere").exists()


def test_create_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "b")
    assert not run.exists
    run.create()
    run.create()
    assert list(run.path.iterdir()) == []
    assert not run.exists


def test_create_takes_what_is_a_run_or_was_only_locked(run: RunDirectory, some_settings: Settings) -> None:
    lock(run)
    run.create()
    run.write_settings(some_settings.model_dump())
    (run.path / "notes.txt").write_text("mine")
    run.create()
    assert run.exists


def test_create_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    message = usage_error(RunDirectory(tmp_path).create)
    assert "thesis.tex" in message
    assert "--run-dir" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_refuses_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    read_only = [Path("/proc/run")] if Path("/proc").exists() else []
    for place in (tmp_path / "file", tmp_path / "file" / "run", *read_only, tmp_path / ("x" * 300)):
        message = usage_error(RunDirectory(place).create)
        assert str(place) in message
        assert "--run-dir" in message


def test_create_refuses_a_full_disk(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert "No space left" in usage_error(run.create)


@pytest.mark.parametrize("left", [".writable", "..writable.tmp", ".config.yaml.tmp"])
def test_create_takes_a_folder_in_which_a_run_crashed_as_it_began(left: str, run: RunDirectory) -> None:
    (run.path / left).write_bytes(b"")
    run.create()
    assert run.path.is_dir()


def test_settings_come_back_exactly(run: RunDirectory, some_settings: Settings) -> None:
    run.write_settings(some_settings.model_dump())
    assert run.exists
    assert run.read_settings() == some_settings


DAMAGES = {
    "empty": b"",
    "not text": b"\xff\xfe\xfd",
    "not YAML": b"game: [pong",
    "a tab": b"\tgame: pong",
    "a list": b"- game\n- pong\n",
    "a word": b"pong",
    "unknown key": b"game: pong\ngmae: pong\n",
    "no game": b"param: wn\n",
    "wrong type": b"game: pong\nlearning: 5\n",
    "wrong value": b"game: pong\nlearning:\n  discount: 2.0\n",
    "lines": b'game: pong\nparam: "a\\nb"\n',
    "an object": b"game: !!python/object/apply:os.system [ls]\n",
    "zero bytes": b"game: pong\0\n",
    "no key": b"{[1]: 2}",
    "number keys": b"1: 2\n",
    "a date": b"game: 2020-99-99\n",
    "twice": b"game: pong\ngame: pong\n",
}


BAD_TAG = pytest.param(
    b"game: !!bool pong\n",
    id="a wrong tag",
)


@pytest.mark.parametrize("data", [*(pytest.param(data, id=name) for name, data in DAMAGES.items()), BAD_TAG])
def test_damaged_settings_are_refused_in_one_line(data: bytes, run: RunDirectory) -> None:
    (run.path / "config.yaml").write_bytes(data)
    assert str(run.path) in usage_error(run.read_settings)


def test_no_settings_are_refused_in_one_line(run: RunDirectory) -> None:
    assert "not a run directory" in usage_error(run.read_settings)
    assert "not a run directory" in usage_error(RunDirectory(run.path / "nowhere").read_settings)
    (run.path / "config.yaml").mkdir()
    assert "not a run directory" in usage_error(run.read_settings)
    assert not run.exists


def test_mutated_settings_are_refused_or_read(run: RunDirectory, some_settings: Settings) -> None:
    """Nothing but UsageError, wherever a byte has changed."""
    run.write_settings(some_settings.model_dump())
    path = run.path / "config.yaml"
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(data)
        at = rng.integers(len(data))
        damaged[at] = rng.integers(256) if rng.random() < 0.3 else rng.choice(list(b"0123\n\t :-[]{}&*!|>'\"%@`#,?"))
        path.write_bytes(damaged)
        try:
            outcomes.add(type(run.read_settings()))
        except UsageError as error:
            outcomes.add(UsageError)
            message = str(error)
        else:
            continue
        assert str(run.path) in message
        assert len(message.splitlines()) == 1
    assert outcomes == {Settings, UsageError}


def test_status_comes_back(run: RunDirectory) -> None:
    assert run.read_status() == {}
    run.write_status("running", steps=5)
    run.write_status("finished", steps=7, error=None)
    status = run.read_status()
    assert status.pop("time")
    assert status == {"status": "finished", "steps": 7, "error": None}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"\xff",
        pytest.param(b"[" * 100_000),
    ],
)
def test_a_damaged_status_is_none(data: bytes, run: RunDirectory) -> None:
    (run.path / "status.json").write_bytes(data)
    assert run.read_status() == {}


def test_every_start_adds_its_provenance(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the environment only what is known to be harmless."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SOME_API_TOKEN", "hunter2")
    for number in (1, 2):
        run.add_provenance(torch.device("cpu"))
        text = (run.path / "provenance.json").read_text()
        assert "hunter2" not in text
        entries = json.loads(text)
        assert len(entries) == number
    assert entries[1]["environment"]["OMP_NUM_THREADS"] == "3"
    assert entries[1]["versions"]["torch"] == torch.__version__
    assert entries[1]["command"] == sys.argv


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[{",
        b"\xff",
        pytest.param(b"null"),
        pytest.param(b"5"),
        pytest.param(b'{"a": 1}'),
    ],
)
def test_a_damaged_provenance_is_begun_anew(data: bytes, run: RunDirectory) -> None:
    (run.path / "provenance.json").write_bytes(data)
    run.add_provenance(torch.device("cpu"))
    (entry,) = json.loads((run.path / "provenance.json").read_bytes())
    assert entry["versions"]["python"] == sys.version.split()[0]


def test_checkpoints_are_found_by_name(run: RunDirectory) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        run.find_checkpoint("best")
    paths = [save_checkpoint(run.checkpoints, steps, {}, None) for steps in (5, 100)]
    assert run.find_checkpoint("best").path == paths[1], "without an evaluation the newest will do"
    paths += [
        save_checkpoint(run.checkpoints, steps, {}, score) for steps, score in [(200, 8.0), (200, None), (300, 1.0)]
    ]
    found = {name: run.find_checkpoint(name).path for name in ("last", "best", "5", "100", "200", "0000300")}
    assert found == {
        "last": paths[4],
        "best": paths[2],
        "5": paths[0],
        "100": paths[1],
        "200": paths[3],
        "0000300": paths[4],
    }


@pytest.mark.parametrize(
    "name",
    ["", "201", "newest", "-5", "5.0", "../x", *(pytest.param(x) for x in ("²", "9" * 5000))],
)
def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(name: str, run: RunDirectory) -> None:
    for steps in (5, 200, 200):
        save_checkpoint(run.checkpoints, steps, {}, None)
    with pytest.raises(CheckpointError) as caught:
        run.find_checkpoint(name)
    assert repr(name) in str(caught.value)
    assert str(caught.value).endswith("valid: best, last, 5, 200")
