"""Ctrl-C at each stage of a run: one clear line, and the same command goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import wn_dqn
from small_runs import settings_for

from wn_dqn.analysis import model_card
from wn_dqn.config import trust
from wn_dqn.config.files import dump_yaml
from wn_dqn.errors import STOPPED
from wn_dqn.runs import experiment, launch
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.training import loop

pytestmark = pytest.mark.usefixtures("small_network")


def interrupting(function: Callable[..., Any], at_call: int = 1) -> Callable[..., Any]:
    """`function`, with Ctrl-C before the call of this number."""
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at_call:
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    return interrupted


STAGES: dict[str, tuple[Any, str, int, str]] = {
    "start": (trust, "require_trust", 1, "wn-dqn: interrupted; the same command begins again"),
    "making the run": (launch, "build_experiment", 1, "stopped at step 8 (SIGINT)"),
    "initialization": (loop, "_begin_learning", 1, "stopped at step 72 (SIGINT)"),
    "training": (loop, "_record", 12, "stopped at step 96 (SIGINT)"),
    "evaluation": (experiment, "evaluate", 1, "stopped at step 120 (SIGINT)"),
    "second evaluation": (experiment, "evaluate", 2, "stopped at step 240 (SIGINT)"),
}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A run of 320 steps."""
    config = tmp_path / "c.yaml"
    config.write_text(dump_yaml(settings_for().model_dump()))
    return ["train", "--device", "cpu", "--config", str(config), "--run-dir", str(tmp_path / "run")]


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c(stage: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, at_call, line = STAGES[stage]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupting(getattr(module, name), at_call))
        status, out, err = wn_dqn(*command)
    assert (status, out) == (130 if stage == "start" else STOPPED, "")
    *_, last = err.splitlines()
    assert last.startswith(line)
    assert "same command" in last
    assert "Traceback" not in err
    status, _, err = wn_dqn(*command)
    assert status == 0
    assert ("resumed from" in err) == (stage != "start")
    assert RunDirectory(tmp_path / "run").read_status()["status"] == "finished"


def test_ctrl_c_while_games_are_restored(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has changed by then, so nothing is saved."""
    assert wn_dqn(*command, "--stop-after", "0.000001s")[0] == STOPPED
    before = RunDirectory(tmp_path / "run").read_status()
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "restore_games", interrupting(experiment.restore_games))
        status, _, err = wn_dqn(*command)
    assert status == STOPPED
    assert err.splitlines()[-1].startswith("stopped before it went on (SIGINT)")
    assert RunDirectory(tmp_path / "run").read_status() == before
    assert wn_dqn(*command)[0] == 0


def test_ctrl_c_at_the_end(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is trained and saved: the run ends as it would have."""
    monkeypatch.setattr(model_card, "write_card", interrupting(model_card.write_card))
    status, _, err = wn_dqn(*command)
    assert status == 0
    assert f"{tmp_path / 'run'} is finished: 320 steps" in err
    assert (tmp_path / "run" / "model_card.md").exists()
    status, _, err = wn_dqn(*command)
    assert (status, err.count("\n")) == (0, 1)
    assert "is finished: 320 steps; raise --steps to go on" in err
