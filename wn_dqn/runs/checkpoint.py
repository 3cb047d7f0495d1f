"""Checkpoints: written atomically, verified when read, and free of executable content.

A checkpoint is a folder of safetensors (tensors), JSON (everything else) and a manifest with the size and SHA-256 of
each file. The manifest is written last. The folder is built under a temporary name, every file is fsynced, and a
rename publishes the complete folder. Pickle is never written or read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from wn_dqn.errors import RunError, first_line
from wn_dqn.system import reading
from wn_dqn.system.durable import fsync_folder, is_own_folder, temporary_path, write_durably
from wn_dqn.system.reading import GIB, KIB, MIB, Digest, Number, Record, Steps

T = TypeVar("T")
FORMAT_VERSION = 1
_NAME = re.compile(r"step-\d{10}(\.\d{4})?")
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_FORMAT: Literal["wn_dqn checkpoint"] = "wn_dqn checkpoint"
# Upper limits. The tensors are two networks and their optimizer; the state has the scores since the last metrics row.
_MAX_BYTES = {_TENSORS: 4 * GIB, _STATE: 128 * MIB, _MANIFEST: 64 * KIB}
_MAX_HEADER_BYTES = 16 * MIB


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or not of this program. The message states which one, and the reason."""


class NewerFormatError(CheckpointError):
    """A checkpoint was written by a later version of this program. It is not damaged."""


class VerifiedFile(TypedDict):
    """A reference to a file in a manifest or a checkpoint."""

    name: Annotated[str, Field(max_length=100)]
    bytes: Steps
    sha256: Digest


class _FileEntry(Record):
    """The entry of a file in a manifest."""

    bytes: Steps
    sha256: Digest


class _Manifest(Record):
    """The manifest: the file of a checkpoint that is written last."""

    format: Literal["wn_dqn checkpoint"]
    version: int
    steps: Steps
    score: Number | None
    files: dict[Literal["tensors.safetensors", "state.json"], _FileEntry] = Field(min_length=2)
    sha256: Digest


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint whose manifest could be read."""

    path: Path
    steps: int
    score: float | None
    """mean return of the evaluation at these steps, if there was one"""


def save_checkpoint(folder: Path, steps: int, state: Mapping[str, Any], score: float | None) -> Path:
    """Write `state` (nested dicts of tensors, arrays and JSON values) as ``folder/step-...``; returns its path."""
    tensors, rest = _split(state)
    files = {
        _TENSORS: dump_tensors(tensors),
        _STATE: json.dumps(rest, allow_nan=True).encode(),
    }
    for name, data in files.items():
        if len(data) > _MAX_BYTES[name]:
            raise RunError(f"a checkpoint's {name} would have {len(data):,} bytes, more than the limit for reading")
    manifest = {
        "format": _FORMAT,
        "version": FORMAT_VERSION,
        "steps": steps,
        "score": score if score is not None and math.isfinite(score) else None,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    path = folder / f"step-{steps:010d}"
    again = [item for item in sorted(folder.glob(f"{path.name}*")) if _NAME.fullmatch(item.name)]
    if again:  # the same step is saved before and after its evaluation; a complete checkpoint is never modified
        path = path.with_suffix(f".{int(again[-1].suffix[1:] or 0) + 1:04d}")
    folder.mkdir(exist_ok=True)  # not its parent: a run that was moved must not be recreated at its old place
    temporary = temporary_path(path)
    temporary.mkdir()
    try:
        for name, data in files.items():
            write_durably(temporary / name, data)
        write_durably(temporary / _MANIFEST, json.dumps(manifest | {"sha256": _digest(manifest)}, indent=2).encode())
        temporary.rename(path)
    except OSError:  # the disk may be full: remove the partial files
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(folder)
    return path


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content. It detects a damaged score, which no file's checksum covers."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state that :func:`save_checkpoint` wrote. Raises CheckpointError if any byte has changed."""
    manifest = _read_manifest(path)
    contents = {}
    for name, entry in manifest.files.items():
        file: VerifiedFile = {"name": name, "bytes": entry.bytes, "sha256": entry.sha256}
        contents[name] = read_verified(path, file, _MAX_BYTES[name])
    try:
        state = reading.parse_json(contents["state.json"], finite=False)
        if not isinstance(state, dict):
            raise ValueError("its state is not a mapping")
        return _join(load_safetensors(contents["tensors.safetensors"], _MAX_HEADER_BYTES), state)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(f"{path}: not a wn_dqn checkpoint: {reason}") from None


