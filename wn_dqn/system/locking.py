"""Locks between processes. The system itself drops them when the holder dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

# A link is never followed, and a pipe never waited for. Systems lack some of these flags.
_FLAGS = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class InUseError(Exception):
    """Somebody else holds the lock; the message names the holder."""


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`. It is made if it is missing, it names its holder, and it stays when the lock is free.

    If the lock is held, here or in another process, `wait` until it is free; without `wait`, raise InUseError.
    OSError if `path` cannot be opened, is a link or no regular file, or if its file system has no locks.
    """
    descriptor = _locked_descriptor(path, wait=wait)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the name
            _write_holder(descriptor)
        yield
    finally:
        _release(descriptor)


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold `folder` itself, if the system can lock folders: unlike a lock file, nobody can remove it from its holder.

    InUseError if the lock is held, here or in another process.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows. There, nobody can remove a lock file while it is open.
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # NFS locks only what is open for writing, which a folder cannot be. The lock file has to do there.
        with contextlib.suppress(OSError):
            if not lock_descriptor(descriptor, blocking=False):
                raise InUseError("another process")
        yield
    finally:
        _release(descriptor)


def _locked_descriptor(path: Path, *, wait: bool) -> int:
    while True:
        descriptor = os.open(path, _FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "Not a regular file", str(path))
            if not lock_descriptor(descriptor, blocking=wait, poll_interval=0.01):
                raise InUseError(_read_holder(descriptor))
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the file was removed before it was locked; others will lock the new one


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the open file."""
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(descriptor: int) -> None:
    try:
        with contextlib.suppress(OSError):  # never locked; see hold_folder
            unlock_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _write_holder(descriptor: int) -> None:
    if os.fstat(descriptor).st_nlink == 1:  # under another name it may be a file of somebody else
        os.ftruncate(descriptor, 0)
        # On Windows nobody else can read the first byte while it is locked. It is one that no reader needs.
        os.write(descriptor, f"\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())


def _read_holder(descriptor: int) -> str:
    for start in (0, 1):
        with contextlib.suppress(OSError):
            os.lseek(descriptor, start, os.SEEK_SET)
            text = os.read(descriptor, 500).decode(errors="replace")
            return "".join(filter(str.isprintable, text)).strip() or "another process"
    return "another process"
