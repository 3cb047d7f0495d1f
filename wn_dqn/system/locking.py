"""Locks between processes. The operating system releases them when the holder ends for any reason."""

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

# Do not follow links, and do not block on pipes. Some systems lack some of these flags.
_FLAGS = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class InUseError(Exception):
    """Another process holds the lock. The message names it."""


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`. It is created if it is missing, contains the holder's name, and is never removed.

    If the lock is held, here or in another process, `wait` waits until it is free. Without `wait`, raises InUseError.
    Raises OSError if `path` cannot be opened, is not a regular file, or if its file system has no locks.
    """
    descriptor = _locked_descriptor(path, wait=wait)
    try:
        with contextlib.suppress(OSError):  # the disk may be full; the lock works without the name
            _write_holder(descriptor)
        yield
    finally:
        _release(descriptor)


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Lock `folder` itself, if the system can lock folders. Unlike a lock file, it cannot be removed while in use.

    Raises InUseError if the lock is held, here or in another process.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows, where an open lock file cannot be removed
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # NFS locks only files that are open for writing, which a folder cannot be. There only the lock file is used.
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
        os.close(descriptor)  # the file was removed before it was locked, and others would lock a new one


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
    if os.fstat(descriptor).st_nlink == 1:  # with a second name, it may be another user's file
        os.ftruncate(descriptor, 0)
        # On Windows the first byte cannot be read while it is locked. So it is a newline, which readers do not need.
        os.write(descriptor, f"\nprocess {os.getpid()} on {socket.gethostname()}\n".encode())


def _read_holder(descriptor: int) -> str:
    for start in (0, 1):
        with contextlib.suppress(OSError):
            os.lseek(descriptor, start, os.SEEK_SET)
            text = os.read(descriptor, 500).decode(errors="replace")
            return "".join(filter(str.isprintable, text)).strip() or "another process"
    return "another process"
