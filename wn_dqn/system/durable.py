"""Writing that a crash, a power cut or a full disk leaves whole: the old content or the new one, nothing between."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from wn_dqn.system.locking import hold


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, fsync, and rename: `path` is the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:  # a full disk: leave it no fuller
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut, if the system can open folders (Windows cannot)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append `line` and a newline, durably, to a file that other processes append to, too; OSError if it cannot be.

    A line that another process left unfinished stays alone, and a disk that fills up is left no fuller.
    """
    # A file beside it is locked: on Windows, nobody can read what is locked.
    with hold(path.with_name(f".{path.name}.lock"), wait=True), path.open("ab+", buffering=0) as file:
        end_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(end_bytes - 1, 0))
        newline = "" if file.read(1) in (b"", b"\n") else "\n"
        rest = f"{newline}{line}\n".encode()
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end_bytes)
            raise


class GrowingFile:
    """A file that only grows, piece by piece. A piece that a full disk refuses is kept, and written when there is room.

    Everything since the last `sync` is kept: a disk may take a write and lose it in the fsync, and then it is written
    again. Nobody else may write to the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        """why the last attempt to write failed; None if it did not"""
        self._synced_bytes = path.stat().st_size if path.exists() else 0
        self._tail = bytearray()  # what follows the synced part
        self._written_bytes = 0  # of the tail

    @property
    def length_bytes(self) -> int:
        """Of all pieces, whether they could be written or not."""
        return self._synced_bytes + len(self._tail)

    def append(self, piece: bytes) -> None:
        """Add `piece` to the file, or keep it if the disk refuses: see `error`."""
        self._tail += piece
        with contextlib.suppress(OSError):
            self._write(durably=False)

    def sync(self) -> None:
        """Make all pieces survive a power cut; OSError if they cannot be written."""
        self._write(durably=True)
        self._synced_bytes, self._written_bytes = self.length_bytes, 0
        self._tail.clear()

    def _write(self, *, durably: bool) -> None:
        whole_bytes = self._synced_bytes + self._written_bytes
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.tell() > whole_bytes:
                    file.truncate(whole_bytes)  # a piece that was written in part
                rest = bytes(self._tail[self._written_bytes :])
                while rest:
                    rest = rest[file.write(rest) :]
                if durably:
                    os.fsync(file.fileno())
                    fsync_folder(self.path.parent)
        except OSError as error:
            self.error = error
            if durably:  # what an fsync refused may be lost, though it was written
                self._written_bytes = 0
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._synced_bytes + self._written_bytes)
            raise
        self.error, self._written_bytes = None, len(self._tail)
