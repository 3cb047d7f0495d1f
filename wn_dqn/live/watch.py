"""Watches the runs in some folders. Files are read again only after they have changed."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_dqn.analysis.published import published_scores
from wn_dqn.config.games import game_of
from wn_dqn.config.registry import AGENTS, PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError
from wn_dqn.runs.metrics_writer import EVALUATIONS_CSV, METRICS_CSV, TABLE_BYTES
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system import reading
from wn_dqn.system.text import printable

STALLED_AFTER_S = 180.0
"""a run writes its status every 30 seconds; only a checkpoint takes longer"""
_SCAN_PERIOD_S = 5.0
_MAX_RUNS, _MAX_POINTS = 500, 400
_TAIL_BYTES = 64 * 1024
_FILES = ("config.yaml", "status.json", METRICS_CSV, EVALUATIONS_CSV)
_ACTIVE = ("running", "degraded")

Stamps = tuple[tuple[int, int] | None, ...]


@dataclass
class _Known:
    """The content of a run, and the state of the files from which it was read."""

    stamps: Stamps
    settings: Settings | None
    shown: dict[str, Any]


class Watch:
    """The runs in `paths`: run directories, or folders with present or future runs."""

    def __init__(self, paths: Sequence[Path], clock: Callable[[], float] = time.time) -> None:
        self._paths, self._clock = paths, clock
        self._known: dict[Path, _Known] = {}
        self._folders: list[Path] = []
        self._scanned_s = -math.inf

    def folder(self, name: str) -> Path | None:
        """The folder of the run with this `name` on the page; None if there is none."""
        return next((folder for folder in self._folders if _page_name(folder) == name), None)

    def runs(self) -> list[dict[str, Any]]:
        """The data of each run as JSON values; active runs come first."""
        self._scan()
        shown = [self._run(folder) for folder in self._folders]
        order = {"running": 0, "degraded": 0, "stalled": 1, "failed": 2}
        return sorted(shown, key=lambda run: order.get(run["status"], 3))

    def _scan(self) -> None:
        if self._clock() - self._scanned_s < _SCAN_PERIOD_S:
            return
        self._scanned_s = self._clock()
        found = dict.fromkeys(folder.resolve() for path in self._paths for folder in _run_folders(path))
        self._folders = list(found)[:_MAX_RUNS]
        self._known = {folder: known for folder, known in self._known.items() if folder in found}

    def _run(self, folder: Path) -> dict[str, Any]:
        stamps = tuple(_stamp(folder / name) for name in _FILES)
        known = self._known.get(folder)
        if known is None or known.stamps != stamps:
            same = known is not None and known.stamps[0] == stamps[0]
            known = self._known[folder] = _read(folder, stamps, known.settings if known and same else None)
        heard_s = max((stamp[0] / 1e9 for stamp in stamps[1:] if stamp is not None), default=0.0)
        shown = {**known.shown, "heard_s": round(heard_s)}
        if shown["status"] in _ACTIVE and self._clock() - heard_s > STALLED_AFTER_S:
            shown |= {"status": "stalled", "reason": "its status is running, but its files do not change"}
        return shown


def _run_folders(path: Path) -> Iterable[Path]:
    if RunDirectory(path).exists:
        return [path]
    try:
        return [child for child in sorted(path.iterdir()) if RunDirectory(child).exists]
    except OSError:
        return []  # it may be created later


def _stamp(path: Path) -> tuple[int, int] | None:
    """Time of the last change in ns, and size; None if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _page_name(folder: Path) -> str:
    return printable(str(folder))


def _read(folder: Path, stamps: Stamps, settings: Settings | None) -> _Known:
    """Read a run. `settings` are its settings if they have been read before, because they never change."""
    shown: dict[str, Any] = {"id": _page_name(folder), "name": printable(folder.name), "scores": [], "steps": 0}
    directory = RunDirectory(folder)
    try:
        settings = settings or directory.read_settings()
        status = directory.read_status()
        scores = _scores(folder / EVALUATIONS_CSV)
        newest = _newest_row(folder / METRICS_CSV)
    except (UsageError, OSError, ValueError, LookupError, csv.Error) as error:
        return _Known(stamps, None, shown | {"status": "unreadable", "reason": printable(str(error))})
    steps = max([int(status.get("steps", 0)), int(newest.get("steps", 0)), *(step for step, _ in scores[-1:])])
    speed = newest.get("speed/steps_per_s", math.nan)
    shown |= _identity(settings) | _score_summary(scores)
    shown |= {
        "status": status.get("status", "not started"),
        "reason": printable(str(status.get("error") or status.get("reason") or "")),
        "steps": steps,
        "speed": _finite(speed),
        "left_s": _finite((settings.learning.total_steps - steps) / speed if speed > 0 else math.nan),
        "epsilon": _finite(newest.get("train/epsilon", math.nan)),
        "loss": _finite(newest.get("train/loss", math.nan)),
    }
    return _Known(stamps, settings, shown)


def _identity(settings: Settings) -> dict[str, Any]:
    game = game_of(settings)
    levels = published_scores(game.name)
    return {
        "game": printable(game.short_name),
        "layers": PARAMETERIZATIONS[settings.param].label,
        "agent": AGENTS[settings.agent].label.partition(" (")[0],
        "seed": settings.seed,
        "total": settings.learning.total_steps,
        "random": levels.random,
        "human": levels.human,
    }


def _score_summary(scores: list[tuple[int, float]]) -> dict[str, Any]:
    if not scores:
        return {}
    best_steps, best = max(scores, key=lambda score: score[1])
    every = -(-len(scores) // _MAX_POINTS)
    shown = [*scores[:-1:every], scores[-1]]
    return {"scores": shown, "last": scores[-1][1], "best": best, "best_steps": best_steps, "num_scores": len(scores)}


def _scores(path: Path) -> list[tuple[int, float]]:
    """Steps and mean return of each evaluation. An incomplete last row is ignored until the next read."""
    if not path.exists():
        return []
    whole, _, _ = reading.read_text(path, TABLE_BYTES).rpartition("\n")
    rows = csv.DictReader(io.StringIO(whole))
    scores = [(int(row["steps"]), float(row["mean_return"] or "nan")) for row in rows]
    return [(steps, score) for steps, score in scores if math.isfinite(score) and 0 <= steps <= reading.MAX_STEPS]


def _newest_row(path: Path) -> dict[str, float]:
    """The finite numbers of a table's last complete row. The other rows are not read."""
    if not path.exists():
        return {}
    with reading.opened(path, 2**40) as file:
        header, newline, _ = file.read(_TAIL_BYTES).partition(b"\n")
        file.seek(max(os.fstat(file.fileno()).st_size - _TAIL_BYTES, 0))
        rows = file.read(_TAIL_BYTES).rpartition(b"\n")[0].rpartition(b"\n")
    if not newline or not rows[2] or rows[2] == header:
        return {}
    (names, values) = csv.reader([header.decode(), rows[2].decode()])
    row = {name: float(value) for name, value in zip(names, values, strict=True) if value}
    return {name: value for name, value in row.items() if math.isfinite(value)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
