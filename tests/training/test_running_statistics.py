"""The running mean and variance, and observations that are normalized by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import CPU, assert_same, outcome, settings_for, train

from wn_dqn.errors import UsageError
from wn_dqn.interop.export import export
from wn_dqn.interop.load_export import load_exported
from wn_dqn.nn.folding import fold
from wn_dqn.nn.input_normalization import InputNormalization
from wn_dqn.runs.experiment import Experiment
from wn_dqn.runs.policy import load_policy
from wn_dqn.training.running_statistics import RunningStatistics


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 100))
def test_they_are_those_of_all_vectors_together(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(3.0, 2.0, (size, 4)).astype(np.float32) for size in sizes]
    statistics = RunningStatistics(4)
    for batch in batches:
        statistics.add(batch)
    together = np.concatenate(batches).astype(np.float64)
    assert statistics.count == len(together)
    np.testing.assert_allclose(statistics.mean, together.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(statistics.variance, together.var(axis=0), rtol=1e-5, atol=1e-6)
    copy = RunningStatistics(4)
    copy.load_state_dict(statistics.state_dict())
    assert_same(copy.state_dict(), statistics.state_dict())


def test_statistics_of_other_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="not those of these games"):
        RunningStatistics(3).load_state_dict(RunningStatistics(4).state_dict())


def test_normalization_by_hand() -> None:
    """Two frames of two numbers in an observation; nothing counts as further out than ten standard deviations."""
    normalization = InputNormalization(4)
    normalization.set_(torch.tensor([1.0, -1.0]), torch.tensor([4.0, 0.0]))
    x = normalization(torch.tensor([[3.0, -1.0, -1.0, 5.0]]))
    torch.testing.assert_close(x, torch.tensor([[1.0, 0.0, -1.0, 10.0]]))


def settings(**environment: Any) -> Any:
    return settings_for(
        game="toy_envs:Walk",
        environment={"num_envs": 4, "normalize_observations": True, "stack": 2, **environment},
        network={"hidden": [8]},
    )


def test_a_run_learns_its_statistics_and_goes_on_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits, stopped or not. A policy and an export take them along; an evaluation leaves them as they are."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(settings(), whole)
    with monkeypatch.context() as patch:
        original = Experiment.after_step

        def after_step(experiment: Experiment, state: Any) -> None:
            original(experiment, state)
            if state.steps >= 150:
                experiment.stop.request("the test", 0)

        patch.setattr(Experiment, "after_step", after_step)
        train(settings(), stopped)
    train(settings(), stopped)
    assert_same(outcome(stopped), outcome(whole))

    policy = load_policy(whole, "last", CPU, trust=True)
    normalization = policy.agent.online.normalization
    assert normalization is not None
    statistics = outcome(whole)["state"]["training"]["statistics"]
    assert statistics["count"] == 320 + 3 * 4, "every step, and the first frames of three epochs; no test game"
    assert normalization.mean[:3].numpy() == pytest.approx(statistics["mean"].numpy(), rel=0.1)
    assert torch.equal(normalization.mean[:3], normalization.mean[3:])
    obs = torch.randn(5, 6)
    torch.testing.assert_close(fold(policy.agent.online)(obs), policy.q_values(obs))
    file = tmp_path / "q.safetensors"
    export(policy, file, "safetensors", [])
    torch.testing.assert_close(load_exported(file, CPU, trust=True).q_values(obs), policy.q_values(obs))


def test_images_are_not_normalized(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is for vectors of float32, not for bool \[2, 6, 5\]"):
        train(settings_for(game="toy_envs:Bits", environment={"normalize_observations": True}), tmp_path)
