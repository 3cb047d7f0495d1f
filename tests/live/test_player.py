"""The agent at play for those who watch: the newest checkpoint, a picture at a time."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_runs import settings_for, train

from wn_dqn.live.player import Player, Players
from wn_dqn.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    assert train(settings_for(learning={"total_steps": 120}), tmp_path / "run") == 0
    return tmp_path / "run"


def test_a_picture_with_its_values(run: Path) -> None:
    picture = Player(run).picture()
    data = base64.b64decode(picture.pop("image").removeprefix("data:image/png;base64,"))
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown.ndim == 3
    assert picture["actions"] == ("left", "stay", "right")
    assert len(picture["q"]) == 3
    assert picture["action"] in (0, 1, 2)
    assert (picture["game"], picture["trained_steps"]) == (1, 120)


def test_a_newer_checkpoint_takes_over(run: Path) -> None:
    player = Player(run)
    assert player.picture()["trained_steps"] == 120
    assert train(settings_for(learning={"total_steps": 240}), run) == 0
    assert player.picture()["trained_steps"] == 240


def test_a_run_without_a_checkpoint_says_so(run: Path) -> None:
    player = Player(run)
    checkpoints = RunDirectory(run).checkpoints
    checkpoints.rename(run / "away")
    assert player.picture() == {"problem": "the agent is shown once the run has saved a checkpoint"}
    (run / "away").rename(checkpoints)
    assert "image" in player.picture()
    for file in checkpoints.glob("*/manifest.json"):
        file.write_text("{}")
    assert "problem" in Player(run).picture()


def test_all_who_watch_a_run_see_the_same_game_and_nobody_no_game(run: Path) -> None:
    made: list[Path] = []

    class Counting:
        def __init__(self, folder: Path) -> None:
            made.append(folder)
            self.drawn = 0

        def picture(self) -> dict[str, Any]:
            self.drawn += 1
            return {"drawn": self.drawn}

    now_s = 0.0
    players = Players(Counting, lambda: now_s)  # type: ignore[arg-type]
    assert [players.picture(run)["drawn"], players.picture(run)["drawn"]] == [1, 1]
    now_s = 1.0
    assert players.picture(run)["drawn"] == 2
    now_s = 60.0  # the player was forgotten
    assert players.picture(run)["drawn"] == 1
    assert made == [run, run]