def load_safetensors(data: bytes, max_header_bytes: int) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises ValueError, LookupError or SafetensorError if damaged."""
    if int.from_bytes(data[:8], "little") > max_header_bytes:
        raise ValueError("its header is too long")
    return load_tensors(data)


def require_verified(folder: Path, file: VerifiedFile, max_bytes: int = 2**50) -> Path:
    """The path of `file` after verifying its bytes. Raises CheckpointError if they have changed.

    The file is read in parts, and is not kept in memory.
    """
    name = file["name"]
    if Path(name).name != name:
        raise CheckpointError(f"{name!a} is not the name of a file in {folder}")
    path = folder / name
    shown = folder / ascii(name)[1:-1]
    try:
        with reading.opened(path, max_bytes) as opened:
            size = os.fstat(opened.fileno()).st_size
        if size != file["bytes"]:
            raise CheckpointError(f"{shown} has {size} bytes instead of {file['bytes']}")
        found = reading.sha256(path, max_bytes)
    except OSError as error:
        raise CheckpointError(f"{shown} cannot be read: {error.strerror}") from None
    if found != file["sha256"]:
        raise CheckpointError(f"{shown} is damaged (its SHA-256 differs)")
    return path


def read_verified(folder: Path, file: VerifiedFile, max_bytes: int) -> bytes:
    """The verified bytes of `file`. Raises CheckpointError, before the bytes are in memory, if they have changed."""
    path = require_verified(folder, file, max_bytes)
    try:
        data = reading.read_bytes(path, max_bytes)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != file["sha256"]:  # the file may have changed since
        raise CheckpointError(f"{path} changes while it is read")
    return data


def read_state_json(path: Path, form: type[T]) -> T:
    """The JSON part of a checkpoint, parsed as `form`, without verifying its checksum: for housekeeping.

    Raises OSError if it cannot be read.
    """
    state = reading.parse_json(reading.read_bytes(path / _STATE, _MAX_BYTES[_STATE]), finite=False)
    return reading.validated(form, state)


def list_checkpoints(folder: Path) -> list[CheckpointInfo]:
    """Checkpoints in `folder` whose manifests can be read, oldest first."""
    found = []
    for path in checkpoint_paths(folder):
        with contextlib.suppress(CheckpointError):
            found.append(checkpoint_info(path))
    return found


def checkpoint_paths(folder: Path) -> list[Path]:
    """Paths in `folder` with the name of a checkpoint, oldest first. Their content is not read."""
    return [path for path in sorted(folder.glob("step-*")) if _NAME.fullmatch(path.name)]


def checkpoint_info(path: Path) -> CheckpointInfo:
    """The content of the manifest of the checkpoint `path`. Raises CheckpointError if it cannot be read."""
    manifest = _read_manifest(path)
    return CheckpointInfo(path, manifest.steps, manifest.score)


def best_checkpoint(checkpoints: list[CheckpointInfo]) -> CheckpointInfo | None:
    """The checkpoint with the highest evaluation score; of two equal ones the earlier."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.score is not None]
    return max(scored, key=lambda checkpoint: checkpoint.score or 0.0, default=None)


def set_aside(path: Path) -> None:
    """Rename an unreadable checkpoint, so that it is neither used as the newest nor lost."""
    aside = path.with_name(f"damaged-{path.name}")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"damaged-{path.name}-{number}")
    path.rename(aside)


def restore_newest(folder: Path, restore: Callable[[Path], None], message: Callable[[str], None]) -> Path | None:
    """Call `restore` on the newest readable checkpoint in `folder`. Returns its path, or None if there is none.

    `restore` raises CheckpointError for an unreadable checkpoint. Unreadable ones are set aside after an older one has
    been restored. Raises RunError if none can be restored, or if one is of a later version of this program: continuing
    from an older checkpoint would discard it.
    """
    paths = checkpoint_paths(folder)[::-1]
    reasons = []
    for path in paths:
        try:
            restore(path)
        except NewerFormatError as error:
            raise RunError(str(error)) from None
        except CheckpointError as error:
            reasons.append(str(error))
            message(f"skipping a checkpoint: {error}")
            continue
        for skipped in paths[: len(reasons)]:
            set_aside(skipped)
        return path
    if reasons:
        raise RunError(f"no checkpoint in {folder.parent} can be read: {reasons[0]}; begin with another --run-dir")
    return None


def prune_checkpoints(folder: Path, keep: int, *rules: Callable[[int], bool]) -> None:
    """Remove checkpoints, except the newest `keep` and the best ones.

    Each of `rules` states which steps count; the best of those is kept.
    """
    checkpoints = list_checkpoints(folder)
    kept = {checkpoint.path for checkpoint in checkpoints[-keep:]}
    for counts in rules:
        best = best_checkpoint([checkpoint for checkpoint in checkpoints if counts(checkpoint.steps)])
        if best is not None:
            kept.add(best.path)
    for checkpoint in checkpoints:
        if checkpoint.path not in kept and is_own_folder(checkpoint.path, _NAME):
            shutil.rmtree(checkpoint.path)


def _read_manifest(path: Path) -> _Manifest:
    try:
        data = reading.read_bytes(path / _MANIFEST, _MAX_BYTES[_MANIFEST])
    except OSError as error:
        raise CheckpointError(f"{path} is not a checkpoint: {_MANIFEST} cannot be read: {error.strerror}") from None
    try:
        content = reading.parse_json(data)
    except OSError:
        raise CheckpointError(f"{path}: {_MANIFEST} is damaged") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a wn_dqn checkpoint")
    found = content.get("version")
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path} has format version {found}; this wn-dqn reads {FORMAT_VERSION}: use the later one that wrote it"
        )
    if found != FORMAT_VERSION:
        raise CheckpointError(f"{path} has an unknown format version; this wn-dqn reads {FORMAT_VERSION}")
    try:
        manifest = reading.validated(_Manifest, content)
    except OSError as error:
        raise CheckpointError(f"{path}: {_MANIFEST} is damaged: {error.strerror}") from None
    if manifest.sha256 != _digest(content):
        raise CheckpointError(f"{path}: {_MANIFEST} is damaged")
    return manifest


def _split(state: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by slash-separated path, and the nested remainder."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            inner, rest[key] = _split(value, f"{prefix}{key}/")
            tensors |= inner
        elif isinstance(value, Tensor):
            tensors[prefix + key] = value.detach().cpu().contiguous()
        elif isinstance(value, np.ndarray):
            tensors[prefix + key] = torch.from_numpy(np.array(value, order="C"))
        else:
            rest[key] = value
    return tensors, rest


def _join(tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    for name, tensor in tensors.items():
        *path, key = name.split("/")
        folder = rest
        for part in path:
            folder = folder.setdefault(part, {})
        folder[key] = tensor
    return rest
