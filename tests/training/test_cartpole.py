"""CartPole-v1 is solved by its config: docs/environments.md has the scores of more seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import CPU, train

from wn_dqn.config.files import make_settings, read_config
from wn_dqn.config.games import game_of
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.runs.policy import load_policy, play_games
from wn_dqn.system.progress import ProgressReporter


@pytest.mark.thorough
@pytest.mark.slow
def test_cartpole_is_solved(tmp_path: Path) -> None:
    """A mean of 475 over 100 fresh games of the best network."""
    settings = make_settings(read_config("cartpole"))
    assert train(settings, tmp_path) == 0
    policy = load_policy(tmp_path, "best", CPU)
    protocol = EvaluationProtocol("100 games", epsilon=0.0, games=100)
    result = play_games(policy, game_of(settings), protocol, num_envs=20, seed=7, reporter=ProgressReporter())
    assert result.mean >= 475
