"""Files that a command writes for a person: a file that this program did not make is never overwritten."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from wn_dqn.errors import UsageError
from wn_dqn.system.durable import open_file, write_durably

MARK = "made by wn_dqn"
"""stands in files of every kind that can hold a comment"""
# What stands in the first kilobyte of a file of each kind, and what in its beginning or end if this program made it.
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
    """The format that the name of the file asks for; UsageError if it cannot be written, or another's file is there."""
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in formats:
        raise UsageError(f"{path} must end with {' or '.join(f'.{name}' for name in formats)}")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
    require_ours(path, file_format)
    return file_format


def require_ours(path: Path, file_format: str) -> None:
    """UsageError unless `path` is free, empty, or a file of this format that bears the mark of this program."""
    ends = read_ends(path)
    sign, mark = _SIGNS[file_format]
    if any(ends) and (sign not in ends[0][:1024] or not any(mark in end for end in ends)):
        raise UsageError(f"{path} is there, and wn-dqn did not make it; choose another name, or remove it first")


def read_ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file, empty if there is none; UsageError if it is no file to be written to."""
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
    """The old file or the whole new one; UsageError if the disk refuses."""
    try:
        write_durably(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
