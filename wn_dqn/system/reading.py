"""Safe reading of untrusted files: a run's, a config, a checkpoint, a network of another program.

Every such file is read here. It must be a regular file of limited size, in UTF-8 if it is text. JSON may contain only
finite numbers, and pydantic models define its values. Any error is an OSError whose `strerror` states the reason. Links
are followed, because users keep folders elsewhere. Pipes and devices are refused.
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
    """An object in a file. Unknown keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class UnreadableError(OSError):
    """A file does not have the expected content."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)


@contextlib.contextmanager
def opened(path: Path, max_bytes: int) -> Iterator[io.FileIO]:
    """Open a regular file of at most `max_bytes` for reading; it may still grow. Raises OSError for anything else."""
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
    """The content of a regular file of at most `max_bytes`. Raises OSError for anything else."""
    with opened(path, max_bytes) as file:
        data = bytearray()
        while block := file.read(min(_BLOCK_BYTES, max_bytes + 1 - len(data))):
            data += block
        if len(data) > max_bytes:
            raise _too_large(max_bytes)
        return bytes(data)


def read_text(path: Path, max_bytes: int) -> str:
    """The content of a UTF-8 file. Raises OSError if it is not one."""
    try:
        return read_bytes(path, max_bytes).decode()
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8 text") from None


def sha256(path: Path, max_bytes: int) -> str:
    """The SHA-256 of a file's content, computed block by block. Raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with opened(path, max_bytes) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path, max_bytes: int, form: type[T] | TypeAdapter[T]) -> T:
    """The content of a JSON file, validated as `form`. Raises OSError if it is invalid."""
    return validated(form, parse_json(read_bytes(path, max_bytes)))


def parse_json(data: bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text. Raises OSError if it is invalid, too large, or (if `finite`) has infinity or NaN."""
    if data.count(b"[") + data.count(b"{") > _MAX_CONTAINERS:
        raise UnreadableError(f"it has more than {_MAX_CONTAINERS:,} lists and objects")
    checks: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite} if finite else {}
    try:
        return json.loads(data, **checks)
    except (ValueError, RecursionError):
        raise UnreadableError("it is not JSON of finite numbers" if finite else "it is not JSON") from None


def validated(form: type[T] | TypeAdapter[T], value: object) -> T:
    """`value` validated as `form`. Raises OSError, with the first mistake, if it is invalid."""
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
