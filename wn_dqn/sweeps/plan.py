"""The plan of a sweep: memory, disk and time on this machine. It imports torch, so a driver runs it as a process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wn_dqn.config.games import game_of
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.runs.bench import hours_of, training_speed
from wn_dqn.runs.launch import memory_needs
from wn_dqn.runs.replay_memory import is_compressed, plain_bytes
from wn_dqn.sweeps.cells import Cell
from wn_dqn.system.hardware import GIB, prepare_torch
from wn_dqn.system.progress import duration_text

_TABLE_ROWS = 40
_TEST_S = 0.1
_PATIENCE_S = 0.8
"""default time for all measurements, in seconds"""
_MEASURED_CELLS = 200
"""in larger plans, no times are measured unless the user asks for them, so that the plan takes three seconds"""
_CHECKPOINT_BYTES = 27_000_000
"""size of the Nature network and its optimizer, without a replay; most runs are not larger"""
_IMAGES_COMPRESSED = 0.04
"""compression ratio of a replay of images on disk: 0.26 of 7 GB for Space Invaders under random play"""


@dataclass(frozen=True)
class Need:
    """The resources that one cell needs."""

    memory_bytes: int
    disk_bytes: int
    """disk at the end, approximately"""
    seconds: float | None
    """time alone on this machine, with its evaluations; None if the speed was not measured"""


def needs_of(settings: Sequence[Settings], device: torch.device, patience_s: float | None = None) -> list[Need]:
    """The needs of each run. Cells of one kind, which have the same sizes, are measured once.

    `patience_s` is the time for all measurements. None means a second for a sweep of few cells, and 0 for one of many.
    """
    prepare_torch(device, "float32")
    if patience_s is None:
        patience_s = _PATIENCE_S if len(settings) <= _MEASURED_CELLS else 0.0
    until_s = time.monotonic() + patience_s
    kinds: dict[tuple[object, ...], _Kind] = {}
    needs = []
    for each in settings:
        key = _key(each)
        if key not in kinds:
            kinds[key] = _examined(each, device, measured=time.monotonic() < until_s)
        needs.append(_need(each, kinds[key]))
    return needs


@dataclass(frozen=True)
class _Kind:
    """The common needs of runs with the same sizes."""

    memory_bytes: int
    disk_bytes: int
    steps_per_s: float | None


def _examined(settings: Settings, device: torch.device, *, measured: bool) -> _Kind:
    spec = spec_of(game_of(settings), training_rules(settings.environment))
    replay_bytes, other_bytes = memory_needs(settings, spec, compressed=is_compressed(settings, spec, device))
    saved = (
        plain_bytes(settings, spec) * (_IMAGES_COMPRESSED if spec.is_image else 1.0)
        if settings.output.save_replay
        else 0.0
    )
    checkpoints = (settings.output.keep_checkpoints + 1) * _CHECKPOINT_BYTES
    memory_bytes = other_bytes + (replay_bytes if device.type == "cpu" else 0)
    speed = training_speed(settings, device, _TEST_S) if measured else None
    return _Kind(memory_bytes, round(saved + checkpoints), speed)


def _key(settings: Settings) -> tuple[object, ...]:
    """The settings that determine a run's speed and memory."""
    learning = settings.learning
    return (
        *(settings.game, settings.param, settings.agent),
        *(repr(settings.environment), repr(settings.network), repr(settings.replay)),
        *(learning.batch_size, learning.update_period_steps, settings.evaluation.held_out_states),
    )


def _need(settings: Settings, kind: _Kind) -> Need:
    seconds = None if kind.steps_per_s is None else 3600 * hours_of(settings, kind.steps_per_s)
    return Need(kind.memory_bytes, kind.disk_bytes, seconds)


def plan_lines(cells: Sequence[Cell], needs: Sequence[Need], folder: Path) -> list[str]:
    """A table of the runs and their needs (of many, only the first ones), and the sums."""
    width = max(len(cell.name) for cell in cells)
    rows = [("run", "steps", "memory", "disk", "time")]
    for cell, need in list(zip(cells, needs, strict=True))[:_TABLE_ROWS]:
        time_text = "-" if need.seconds is None else duration_text(need.seconds)
        memory, disk = f"{need.memory_bytes / GIB:.1f} GiB", f"{need.disk_bytes / 1e6:,.0f} MB"
        rows.append((cell.name, f"{cell.total_steps:,}", memory, disk, time_text))
    lines = [f"{row[0]:{width}} {row[1]:>14} {row[2]:>9} {row[3]:>11} {row[4]:>10}" for row in rows]
    if len(cells) > _TABLE_ROWS:
        lines.append(f"... and {len(cells) - _TABLE_ROWS:,} more")
    measured_s = [need.seconds for need in needs if need.seconds is not None]
    disk = f"{sum(need.disk_bytes for need in needs) / 1e9:,.1f} GB of disk"
    time_text = (
        f"{duration_text(sum(measured_s))} here, one after another" if measured_s else "their time is not measured"
    )
    lines.append(f"{len(cells):,} runs in {folder}: {time_text}; {disk}")
    if len(measured_s) < len(needs):
        those = (
            f"{len(needs) - len(measured_s):,} of them are not measured and not in this time: " if measured_s else ""
        )
        lines.append(f"{those}--cost measures all")
    return lines
