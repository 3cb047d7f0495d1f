"""Clips in TensorBoard: the best network plays, and nothing else changes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_runs import assert_same, outcome, settings_for, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wn_dqn.evaluation.rollout import Evaluation, GameResult
from wn_dqn.render import q_panel as panel
from wn_dqn.runs.experiment import Experiment
from wn_dqn.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("small_network")
TAG = "evaluation/best_network"


def clips(folder: Path) -> list[tuple[int, bytes]]:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0})
    accumulator.Reload()
    if TAG not in accumulator.Tags()["images"]:
        return []
    events = sorted(accumulator.Images(TAG), key=lambda event: event.wall_time)
    for event in events:
        with Image.open(io.BytesIO(event.encoded_image_string)) as gif:
            assert (gif.format, gif.size) == ("GIF", (event.width, event.height)) == ("GIF", (740, 420))
            assert 5 < getattr(gif, "n_frames", 1) < 40
    return [(event.step, event.encoded_image_string) for event in events]


def test_clips_change_nothing_and_survive_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(output={"video_period_epochs": 2})
    assert train(settings, tmp_path / "whole") == 0
    assert train(settings_for(), tmp_path / "without") == 0
    whole, without = outcome(tmp_path / "whole"), outcome(tmp_path / "without")
    for one in (whole, without):
        del one["state"]["settings"]
    assert_same(whole, without)
    found = clips(tmp_path / "whole")
    assert [step for step, _ in found] == [240]  # every second epoch
    assert clips(tmp_path / "without") == []

    # Stopped while the clip is recorded: it and its evaluation are made again, once.
    def stopped(experiment: Experiment, steps: int, score: float) -> None:
        experiment.stop.request("the test", 0)
        write_clip(experiment, steps, score)

    write_clip = Experiment._write_clip
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "_write_clip", stopped)
        assert train(settings, tmp_path / "stopped") == 0
    assert clips(tmp_path / "stopped") == []
    assert train(settings, tmp_path / "stopped") == 0
    assert clips(tmp_path / "stopped") == found
    resumed = outcome(tmp_path / "stopped")
    del resumed["state"]["settings"]
    assert_same(resumed, whole)


def test_the_best_network_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three evaluations is the best: it is shown then, and again at the third."""
    scores = {120: 0.0, 240: 1.0, 320: 0.5}
    shown: list[str] = []

    class QPanel(panel.QPanel):
        def __init__(self, title: str, subtitle: str, names: Any) -> None:
            shown.append(subtitle)
            super().__init__(title, subtitle, names)

    def evaluate(*args: Any) -> Evaluation:
        steps = max(experiment_steps)
        return Evaluation((GameResult(scores[steps], 1, True),), 0)

    def remember(experiment: Experiment, state: TrainingState) -> None:
        experiment_steps.append(state.steps)
        after_step(experiment, state)

    experiment_steps: list[int] = []
    after_step = Experiment.after_step
    monkeypatch.setattr("wn_dqn.runs.experiment.QPanel", QPanel)
    monkeypatch.setattr("wn_dqn.runs.experiment.evaluate", evaluate)
    monkeypatch.setattr(Experiment, "after_step", remember)
    assert train(settings_for(output={"video_period_epochs": 1}), tmp_path / "run") == 0
    assert shown == ["wn, step 120", "wn, step 240", "wn, step 240"]
    _, second, third = (gif for _, gif in clips(tmp_path / "run"))
    assert second == third
