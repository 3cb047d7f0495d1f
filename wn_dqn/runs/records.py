"""The records of a run's re-evaluations: ``reevaluations.jsonl``, with one line per re-evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_dqn.runs.run_directory import REEVALUATIONS
from wn_dqn.system import reading
from wn_dqn.system.reading import MIB, Number, Record, Steps, Text

_MAX_BYTES = 128 * MIB
_MAX_PROBLEMS = 20


@dataclass(frozen=True)
class Reevaluation:
    """The evaluation of one checkpoint in new games."""

    steps: int
    protocol: str
    games: int
    mean: float
    std: float
    record: dict[str, Any]
    """the line in ``reevaluations.jsonl``, which may contain more"""


class _Record(Record):
    """A line of ``reevaluations.jsonl``."""

    steps: Steps
    protocol: Text
    games: Steps
    mean: Number
    std: Number | None = None
    checkpoint: Text = ""


def read_reevaluations(run: Path) -> tuple[list[Reevaluation], list[str]]:
    """The re-evaluations of the run in `run`, oldest first, and a message about each damaged line."""
    path = run / REEVALUATIONS
    try:
        lines = reading.read_bytes(path, _MAX_BYTES).split(b"\n")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"cannot read {path}: {error.strerror}"]
    found, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line:  # after the last newline; older versions wrote two newlines
            continue
        try:
            entry = reading.parse_json(line)
            test = reading.validated(_Record, entry)
        except OSError:
            problems.append(f"{path} is damaged in line {number}: that test is left out")
            continue
        std = math.nan if test.std is None else test.std
        found.append(Reevaluation(test.steps, test.protocol, test.games, test.mean, std, entry))
    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"{path}: {len(problems) - _MAX_PROBLEMS:,} more lines are damaged"]
    return found, problems
