"""Locks: one holder at a time, whoever removes the file, and none that outlives its process."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wn_dqn.system import locking
from wn_dqn.system.locking import InUseError, hold, hold_folder

HOLDER = """
import sys
from pathlib import Path
from wn_dqn.system.locking import hold
with hold(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
ME = f"process {os.getpid()} on {socket.gethostname()}"
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed on Windows")


def is_free(path: Path) -> bool:
    try:
        with hold(path):
            return True
    except InUseError:
        return False


def test_there_is_one_holder_at_a_time_and_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path):
        for _ in range(2):
            with pytest.raises(InUseError, match=f"^{re.escape(ME)}$"), hold(path):
                pass
    assert is_free(path)
    assert path.exists()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(InUseError, match=f"^process {holder.pid} on "), hold(path):
            pass
        holder.kill()
    assert is_free(path)


def count(folder: Path) -> None:
    """Count to a hundred, in a file in which others count at the same time."""
    path = folder / "counter"
    for _ in range(100):
        with hold(folder / "lock", wait=True):
            path.write_bytes(b"%d" % (int(path.read_bytes()) + 1))


def test_those_who_wait_get_it_in_turn(tmp_path: Path) -> None:
    """Processes that were spawned, each with several threads, lose nothing of what the others did."""
    (tmp_path / "counter").write_bytes(b"0")
    threads = [threading.Thread(target=count, args=(tmp_path,)) for _ in range(2)]
    processes = [multiprocessing.get_context("spawn").Process(target=count, args=(tmp_path,)) for _ in range(2)]
    for each in (*threads, *processes):
        each.start()
    for each in (*threads, *processes):
        each.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "counter").read_bytes() == b"400"


@posix_only
def test_a_file_that_is_removed_while_it_is_opened_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: once another one takes its place, once none does."""
    path, original = tmp_path / "lock", locking.lock_descriptor
    removals = [lambda: (path.unlink(), path.touch()), path.unlink]

    def lock_descriptor(descriptor: int, *, blocking: bool, poll_interval: float) -> bool:
        if removals:
            removals.pop(0)()
        return original(descriptor, blocking=blocking, poll_interval=poll_interval)

    monkeypatch.setattr(locking, "lock_descriptor", lock_descriptor)
    with hold(path):
        assert not is_free(path)
    assert removals == []


@posix_only
def test_a_folder_stays_locked_when_its_files_are_removed_and_it_is_renamed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with hold_folder(folder):
        folder.rename(tmp_path / "moved")
        with pytest.raises(InUseError, match=r"^another process$"), hold_folder(tmp_path / "moved"):
            pass
    with hold_folder(tmp_path / "moved"):
        pass


@posix_only
def test_a_file_system_that_locks_no_folder_leaves_it_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does."""

    def lock_descriptor(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(locking, "lock_descriptor", lock_descriptor)
    with hold_folder(tmp_path):
        pass


@posix_only
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "thesis.tex", tmp_path / "lock"
    victim.write_bytes(b"mine")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), hold(path):
        pass
    path.unlink()
    path.hardlink_to(victim)
    with hold(path):
        assert not is_free(path)
    assert victim.read_bytes() == b"mine"


@posix_only
def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"), hold(tmp_path / "pipe"):
        pass
    with pytest.raises(OSError, match="directory"), hold(tmp_path):
        pass


def test_a_full_disk_costs_the_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"process 1 on a host of long ago\n")

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    with hold(path), pytest.raises(InUseError, match=r"^another process$"), hold(path):
        pass


@pytest.mark.parametrize(
    ("content", "first_byte_is_locked", "name"),
    [
        (b"process 5 on a\n", False, "process 5 on a"),  # as earlier versions wrote it
        (b"\nprocess 5 on a\n", False, "process 5 on a"),
        (b"\nprocess 5 on a\n", True, "process 5 on a"),  # as Windows locks: others cannot read it
        (b"", False, "another process"),
        (b"\n\x1b[31mprocess\xff 5\n", False, "[31mprocess\ufffd 5"),
    ],
)
def test_the_name_of_the_holder_is_read(
    content: bytes, first_byte_is_locked: bool, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, original = tmp_path / "lock", os.read
    path.write_bytes(content)

    def read(descriptor: int, length: int) -> bytes:
        if first_byte_is_locked and os.lseek(descriptor, 0, os.SEEK_CUR) == 0:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(descriptor, length)

    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(locking, "lock_descriptor", lambda *_args, **_kwargs: False)
    with pytest.raises(InUseError) as caught, hold(path):
        pass
    assert str(caught.value) == name
