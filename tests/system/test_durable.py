"""Writing that leaves the old content or the new one, and a file whose pieces wait for a full disk."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections import Counter
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wn_dqn.system import durable
from wn_dqn.system.durable import (
    GrowingFile,
    append_line,
    remove_leftovers,
    replacing,
    replacing_by_name,
    temporary_path,
    write_durably,
)


def test_write_durably_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="full"):
            write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


PROCESSES, LINES = 4, 50


class InPieces(FileIO):
    """A file that takes a few bytes at a time, as the system may, and lets others run after each."""

    def write(self, data: Any) -> int:
        written = super().write(data[:7])
        time.sleep(0)
        return written


def append_often(path: Path, process: int, all_ready: Any) -> None:
    """Runs in a process of its own, where it may replace what it likes."""
    durable.open_file = lambda path, mode: InPieces(path, mode)
    all_ready.wait()
    for number in range(LINES):
        append_line(path, f"{process} {number} " + "x" * number)


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    """Every line is there once, whole, in its process's order; none is empty. The one that was cut stays alone."""
    path = tmp_path / "lines"
    path.write_text("cut")
    context = multiprocessing.get_context("spawn")
    all_ready = context.Barrier(PROCESSES)
    workers = [context.Process(target=append_often, args=(path, process, all_ready)) for process in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    first, *lines, end = path.read_text().split("\n")
    assert (first, end) == ("cut", "")
    seen: Counter[str] = Counter()
    for line in lines:
        found = re.fullmatch(r"(\d) (\d+) (x*)", line)
        assert found is not None, line
        process, number, xs = found.groups()
        assert (int(number), len(xs)) == (seen[process], int(number))
        seen[process] += 1
    assert seen == {str(process): LINES for process in range(PROCESSES)}


@pytest.mark.survives(
    "a disk that is full when the record of a test is written",
    "no half line is kept, and one line says so",
)
def test_a_line_that_a_full_disk_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    disk = Disk(monkeypatch)
    disk.room_bytes = 2
    with pytest.raises(OSError, match="No space left"):
        append_line(path, "two")
    disk.room_bytes = 10
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"


class Disk:
    """A disk that fills up: it takes `room_bytes` more, in part if it must, and can refuse an fsync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room_bytes = 10**9
        self.refuses_fsync = False
        self._open, self._fsync = durable.open_file, os.fsync
        monkeypatch.setattr(durable, "open_file", lambda *args: LimitedFile(self, self._open(*args)))
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        if self.refuses_fsync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fsync(descriptor)


class LimitedFile:
    """A file on a Disk."""

    def __init__(self, disk: Disk, file: Any) -> None:
        self._disk, self._file = disk, file

    def __enter__(self) -> LimitedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        fits = min(len(data), self._disk.room_bytes)
        if fits == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._disk.room_bytes -= fits
        return int(self._file.write(data[:fits]))


@given(
    actions=st.lists(
        st.tuples(st.sampled_from(["append", "append", "sync", "crash"]), st.integers(0, 30), st.booleans()),
        max_size=12,
    )
)
@example(actions=[("append", 3, True), ("append", 30, True), ("sync", 0, True)])  # written in part, then whole
@example(actions=[("append", 30, True), ("sync", 30, False), ("append", 30, True), ("sync", 30, True)])
def test_a_growing_file_holds_whole_pieces_and_all_that_were_synced(
    actions: list[tuple[str, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the disk refuses: what is on it is a beginning of the pieces, cut between two; after a sync, all."""
    path = tmp_path_factory.mktemp("disk") / "file"
    with pytest.MonkeyPatch.context() as patch:
        disk, file = Disk(patch), GrowingFile(path)
        pieces: list[bytes] = []
        synced = 0
        for number, (action, room_bytes, works) in enumerate(actions):
            disk.room_bytes, disk.refuses_fsync = room_bytes, not works
            if action == "append":
                pieces.append(b"%03d," % number * (1 + number % 3))
                file.append(pieces[-1])
            elif action == "crash":  # all that is known afterwards is what was synced
                del pieces[synced:]
                if path.exists():
                    os.truncate(path, sum(map(len, pieces)))
                file = GrowingFile(path)
            else:
                with contextlib.suppress(OSError):
                    file.sync()
                    synced = len(pieces)
            content = path.read_bytes() if path.exists() else b""
            assert content in [b"".join(pieces[:count]) for count in range(synced, len(pieces) + 1)]
            assert file.length_bytes == sum(map(len, pieces))
            assert (content == b"".join(pieces)) or file.error is not None
    file.sync()
    assert path.read_bytes() == b"".join(pieces)
    assert file.error is None


def test_pieces_that_an_fsync_refused_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have dropped them, though it took them before."""
    file = GrowingFile(tmp_path / "file")
    file.append(b"first,")
    file.sync()
    file.append(b"second,")

    def lose(descriptor: int) -> None:
        os.ftruncate(descriptor, len(b"first,"))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", lose)
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
    file.append(b"third,")
    assert (tmp_path / "file").read_bytes() == b"first,second,third,"


def test_a_piece_written_in_part_goes_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the disk, when it was full, could not even take it away."""
    file = GrowingFile(tmp_path / "file")
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        disk.room_bytes = 3
        patch.setattr(durable.os, "ftruncate", lambda *_: disk.fsync(-1))
        disk.refuses_fsync = True
        file.append(b"first,")
    assert (tmp_path / "file").read_bytes() == b"fir"
    file.append(b"second,")
    assert (tmp_path / "file").read_bytes() == b"first,second,"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_line_over_the_limit_of_a_files_size_leaves_nothing(tmp_path: Path) -> None:
    """The system takes the first bytes of it, and refuses the rest."""
    program = """
import resource, sys
from pathlib import Path
from wn_dqn.system.durable import append_line
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
append_line(Path(sys.argv[1]), "x" * 60)
try:
    append_line(Path(sys.argv[1]), "y" * 60)
except OSError:
    sys.exit(3)
"""
    path = tmp_path / "lines"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 3
    assert path.read_text() == "x" * 60 + "\n"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A file is replaced where it stands; one that grows is refused; temporary names are never twice the same."""
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"mine")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        GrowingFile(path)
    write_durably(path, b"new")
    assert (victim.read_bytes(), path.read_bytes(), path.is_symlink()) == (b"mine", b"new", False)
    assert len({temporary_path(path) for _ in range(100)}) == 100


def test_a_write_that_is_broken_off_leaves_nothing_temporary(tmp_path: Path) -> None:
    for replace in (replacing, replacing_by_name):
        with pytest.raises(KeyboardInterrupt), replace(tmp_path / "file"):
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """Those of this version and of earlier ones; not the files, folders and links that others named alike."""
    ours = [temporary_path(tmp_path / "segment-00000001.arrays"), tmp_path / ".tail-0000000000-0000000009.arrays.tmp"]
    folders = [temporary_path(tmp_path / "step-0000000009"), tmp_path / ".step-0000000009.0001.tmp"]
    for path in (*ours, tmp_path / ".mine.tmp", tmp_path / "segment-00000001.arrays"):
        path.write_bytes(b"x")
    for path in (*folders, tmp_path / ".my folder.tmp"):
        path.mkdir()
        (path / "file").touch()
    remove_leftovers(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".mine.tmp", ".my folder.tmp", "segment-00000001.arrays"]
