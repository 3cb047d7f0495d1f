"""Run directories with chosen scores, written at once: what the commands that read runs are tested on."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wn_dqn.config.files import make_settings, merge, nested
from wn_dqn.runs.run_directory import RunDirectory

FINISHED = "2026-01-02T12:00:00+0000"


def write_run(
    folder: Path,
    game: str,
    param: str,
    seed: int,
    scores: Sequence[float],
    *,
    status: str = "finished",
    metrics: dict[str, Sequence[float]] | None = None,
    fresh: Sequence[dict[str, Any]] = (),
    **settings: Any,
) -> Path:
    """A run of one epoch of 250,000 steps per score, which took an hour each; returns its folder.

    `metrics`: columns of metrics.csv beside the clock, with one row per 10,000 steps. `settings`: dotted keys with
    two underscores for the dot.
    """
    path = folder / f"{game}-{param}-seed{seed}"
    path.mkdir(parents=True)
    run = RunDirectory(path)
    chosen = [nested(key.replace("__", "."), value) for key, value in settings.items()]
    run.write_settings(make_settings(merge([{"game": game, "param": param, "seed": seed}, *chosen])).model_dump())
    names = ["median_return", "std_return", "min_return", "max_return"]
    rows = [
        {"steps": 250_000 * epoch, "mean_return": score, **dict.fromkeys(names, score)}
        | {"games": 60, "truncated_games": 0, "unfinished_games": 1, "game_steps": 124_000}
        | {"held_out_max_q": score / 100, "train_s": 3600.0 * epoch}
        for epoch, score in enumerate(scores, start=1)
    ]
    _write_table(path / "evaluations.csv", rows)
    columns = metrics or {}
    length = max(map(len, columns.values()), default=0)
    _write_table(
        path / "metrics.csv",
        [
            {"steps": 10_000 * (row + 1), **{name: values[row] for name, values in columns.items()}}
            | {"time/train_s": 144.0 * (row + 1)}
            for row in range(length)
        ],
    )
    content = {"status": status, "steps": 250_000 * len(scores), "time": FINISHED}
    (path / "status.json").write_text(json.dumps(content))
    began = {"time": "2026-01-02T10:00:00+0000", "command": ["wn-dqn", "train", "--game", game], "commit": "c0ffee"}
    (path / "provenance.json").write_text(json.dumps([began]))
    if fresh:
        (path / "reevaluations.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in fresh))
    return path


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        with path.open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(rows[0])
            table.writerows(["" if value != value else value for value in row.values()] for row in rows)
