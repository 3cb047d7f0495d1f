"""Writing that a crash, a power cut or a full disk leaves whole: the old content or the new one, nothing between.

Everything that this program writes goes through here. No link is followed, no pipe is waited for, and temporary names
are new ones that nobody can guess: a file that was planted under one is never touched.
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

# Systems lack some of these flags.
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
    """Open a regular file without a buffer. OSError if `path` is a link or anything else than a file.

    `mode` is that of :func:`open`: only "xb" and "ab+" make a file.
    """
    file = io.FileIO(path, mode, opener=lambda name, flags: os.open(name, flags | _FLAGS, 0o666))
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def write_all(file: io.FileIO, data: bytes | memoryview) -> None:
    """Write every byte of `data`; OSError if one is refused."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def temporary_path(path: Path) -> Path:
    """A new name beside `path` that nobody can guess."""
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")


def is_own_file(path: Path, name: re.Pattern[str]) -> bool:
    """Whether `path` is a regular file, and no link, whose whole name is such a `name`: one that may be removed."""
    return name.fullmatch(path.name) is not None and stat.S_ISREG(path.lstat().st_mode)


def is_own_folder(path: Path, name: re.Pattern[str]) -> bool:
    """Whether `path` is a folder, and no link to one, whose whole name is such a `name`: one that may be removed."""
    return name.fullmatch(path.name) is not None and stat.S_ISDIR(path.lstat().st_mode)


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that died left half-written in `folder`."""
    for path in folder.glob(".*.tmp"):
        if is_own_folder(path, TEMPORARY):
            shutil.rmtree(path)
        elif is_own_file(path, TEMPORARY):
            path.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[io.FileIO]:
    """A new file to write, which becomes `path` at the end of the context: `path` is the old file or the whole new one.

    If anything is raised within, the new file is removed and `path` stays as it was.
    """
    temporary = temporary_path(path)
    file = open_file(temporary, "xb")
    try:
        with file:
            yield file
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a full disk: leave it no fuller
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


@contextlib.contextmanager
def replacing_by_name(path: Path) -> Iterator[Path]:
    """As :func:`replacing`, for a writer that wants a name: one in a new folder that nobody else may enter."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:50]}.", suffix=".tmp", dir=path.parent) as folder:
        inner = Path(folder) / path.name
        yield inner
        inner.replace(path)


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, fsync, and rename: `path` is the old file or the whole new one."""
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
    """Append `line` and a newline, durably, to a file that other processes append to, too; OSError if it cannot be.

    A line that another process left unfinished stays alone, and a disk that fills up is left no fuller.
    """
    # A file beside it is locked: on Windows, nobody can read what is locked.
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
    """Cut a file that grew past `length_bytes`; OSError if it is no regular file."""
    with open_file(path, "r+b") as file:
        if os.fstat(file.fileno()).st_size > length_bytes:
            os.ftruncate(file.fileno(), length_bytes)


class GrowingFile:
    """A file that only grows, piece by piece. A piece that a full disk refuses is kept, and written when there is room.

    Everything since the last `sync` is kept: a disk may take a write and lose it in the fsync, and then it is written
    again. Nobody else may write to the file: RunError from `append` and `sync` if it was replaced, shortened or
    removed, or ends in other bytes than those that were written.
    """

    def __init__(self, path: Path) -> None:
        """Go on with the file at `path`, if there is one; OSError if it cannot be read or is no regular file."""
        self.path = path
        self.error: OSError | None = None
        """why the last attempt to write failed; None if it did not"""
        self.crc32 = 0
        """of all pieces, whether they could be written or not"""
        self._file_id: os.stat_result | None = None  # of the file on the disk; None until it is made
        self._synced_bytes = 0
        self._synced_ending = b""
        self._tail = bytearray()  # what follows the synced part
        self._written_bytes = 0  # of the tail
        with contextlib.suppress(FileNotFoundError), open_file(path, "rb") as file:
            self._file_id = os.fstat(file.fileno())
            while block := file.read(_BLOCK_BYTES):
                self.crc32 = zlib.crc32(block, self.crc32)
                self._synced_bytes += len(block)
                self._synced_ending = (self._synced_ending + block)[-_ENDING_BYTES:]

    @property
    def length_bytes(self) -> int:
        """Of all pieces, whether they could be written or not."""
        return self._synced_bytes + len(self._tail)

    def append(self, piece: bytes) -> None:
        """Add `piece` to the file, or keep it if the disk refuses: see `error`."""
        self._tail += piece
        self.crc32 = zlib.crc32(piece, self.crc32)
        with contextlib.suppress(OSError):
            self._write(durably=False)

    def sync(self) -> None:
        """Make all pieces survive a power cut; OSError if they cannot be written."""
        self._write(durably=True)
        self._synced_ending = self._ending(len(self._tail))
        self._synced_bytes, self._written_bytes = self.length_bytes, 0
        self._tail.clear()

    def _ending(self, tail_bytes: int) -> bytes:
        """The last bytes of the synced part and so many bytes of the tail."""
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
                    if durably:  # what an fsync refused may be lost, though it was written
                        self._written_bytes = 0
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), self._synced_bytes + self._written_bytes)
                    raise
        except OSError as error:
            self.error = error
            raise
        self.error, self._written_bytes = None, len(self._tail)

    def _open(self) -> io.FileIO:
        """The file on the disk, which is made if it never was."""
        if self._file_id is None:
            file = open_file(self.path, "xb")
            self._file_id = os.fstat(file.fileno())
            return file
        try:
            return open_file(self.path, "r+b")
        except FileNotFoundError:
            raise self._changed("removed") from None

    def _require_unchanged(self, file: io.FileIO) -> None:
        """Move to the end of what was written. A piece that was written in part is taken away."""
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
