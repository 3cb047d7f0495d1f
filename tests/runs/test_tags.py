"""docs/tensorboard.md lists the tags that a run writes: no more, no less."""

from __future__ import annotations

import re
from pathlib import Path

from small_runs import CPU, SMALL_NETWORK, network_of, settings_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wn_dqn.runs import launch
from wn_dqn.system.progress import ProgressReporter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tensorboard.md"


def documented_tags() -> list[str]:
    """Those in the first column of the table, with LAYER and PARAMETER in them."""
    rows = [line.split(" | ")[0] for line in PAGE.read_text().split("## Tags")[1].splitlines()]
    return [tag for row in rows if row.startswith("| `") for tag in re.findall(r"`([^`]+)`", row)]


def pattern(tag: str) -> str:
    """A regular expression of the tags that `tag` stands for."""
    return tag.replace("LAYER", r"[a-z0-9_]+").replace("PARAMETER", r"[a-z0-9_.]+")


def test_every_tag_is_documented_and_every_documented_tag_is_written(tmp_path: Path) -> None:
    changes = {"replay": {"priority_exponent": 0.5}, "network": {"noisy": True}, "output": {"video_period_epochs": 3}}
    settings = settings_for(**changes, evaluation={"curvature_products": 24})
    with network_of(SMALL_NETWORK):
        launch.train_run(settings, tmp_path / "run", CPU, ProgressReporter())
    found = EventAccumulator(str(tmp_path / "run")).Reload().Tags()
    written = {tag for kind in ("scalars", "histograms", "images") for tag in found[kind]}
    documented = documented_tags()
    assert len(documented) == len(set(documented))
    matches = {tag: [row for row in documented if re.fullmatch(pattern(row), tag)] for tag in written}
    assert {tag: rows for tag, rows in matches.items() if len(rows) != 1} == {}
    assert set(documented) == {row for rows in matches.values() for row in rows}
