"""C51 and Double C51 against a naive version, from one start for all parameterizations, and saved and put back."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from small_runs import CPU, assert_same
from torch import Tensor

from wn_dqn.config.files import make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.envs.catch import VECTOR_SPEC
from wn_dqn.errors import UsageError
from wn_dqn.nn.folding import fold
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.parts import make_agent as make_any_agent
from wn_dqn.training.agent import Measured
from wn_dqn_agents.c51 import C51

B, A = 12, 3
NETWORK = {"hidden": [16, 16]}
OBS = torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


def make_agent(agent: str = "c51", param: str = "wn", **sections: Any) -> C51:
    """Initialized, in float64."""
    network = NETWORK | sections.pop("network", {})
    settings = make_settings(
        {"game": "CatchVector", "agent": agent, "param": param, "network": network, "seed": 0} | sections
    )
    made = make_any_agent(settings, VECTOR_SPEC, CPU)
    assert isinstance(made, C51)
    made.online.double()
    made.target.double()
    made.initialize(OBS)
    return made


def minibatch(number: int, weight: Tensor | None = None) -> TransitionBatch:
    generator = torch.Generator().manual_seed(number)
    index = torch.randint(0, len(OBS) - 1, (B,), generator=generator)
    reward = torch.randn(B, generator=generator) * 4.0  # so that some returns lie beyond the last atom
    discount = torch.where(torch.arange(B) % 3 == 0, 0.0, 0.97)
    return TransitionBatch(OBS[index], torch.arange(B) % A, reward, discount, OBS[index + 1], weight)


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(logit) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def naive_targets(agent: C51, batch: TransitionBatch, double: bool) -> list[list[float]]:
    """Algorithm 1 of the paper, one transition and one atom at a time."""
    num_atoms, low, high = 51, -10.0, 10.0
    atoms = [low + i * (high - low) / (num_atoms - 1) for i in range(num_atoms)]
    with torch.no_grad():
        target, online = (network.outputs(batch.next_obs).tolist() for network in (agent.target, agent.online))
    targets = []
    for row in range(B):
        p = [softmax(logits) for logits in target[row]]
        choosing = [softmax(logits) for logits in online[row]] if double else p
        q = [sum(z * each for z, each in zip(atoms, action, strict=True)) for action in choosing]
        m = [0.0] * num_atoms
        for z, probability in zip(atoms, p[q.index(max(q))], strict=True):
            x = min(max(batch.reward[row].item() + batch.discount[row].item() * z, low), high)
            b = (x - low) / (high - low) * (num_atoms - 1)
            lower = min(math.floor(b), num_atoms - 2)
            m[lower] += probability * (lower + 1 - b)
            m[lower + 1] += probability * (b - lower)
        targets.append(m)
    return targets


@pytest.mark.parametrize(
    ("agent_name", "dueling", "weighted"), [("c51", False, True), ("double-c51", True, False), ("c51", True, False)]
)
def test_updates_equal_a_naive_implementation(agent_name: str, dueling: bool, weighted: bool) -> None:
    weight = torch.linspace(0.1, 1.0, B, dtype=torch.float64) if weighted else None
    rate = {"learning_rate": 1e-2}  # so that both networks soon disagree
    agent = make_agent(agent_name, "standard", network={"dueling": dueling}, optimizer=rate)
    assert [type(agent).__name__] == [{"c51": "C51", "double-c51": "DoubleC51"}[agent_name]]
    naive = copy.deepcopy(agent.online)
    optimizer = torch.optim.Adamax(naive.parameters(), lr=1e-2, betas=(0.5, 0.999), foreach=False)
    for number in range(4):
        batch = minibatch(number, weight)
        targets = torch.tensor(naive_targets(agent, batch, agent_name == "double-c51"), dtype=torch.float64)
        log_p = naive.outputs(batch.obs).log_softmax(dim=2)[range(B), batch.action]
        entropy = torch.tensor([sum(-p * math.log(p) for p in row if p > 0) for row in targets.tolist()])
        losses = -(targets * log_p).sum(dim=1) - entropy
        loss = (losses if weight is None else weight * losses).mean()
        q = naive(batch.obs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen = agent.update(batch)
        assert seen.loss.item() == pytest.approx(loss.item(), rel=1e-6)
        torch.testing.assert_close(seen.priority, losses.detach(), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(seen.mean_q, q.amax(dim=1).mean().detach())
        error = targets @ torch.linspace(-10, 10, 51, dtype=torch.float64) - q[range(B), batch.action].detach()
        torch.testing.assert_close(seen.td_error, error, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(agent.online.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("init", "dueling"), [("data", False), ("data", True), ("torch", False), ("nature", True)])
def test_all_parameterizations_start_with_the_same_distributions(init: str, dueling: bool) -> None:
    network = {"init": init, "init_centred": True, "dueling": dueling, "output_init_scale": 0.1}
    names = [name for name, row in PARAMETERIZATIONS.items() if row.start != "own"]
    p = {param: make_agent(param=param, network=network).online.outputs(OBS).softmax(2) for param in names}
    assert p["standard"].std() > 1e-5
    for param, ours in p.items():
        torch.testing.assert_close(ours, p["standard"], rtol=0, atol=1e-9, msg=param)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_logits_start_at_the_scale_that_is_set(scale: float) -> None:
    logits = make_agent(network={"output_init_scale": scale}).online.outputs(OBS)
    assert logits.shape == (len(OBS), A, 51)
    std, mean = torch.std_mean(logits.detach(), dim=0, correction=0)
    torch.testing.assert_close(std, torch.full_like(std, scale))
    torch.testing.assert_close(mean, torch.zeros_like(mean))


@pytest.mark.parametrize("param", PARAMETERIZATIONS)
def test_a_folded_network_has_the_means_of_the_distributions(param: str) -> None:
    agent = make_agent(param=param)
    agent.update(minibatch(0))
    q = agent.q_values(OBS)
    atoms = torch.linspace(-10, 10, 51, dtype=torch.float64)
    torch.testing.assert_close(q, agent.online.outputs(OBS).softmax(dim=2).detach() @ atoms)
    torch.testing.assert_close(fold(agent.online)(OBS).double(), q, rtol=0, atol=1e-4)


def test_it_goes_on_bit_for_bit_from_its_state_and_instruments_change_nothing() -> None:
    agent, restored = make_agent("double-c51"), make_agent("double-c51", seed=1)
    for number in range(3):
        agent.update(minibatch(number))
    restored.load_state_dict(agent.state_dict())
    for number in range(3, 6):
        measured = agent.diagnostics(Measured(minibatch(number), OBS))
        seen, again = agent.update(minibatch(number)), restored.update(minibatch(number))
        assert measured["td_error/abs_td_error"] == pytest.approx(seen.td_error.abs().mean().item())
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen, again, strict=True))
    assert_same(agent.state_dict(), restored.state_dict())


def test_bfloat16_rounds_neither_the_softmax_nor_the_target() -> None:
    rounded, exact = (make_agent(learning={"precision": precision}) for precision in ("bf16", "float32"))
    for agent in (rounded, exact):
        agent.online.float()
        agent.target.float()
    batch = minibatch(0)
    target = rounded._td_target(batch.reward, batch.discount, batch.next_obs)
    assert target.dtype == rounded.q_values(OBS).dtype == torch.float32
    torch.testing.assert_close(target.sum(dim=1), torch.ones(B), rtol=0, atol=1e-5)
    seen, expected = rounded.update(batch), exact.update(batch)
    assert seen.loss != expected.loss
    torch.testing.assert_close(seen.loss, expected.loss, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"agent": "dqn", "network": {"atoms": 51}},
            r"network\.atoms is for agents .*\(c51, double-c51\), not for dqn",
        ),
        (
            {"agent": "c51", "network": {"v_min": 1, "v_max": 1}},
            r"network\.v_min \(1\) must be less than .*v_max \(1\)",
        ),
        ({"agent": "c51", "network": {"atoms": 1}}, r"invalid value 1 for network\.atoms"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_settings({"game": "Catch", **settings})


def test_the_agent_brings_its_atoms() -> None:
    assert make_settings({"game": "Catch"}).network.atoms is None
    assert make_settings({"game": "Catch", "agent": "c51"}).network.atoms == 51
    assert make_settings({"game": "Catch", "agent": "double-c51", "network": {"atoms": 11}}).network.atoms == 11
