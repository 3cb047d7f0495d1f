"""Durable, atomic writes: after a crash, a power cut or a full disk, a file has its old content or the new one.

This program writes all files through this module. It follows no links and does not block on pipes. Temporary names are
random, so that nobody can prepare a file under one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from wn_dqn.errors import RunError
from wn_dqn.system.locking import hold

# Some systems lack some of these flags.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK"))
# The names of earlier versions had no number that cannot be guessed.
TEMPORARY = re.compile(
    r"\..*\.[0-9a-f]{16}\.tmp|\.step-\d{10}(\.\d{4})?\.tmp"
    r"|\.(segment-\d{8}|tail-\d{10}-\d{10}|held_out)\.arrays\.tmp",
    re.DOTALL,
)
"""the names that :func:`temporary_path` gives"""
_BLOCK_BYTES = 2**20
_ENDING_BYTES = 64


def open_file(path: Path, mode: Literal["rb", "xb", "r+b", "ab+"]) -> io.FileIO:
    """Open a regular file without a buffer. Raises OSError if `path` is a link, or anything else than a file.

    `mode` is that of :func:`open`. Only "xb" and "ab+" create a file.
    """
    file = io.FileIO(path, mode, opener=lambda name, flags: os.open(name, flags | _FLAGS, 0o666))
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def write_all(file: io.FileIO, data: bytes | memoryview) -> None:
    """Write every byte of `data`. Raises OSError if that fails."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def temporary_path(path: Path) -> Path:
    """A new, random name in the folder of `path`."""
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")


def is_own_file(path: Path, name: re.Pattern[str]) -> bool:
    """Whether `path` is a regular file, not a link, whose whole name matches `name`. Such a file may be removed."""
    return name.fullmatch(path.name) is not None and stat.S_ISREG(path.lstat().st_mode)


