"""What a run says while it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command import wn_dqn
from small_runs import CPU, settings_for

from wn_dqn.config.files import dump_yaml
from wn_dqn.config.games import game_of
from wn_dqn.envs.factory import spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.errors import STOPPED
from wn_dqn.runs.story import details, opening

pytestmark = pytest.mark.usefixtures("small_network")


def test_the_opening_says_what_for_how_long_where_and_how_to_watch() -> None:
    settings = settings_for(game="Breakout", param="standard", seed=7, learning={"total_steps": 50_000})
    spec = spec_of(game_of(settings), training_rules(settings.environment))
    what, where, watch = opening(settings, spec, Path("my runs/a"), CPU)
    assert torch.get_num_threads() == 1
    assert what == (
        "DQN (Mnih et al., 2015) learns Breakout in 50,000 steps (200,000 frames): standard parameterization, "
        "network nature, seed 7, on the CPU, 1 thread"
    )
    assert where == "written to my runs/a; config.yaml there has all settings"
    assert watch == "watch: wn-dqn report 'my runs/a' --live, or tensorboard --logdir 'my runs'"


def test_the_numbers_beside_the_bar() -> None:
    assert details(None, 1.0, []) == "epsilon 1.00"
    assert details(1204.4, 0.1, [(100, 3.0), (200, 12.5), (300, -0.254)]) == (
        "1,204 steps/s, epsilon 0.10, score -0.25, best 12.5 at step 200"
    )


def test_settings_are_printed_only_if_asked_for(tmp_path: Path) -> None:
    """And a run that goes on knows the evaluations before it stopped."""
    config = tmp_path / "c.yaml"
    config.write_text(dump_yaml(settings_for().model_dump()))
    command = ["train", "--device", "cpu", "--config", str(config), "--run-dir", str(tmp_path / "run")]
    status, _, err = wn_dqn(*command, "--stop-after", "0.000001s")
    assert status == STOPPED
    assert "batch_size" not in err
    first, *_, last = err.splitlines()
    assert first.startswith("DQN (Mnih et al., 2015) learns Catch in 320 steps")
    assert last.startswith("stopped at step 8 (time budget used up)")
    status, _, err = wn_dqn(*command, "--verbose")
    assert status == 0
    assert "  batch_size: 8\n" in err
    lines = err.splitlines()
    assert lines[lines.index("next:") - 2].startswith("best")
    assert lines[lines.index("next:") - 1].startswith("random")
    assert f"{tmp_path / 'run'} is finished: 320 steps" in err
