"""examples/optuna_study.py: a study that goes on, and whose trials are runs."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from load_script import load_script

import wn_dqn


def test_the_same_command_adds_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["optuna_study.py", "--trials", "1", "--steps", "1000", "--folder", str(tmp_path)])
    optuna.logging.disable_default_handler()
    example = load_script("optuna_study", "examples")
    for trials in (1, 2):
        example.main()
        counted, best = capsys.readouterr().out.splitlines()[-2:]
        assert counted == f"{trials} complete"
    runs = [wn_dqn.Run(tmp_path / f"trial{number}") for number in (0, 1)]
    scores = [run.evaluations["mean_return"][-1] for run in runs]
    assert [run.status for run in runs] == ["finished"] * 2
    assert f"best: {max(scores):.2f} with " in best
    assert runs[0].settings.optimizer.learning_rate != runs[1].settings.optimizer.learning_rate
