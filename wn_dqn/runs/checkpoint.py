"""Checkpoints: atomic to write, verified when read, and made of nothing that could run.

A checkpoint is a folder of safetensors (tensors), JSON (everything else) and a manifest with the size and SHA-256 of
each file, written last. It is built under a temporary name, every file is fsynced, and a rename makes it appear whole.
Pickle is never written or read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from wn_dqn.errors import first_line
from wn_dqn.system.durable import fsync_folder, is_own_folder, temporary_path, write_durably

FORMAT_VERSION = 1
_NAME = re.compile(r"step-\d{10}(\.\d{4})?")
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or foreign; the message says which and why."""


class NewerFormatError(CheckpointError):
    """A checkpoint was written by a later version of this program: nothing is wrong with it."""


class VerifiedFile(TypedDict):
    """A file, as a manifest or a checkpoint refers to it."""

    name: str
    bytes: int
    sha256: str


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
    manifest = {
        "format": "wn_dqn checkpoint",
        "version": FORMAT_VERSION,
        "steps": steps,
        "score": score,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    path = folder / f"step-{steps:010d}"
    again = [item for item in sorted(folder.glob(f"{path.name}*")) if _NAME.fullmatch(item.name)]
    if again:  # the same step, before and after its evaluation: a good checkpoint is never touched
        path = path.with_suffix(f".{int(again[-1].suffix[1:] or 0) + 1:04d}")
    folder.mkdir(exist_ok=True)  # not the one above: a run that was moved is not begun where it was
    temporary = temporary_path(path)
    temporary.mkdir()
    try:
        for name, data in files.items():
            write_durably(temporary / name, data)
        write_durably(temporary / _MANIFEST, json.dumps(manifest | {"sha256": _digest(manifest)}, indent=2).encode())
        temporary.rename(path)
    except OSError:  # a full disk: leave it no fuller
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(folder)
    return path


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of a manifest's content, so that a flipped digit of a score does not go unnoticed."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that :func:`save_checkpoint` wrote; CheckpointError unless every byte is as it was."""
    manifest = _read_manifest(path)
    contents = {}
    for name in (_TENSORS, _STATE):
        expected = manifest["files"][name]
        file: VerifiedFile = {"name": name, "bytes": expected["bytes"], "sha256": expected["sha256"]}
        contents[name] = read_verified(path, file)
    try:
        state = json.loads(contents[_STATE])
        if not isinstance(state, dict):
            raise ValueError("its state is no mapping")
        return _join(load_tensors(contents[_TENSORS]), state)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a wn_dqn checkpoint: {first_line(error)}") from None


def read_verified(folder: Path, file: VerifiedFile) -> bytes:
    """The bytes of `file`, which are as they were written; CheckpointError otherwise."""
    name = file["name"]
    if Path(name).name != name:
        raise CheckpointError(f"{name!r} is not the name of a file in {folder}")
    try:
        size = (folder / name).stat().st_size
        data = (folder / name).read_bytes() if size == file["bytes"] else b""
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder / ascii(name)[1:-1]} cannot be read: {reason}") from None
    if size != file["bytes"]:
        raise CheckpointError(f"{folder / name} has {size} bytes instead of {file['bytes']}")
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise CheckpointError(f"{folder / name} is damaged (its SHA-256 differs)")
    return data


def read_state_json(path: Path) -> dict[str, Any]:
    """The part of a checkpoint that is no tensor, unverified: for housekeeping."""
    state: dict[str, Any] = json.loads((path / _STATE).read_bytes())
    return state


def list_checkpoints(folder: Path) -> list[CheckpointInfo]:
    """Checkpoints in `folder` whose manifests can be read, oldest first."""
    found = []
    for path in checkpoint_paths(folder):
        with contextlib.suppress(CheckpointError):
            found.append(checkpoint_info(path))
    return found


def checkpoint_paths(folder: Path) -> list[Path]:
    """What is called a checkpoint in `folder`, oldest first."""
    return [path for path in sorted(folder.glob("step-*")) if _NAME.fullmatch(path.name)]


def checkpoint_info(path: Path) -> CheckpointInfo:
    """What the manifest of the checkpoint `path` tells; CheckpointError if it cannot be read."""
    manifest = _read_manifest(path)
    return CheckpointInfo(path, manifest["steps"], manifest["score"])


def best_checkpoint(checkpoints: list[CheckpointInfo]) -> CheckpointInfo | None:
    """The one with the highest evaluation score; the earlier of two equal ones."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.score is not None]
    return max(scored, key=lambda checkpoint: checkpoint.score or 0.0, default=None)


def set_aside(path: Path) -> None:
    """Rename a checkpoint that cannot be read, so that it neither counts as the newest nor is lost."""
    aside = path.with_name(f"damaged-{path.name}")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"damaged-{path.name}-{number}")
    path.rename(aside)


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best."""
    checkpoints = list_checkpoints(folder)
    kept = {checkpoint.path for checkpoint in checkpoints[-keep:]}
    best = best_checkpoint(checkpoints)
    if best is not None:
        kept.add(best.path)
    for checkpoint in checkpoints:
        if checkpoint.path not in kept and is_own_folder(checkpoint.path, _NAME):
            shutil.rmtree(checkpoint.path)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} is not a checkpoint: manifest.json cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: manifest.json is damaged") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "wn_dqn checkpoint":
        raise CheckpointError(f"{path} is not a wn_dqn checkpoint")
    found = manifest.get("version")
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path} has format version {found}; this wn-dqn reads {FORMAT_VERSION}: use the later one that wrote it"
        )
    if found != FORMAT_VERSION:
        raise CheckpointError(f"{path} has an unknown format version; this wn-dqn reads {FORMAT_VERSION}")
    try:
        valid = isinstance(manifest["steps"], int) and isinstance(manifest["score"], float | int | None)
        valid = valid and all(
            isinstance(manifest["files"][name]["bytes"], int) and isinstance(manifest["files"][name]["sha256"], str)
            for name in (_TENSORS, _STATE)
        )
    except (KeyError, TypeError):
        valid = False
    if not valid or manifest.get("sha256") != _digest(manifest):
        raise CheckpointError(f"{path}: manifest.json is damaged")
    return manifest


def _split(state: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by slash-separated path, and the nested rest."""
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
