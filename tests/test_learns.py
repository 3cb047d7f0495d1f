"""It learns: Catch, a small pixel game in Atari's clothes, is solved by both of the paper's arms and other agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from wn_dqn.config.files import make_settings, merge
from wn_dqn.config.games import find_game
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.runs.launch import train_run
from wn_dqn.runs.policy import load_policy, play_games
from wn_dqn.system.progress import ProgressReporter

MAXIMUM_RETURN = 1.0
SETTINGS: dict[str, Any] = {
    "game": "Catch",
    "replay": {"capacity": 4000},
    "network": {"init_batch_size": 256},
    "learning": {"total_steps": 8000, "start_steps": 400, "batch_size": 32, "target_period_steps": 100},
    "optimizer": {"learning_rate": 1e-3},
    "exploration": {"final": 0.05, "decay_steps": 1500},
    "evaluation": {"epoch_steps": 8000, "steps": 600, "held_out_states": 64},
    "output": {"save_replay": False},
}


def mean_return_after_training(difference: dict[str, Any], folder: Path) -> float:
    """Of 200 fresh games."""
    settings, cpu = make_settings(merge([SETTINGS, difference])), torch.device("cpu")
    assert train_run(settings, folder / "run", cpu, ProgressReporter()) == 0
    policy = load_policy(folder / "run", "last", cpu)
    protocol = EvaluationProtocol("200 games", epsilon=0.0, games=200)
    return play_games(policy, find_game("Catch"), protocol, num_envs=16, seed=1, reporter=ProgressReporter()).mean


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("param", ["wn", "standard"])
def test_catch_is_solved(param: str, seed: int, tmp_path: Path) -> None:
    """The mean return is at least 0.9 of the maximum."""
    assert mean_return_after_training({"param": param, "seed": seed}, tmp_path) >= 0.9 * MAXIMUM_RETURN


OTHERS: dict[str, dict[str, Any]] = {
    "Double DQN": {"agent": "double-dqn"},
    "dueling heads": {"network": {"dueling": True}},
    # Returns of three steps hold actions of an older policy, with a large replay mostly random ones: forget those soon.
    "3-step returns": {
        "learning": {"n_steps": 3},
        "replay": {"capacity": 1000},
        "exploration": {"decay_steps": 1000},
    },
    "prioritized replay": {"replay": {"priority_exponent": 0.6, "importance_anneal_steps": 7600}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_catch_is_solved_by_other_agents(name: str, tmp_path: Path) -> None:
    assert mean_return_after_training(OTHERS[name], tmp_path) >= 0.9 * MAXIMUM_RETURN
