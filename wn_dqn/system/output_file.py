"""Files that a command writes for a person: nothing but an older file of the same kind is ever overwritten."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wn_dqn.errors import UsageError
from wn_dqn.system.durable import write_durably

# How files of each kind begin, or what stands in their first kilobyte.
_SIGNS = {"png": b"\x89PNG\r\n", "svg": b"<svg", "pdf": b"%PDF-", "html": b'content="wn_dqn"'}


def require_writable(path: Path, formats: Collection[str]) -> str:
    """The format that the name of the file asks for; UsageError if it cannot be written, or something else is there."""
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in formats:
        raise UsageError(f"{path} must end with {' or '.join(f'.{name}' for name in formats)}")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    if path.exists():
        try:
            with path.open("rb") as file:
                beginning = file.read(1024)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
        if beginning and _SIGNS[file_format] not in beginning:
            raise UsageError(f"{path} is there, and is not a {file_format} file of such a command; choose another name")
    return file_format


def write(path: Path, data: bytes) -> None:
    """The old file or the whole new one; UsageError if the disk refuses."""
    try:
        write_durably(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
