"""Output files of commands. A file that this program did not write is never overwritten."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from wn_dqn.errors import UsageError
from wn_dqn.system.durable import open_file, write_durably

MARK = "made by wn_dqn"
"""mark in files of all formats with comments"""
# By format: a text in the first kilobyte of every such file, and one at the start or end of files of this program.
_SIGNS = {
    "png": (b"\x89PNG\r\n", MARK.encode()),
    "svg": (b"<svg", MARK.encode()),
    "pdf": (b"%PDF-", MARK.encode()),
    "html": (b"<html", b'content="wn_dqn"'),
    "gif": (b"GIF8", MARK.encode()),
    "webm": (b"\x1aE\xdf\xa3", MARK.encode()),
    "mp4": (b"ftyp", MARK.encode()),
}
_SEARCHED_BYTES = 2**16


def require_writable(path: Path, formats: Collection[str]) -> str:
    """The format of the file's extension. Raises UsageError if it cannot be written, or is another program's file."""
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in formats:
        raise UsageError(f"{path} must end with {' or '.join(f'.{name}' for name in formats)}")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
    require_ours(path, file_format)
    return file_format


def require_ours(path: Path, file_format: str) -> None:
    """Raise UsageError unless `path` is missing, empty, or a file of this format with the mark of this program."""
    ends = read_ends(path)
    sign, mark = _SIGNS[file_format]
    if any(ends) and (sign not in ends[0][:1024] or not any(mark in end for end in ends)):
        raise UsageError(f"{path} is there, and wn-dqn did not make it; choose another name, or remove it first")


def read_ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file; empty if there is none. Raises UsageError if it is not writable."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    try:
        with open_file(path, "rb") as file:
            beginning = file.read(_SEARCHED_BYTES)
            file.seek(max(file.seek(0, os.SEEK_END) - _SEARCHED_BYTES, 0))
            return beginning, file.read(_SEARCHED_BYTES)
    except FileNotFoundError:
        return b"", b""
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def write(path: Path, data: bytes) -> None:
    """Replace the file atomically. Raises UsageError if it cannot be written."""
    try:
        write_durably(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
