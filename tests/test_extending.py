"""A parameterization, a network and an agent from outside of the package: a file of their own and one row each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import toys
from small_runs import CPU, agent_for, assert_same, outcome, settings_for, train

from wn_dqn.config import registry
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError
from wn_dqn.nn.folding import fold
from wn_dqn.nn.standard import Conv2d, Linear
from wn_dqn.runs.policy import load_policy


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PARAMETERIZATIONS, "halves", toys.PARAMETERIZATION)
    monkeypatch.setitem(registry.NETWORKS, "coarse", toys.NETWORK)
    monkeypatch.setitem(registry.AGENTS, "pessimist", toys.AGENT)


def toy_settings(total_steps: int = 320) -> Settings:
    return settings_for(
        param="halves", agent="pessimist", network={"name": "coarse"}, learning={"total_steps": total_steps}
    )


def test_they_are_trained_resumed_and_folded(tmp_path: Path) -> None:
    assert train(toy_settings(), tmp_path / "whole") == 0
    assert train(toy_settings(144), tmp_path / "resumed") == 0
    assert train(toy_settings(), tmp_path / "resumed") == 0
    whole, resumed = (outcome(tmp_path / name) for name in ("whole", "resumed"))
    for each in (whole, resumed):
        each["tables"]["metrics.csv"] = each["tables"]["metrics.csv"][-1]
    assert_same(whole["state"]["agent"], resumed["state"]["agent"])
    assert_same(whole["tables"]["metrics.csv"], resumed["tables"]["metrics.csv"])
    agent = load_policy(tmp_path / "resumed", "last", CPU).agent
    assert type(agent) is toys.PessimisticDQN
    assert type(agent.online) is toys.CoarseNetwork
    assert {type(layer) for layer in agent.online.children()} == {toys.HalvedLinear, toys.HalvedConv2d}
    plain = fold(agent.online)
    assert {type(layer) for layer in plain.children()} == {Linear, Conv2d}
    obs = torch.randint(0, 256, (20, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    q = agent.q_values(obs)
    assert q.std() > 0.01
    torch.testing.assert_close(plain(obs), q, rtol=1e-5, atol=1e-5)


def test_a_toy_agent_learns_by_its_own_target() -> None:
    dqn, toy = agent_for(settings_for(network={"name": "coarse"}), 3), agent_for(toy_settings(), 3)
    zeros, one = torch.zeros(2), torch.ones(2)
    obs = torch.full((2, 4, 84, 84), 200, dtype=torch.uint8)
    for agent in (dqn, toy):
        agent.target.output.rescale_output_(torch.zeros(3), torch.tensor([1.0, 2.0, 8.0]))
    assert dqn._td_target(zeros, one, obs).tolist() == [8.0, 8.0]
    assert toy._td_target(zeros, one, obs).tolist() == [4.0, 4.0]


def test_a_network_without_a_dueling_form_says_so() -> None:
    with pytest.raises(UsageError, match=r"the network coarse has no dueling form: set network\.dueling=false"):
        agent_for(settings_for(network={"name": "coarse", "dueling": True}), 3)


def test_without_their_rows_they_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry.PARAMETERIZATIONS, "halves")
    with pytest.raises(UsageError, match="invalid value 'halves' for param"):
        toy_settings()