def is_own_folder(path: Path, name: re.Pattern[str]) -> bool:
    """Whether `path` is a folder, not a link, whose whole name matches `name`. Such a folder may be removed."""
    return name.fullmatch(path.name) is not None and stat.S_ISDIR(path.lstat().st_mode)


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete files from `folder`, which a process left when it was killed."""
    for path in folder.glob(".*.tmp"):
        if is_own_folder(path, TEMPORARY):
            shutil.rmtree(path)
        elif is_own_file(path, TEMPORARY):
            path.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[io.FileIO]:
    """A new file to write, which replaces `path` at the end of the context. The replacement is atomic.

    If an exception is raised inside, the new file is removed and `path` does not change.
    """
    temporary = temporary_path(path)
    file = open_file(temporary, "xb")
    try:
        with file:
            yield file
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # the disk may be full: remove the partial file
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


@contextlib.contextmanager
def replacing_by_name(path: Path) -> Iterator[Path]:
    """As :func:`replacing`, for a writer that needs a path: it is in a new folder that no other user can enter."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:50]}.", suffix=".tmp", dir=path.parent) as folder:
        inner = Path(folder) / path.name
        yield inner
        inner.replace(path)


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, fsync, and rename. `path` is the old file or the complete new one."""
    with replacing(path) as file:
        write_all(file, data)


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
    """Append `line` and a newline, durably, to a file to which other processes append, too. Raises OSError on failure.

    After an incomplete line of another process, a new line is started. On a full disk, the partial line is removed.
    """
    # Lock a separate file: on Windows, a locked file cannot be read.
    with hold(path.with_name(f".{path.name}.lock"), wait=True), open_file(path, "ab+") as file:
        end_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(end_bytes - 1, 0))
        newline = "" if file.read(1) in (b"", b"\n") else "\n"
        try:
            write_all(file, f"{newline}{line}\n".encode())
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end_bytes)
            raise


def cut_back(path: Path, length_bytes: int) -> None:
    """Truncate a file that is longer than `length_bytes`. Raises OSError if it is not a regular file."""
    with open_file(path, "r+b") as file:
        if os.fstat(file.fileno()).st_size > length_bytes:
            os.ftruncate(file.fileno(), length_bytes)


class GrowingFile:
    """A file that only grows, piece by piece. If the disk is full, a piece is kept in memory and written later.

    Everything since the last `sync` is kept, because a disk may accept a write and lose it in the fsync. Then it is
    written again. No other program may write to the file. `append` and `sync` raise RunError if it was replaced,
    truncated or removed, or if its last bytes differ from those that were written.
    """

    def __init__(self, path: Path) -> None:
        """Continue the file at `path`, if it exists. Raises OSError if it is unreadable or not a regular file."""
        self.path = path
        self.error: OSError | None = None
        """why the last attempt to write failed; None if it did not"""
        self.crc32 = 0
        """CRC-32 of all pieces, written or not"""
        self._file_id: os.stat_result | None = None  # of the file on disk; None until it is created
        self._synced_bytes = 0
        self._synced_ending = b""
        self._tail = bytearray()  # the bytes after the synced part
        self._written_bytes = 0  # of the tail
        with contextlib.suppress(FileNotFoundError), open_file(path, "rb") as file:
            self._file_id = os.fstat(file.fileno())
            while block := file.read(_BLOCK_BYTES):
                self.crc32 = zlib.crc32(block, self.crc32)
                self._synced_bytes += len(block)
                self._synced_ending = (self._synced_ending + block)[-_ENDING_BYTES:]

    @property
    def length_bytes(self) -> int:
        """The length of all pieces, written or not."""
        return self._synced_bytes + len(self._tail)

    def append(self, piece: bytes) -> None:
        """Append `piece` to the file, or keep it in memory if that fails; see `error`."""
        self._tail += piece
        self.crc32 = zlib.crc32(piece, self.crc32)
        with contextlib.suppress(OSError):
            self._write(durably=False)

    def sync(self) -> None:
        """Write all pieces durably, so that they survive a power cut. Raises OSError if that fails."""
        self._write(durably=True)
        self._synced_ending = self._ending(len(self._tail))
        self._synced_bytes, self._written_bytes = self.length_bytes, 0
        self._tail.clear()

    def _ending(self, tail_bytes: int) -> bytes:
        """The last bytes of the synced part, and `tail_bytes` of the tail."""
        return (self._synced_ending + self._tail[max(tail_bytes - _ENDING_BYTES, 0) : tail_bytes])[-_ENDING_BYTES:]

    def _write(self, *, durably: bool) -> None:
        try:
            with self._open() as file:
                self._require_unchanged(file)
                try:
                    write_all(file, bytes(self._tail[self._written_bytes :]))
                    if durably:
                        os.fsync(file.fileno())
                        fsync_folder(self.path.parent)
                except OSError:
                    if durably:  # data may be lost after a failed fsync, although it was written
                        self._written_bytes = 0
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), self._synced_bytes + self._written_bytes)
                    raise
        except OSError as error:
            self.error = error
            raise
        self.error, self._written_bytes = None, len(self._tail)

    def _open(self) -> io.FileIO:
        """Open the file on disk. It is created if it has never existed."""
        if self._file_id is None:
            file = open_file(self.path, "xb")
            self._file_id = os.fstat(file.fileno())
            return file
        try:
            return open_file(self.path, "r+b")
        except FileNotFoundError:
            raise self._changed("removed") from None

    def _require_unchanged(self, file: io.FileIO) -> None:
        """Move to the end of the written part, and remove a partially written piece."""
        assert self._file_id is not None
        whole_bytes, now = self._synced_bytes + self._written_bytes, os.fstat(file.fileno())
        if not os.path.samestat(now, self._file_id):
            raise self._changed("replaced")
        if now.st_size < whole_bytes:
            raise self._changed("shortened")
        if not whole_bytes and not now.st_size:
            return
        ending = self._ending(self._written_bytes)
        file.seek(whole_bytes - len(ending))
        if ending and file.read(len(ending)) != ending:
            raise self._changed("overwritten")
        if now.st_size > whole_bytes:
            os.ftruncate(file.fileno(), whole_bytes)

    def _changed(self, how: str) -> RunError:
        return RunError(
            f"{self.path} was {how} by another program while it was being written; put it back, and the same "
            "command goes on from the last checkpoint"
        )
