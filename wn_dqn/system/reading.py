"""Reading files that anybody may have written: a run's, a config, a checkpoint, a network of another program.

Every such file is read here. It must be a regular file of at most so many bytes, in UTF-8 if it is text; JSON holds
finite numbers, and pydantic models say what its values are. Whatever is wrong is an OSError whose `strerror` says it.
Links are followed: a person may keep a folder elsewhere. No pipe is waited for, and no device is read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

KIB, MIB, GIB = 2**10, 2**20, 2**30
_BLOCK_BYTES = MIB
_MAX_CONTAINERS = 10**6  # lists and objects of a JSON text; each takes 60 bytes or more
_MAX_SHOWN = 60
_FLAGS = getattr(os, "O_NONBLOCK", 0)  # Windows lacks it

MAX_STEPS, LARGEST = 10**15, 1e100
Steps = Annotated[int, Field(ge=0, le=MAX_STEPS)]
"""a count of steps, games or bytes in a file"""
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
"""a finite number whose square is finite, too"""
Text = Annotated[str, Field(max_length=10_000)]
"""text without surrogates"""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""a SHA-256"""

T = TypeVar("T")


class Record(BaseModel):
    """An object in a file. What this version does not know is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class UnreadableError(OSError):
    """A file is not what it should be."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)


@contextlib.contextmanager
def opened(path: Path, max_bytes: int) -> Iterator[io.FileIO]:
    """A regular file of at most `max_bytes`, to be read; OSError if it is none. It may still grow."""
    try:
        file = io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | _FLAGS))
    except ValueError:
        raise UnreadableError("no file can have such a name") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("not a regular file")
        if status.st_size > max_bytes:
            raise _too_large(max_bytes)
        yield file


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`; OSError if it is none."""
    with opened(path, max_bytes) as file:
        data = bytearray()
        while block := file.read(min(_BLOCK_BYTES, max_bytes + 1 - len(data))):
            data += block
        if len(data) > max_bytes:
            raise _too_large(max_bytes)
        return bytes(data)


def read_text(path: Path, max_bytes: int) -> str:
    """The content of a file in UTF-8; OSError if it is none."""
    try:
        return read_bytes(path, max_bytes).decode()
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8 text") from None


def sha256(path: Path, max_bytes: int) -> str:
    """The SHA-256 of a file's content, block by block; OSError if it cannot be read."""
    digest = hashlib.sha256()
    with opened(path, max_bytes) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path, max_bytes: int, form: type[T] | TypeAdapter[T]) -> T:
    """What a JSON file says, as `form` says it is; OSError if it is something else."""
    return validated(form, parse_json(read_bytes(path, max_bytes)))


def parse_json(data: bytes, *, finite: bool = True) -> Any:
    """What a JSON text says; OSError if it is none, is too much, or (if `finite`) a number is infinite or NaN."""
    if data.count(b"[") + data.count(b"{") > _MAX_CONTAINERS:
        raise UnreadableError(f"it has more than {_MAX_CONTAINERS:,} lists and objects")
    checks: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite} if finite else {}
    try:
        return json.loads(data, **checks)
    except (ValueError, RecursionError):
        raise UnreadableError("it is not JSON of finite numbers" if finite else "it is not JSON") from None


def validated(form: type[T] | TypeAdapter[T], value: object) -> T:
    """`value` as `form` says it is; OSError, with the first mistake, if it is something else."""
    adapter = form if isinstance(form, TypeAdapter) else TypeAdapter(form)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, mistake["loc"]))[:_MAX_SHOWN]
        raise UnreadableError(f"{key and f'{key}: '}{mistake['msg']}") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _too_large(max_bytes: int) -> UnreadableError:
    unit, name = next(pair for pair in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1, "bytes")) if max_bytes >= pair[0])
    return UnreadableError(f"it has more than {max_bytes / unit:,.4g} {name}, and no such file has so many")
