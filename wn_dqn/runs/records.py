"""The records that a run keeps of its tests: ``reevaluations.jsonl``, a line a test."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_dqn.runs.run_directory import REEVALUATIONS


@dataclass(frozen=True)
class Reevaluation:
    """Fresh games of one checkpoint."""

    steps: int
    protocol: str
    games: int
    mean: float
    std: float
    record: dict[str, Any]
    """the line in ``reevaluations.jsonl``, which may say more"""


def read_reevaluations(run: Path) -> tuple[list[Reevaluation], list[str]]:
    """The tests that the run in `run` keeps, oldest first, and a message about each line that is damaged."""
    path = run / REEVALUATIONS
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"cannot read {path}: {error.strerror}"]
    found, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line:  # after the last newline, and where older versions wrote two newlines
            continue
        try:
            entry = json.loads(line)
            std = math.nan if entry.get("std") is None else float(entry["std"])
            steps, games = int(entry["steps"]), int(entry["games"])
            found.append(Reevaluation(steps, str(entry["protocol"]), games, float(entry["mean"]), std, entry))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            problems.append(f"{path} is damaged in line {number}: that test is left out")
    return found, problems
