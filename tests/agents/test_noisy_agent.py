"""An agent with noisy layers: what is noisy and what is not, where its noise comes from, and how it is kept."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import CPU, assert_same
from torch import Tensor

from wn_dqn.config.files import make_settings
from wn_dqn.envs.catch import VECTOR_SPEC
from wn_dqn.nn.noisy import Noise
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.parts import make_agent as make_any_agent
from wn_dqn.seeding import numpy_generator
from wn_dqn.training.agent import Measured
from wn_dqn.training.q_learning import double_q_learning_target, q_learning_target
from wn_dqn_agents.dqn import DQN

B, A = 12, 3
OBS = torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


def make_agent(agent: str = "dqn", param: str = "wn", *, noisy: bool = True, **network: Any) -> DQN:
    """Initialized, in float64."""
    sizes = {"hidden": [16, 16], "noisy": noisy, **network}
    settings = {"game": "CatchVector", "agent": agent, "param": param, "network": sizes, "seed": 5}
    made: Any = make_any_agent(make_settings(settings), VECTOR_SPEC, CPU)
    made.online.double()
    made.target.double()
    made.initialize(OBS)
    return made  # type: ignore[no-any-return]


def minibatch(number: int) -> TransitionBatch:
    generator = torch.Generator().manual_seed(number)
    index = torch.randint(0, len(OBS) - 1, (B,), generator=generator)
    reward = torch.randn(B, generator=generator)
    return TransitionBatch(OBS[index], torch.arange(B) % A, reward, torch.full((B,), 0.9), OBS[index + 1])


@pytest.mark.parametrize("name", ["dqn", "double-dqn"])
def test_each_pass_of_an_update_has_a_sample_of_its_own(name: str) -> None:
    """From the stream named noise, in the order learning, target, choosing; one sample for all transitions."""
    agent, batch = make_agent(name, "standard"), minibatch(0)
    agent.online.output.rescale_output_(torch.tensor([1.0, 2.0, 3.0]).double(), torch.zeros(A).double())  # type: ignore[operator,union-attr]
    learned, noise = copy.deepcopy(agent.online), Noise(agent.online, numpy_generator(5, "noise"))
    noise.draw_("learning", "target", "choosing")
    with torch.no_grad():
        with noise.of(learned, "learning"):
            q = learned(batch.obs)
        with noise.of(agent.target, "target"):
            next_q = agent.target(batch.next_obs)
        with noise.of(learned, "choosing"):
            choosing = learned(batch.next_obs)
    y = q_learning_target(batch.reward, batch.discount, next_q)
    if name == "double-dqn":
        y = double_q_learning_target(batch.reward, batch.discount, next_q, choosing)
    torch.testing.assert_close(agent.update(batch).td_error, y - q[range(B), batch.action])
    assert (y - q_learning_target(batch.reward, batch.discount, agent.target(batch.next_obs))).abs().max() > 0.1


def test_it_acts_with_noise_and_is_tested_without() -> None:
    agent = make_agent()
    noise = Noise(agent.online, numpy_generator(5, "noise"))
    actions = set()
    for _ in range(8):
        noise.draw_("acting")
        with noise.of(agent.online, "acting"):
            expected = agent.online(OBS).argmax(dim=1).numpy()
        acted = agent.act(OBS, 0.0)
        np.testing.assert_array_equal(acted, expected)
        actions.add(tuple(acted))
    assert len(actions) == 8
    torch.testing.assert_close(agent.q_values(OBS), agent.online(OBS), rtol=0, atol=1e-9)


def test_random_actions_draw_no_noise_and_do_not_depend_on_it() -> None:
    noisy, plain = make_agent(), make_agent(noisy=False)
    np.testing.assert_array_equal(noisy.act(OBS, 1.0), plain.act(OBS, 1.0))
    assert noisy.state_dict()["noise"] == numpy_generator(5, "noise").bit_generator.state
    assert noisy.state_dict()["exploration"] == plain.state_dict()["exploration"]
    assert "noise" not in plain.state_dict()


def test_it_starts_with_the_q_values_of_an_agent_without_noise() -> None:
    assert torch.equal(make_agent().q_values(OBS), make_agent(noisy=False).q_values(OBS))


def learn(agent: DQN, number: int) -> list[Tensor]:
    agent.update(minibatch(number))
    return [torch.from_numpy(agent.act(OBS, 0.1)), *agent.update(minibatch(number + 1))]


@pytest.mark.parametrize(("name", "param"), [("double-c51", "wn"), ("dqn", "bn")])
def test_it_goes_on_bit_for_bit_from_its_state_and_instruments_draw_from_a_copy(name: str, param: str) -> None:
    """The instruments' update has the noise that the next update really has."""
    agent, restored = make_agent(name, param, dueling=True), make_agent(name, param, dueling=True)
    learn(agent, 0)
    restored.load_state_dict(agent.state_dict())
    for number in range(3):
        measured = agent.diagnostics(Measured(minibatch(number), OBS))
        assert_same(measured, restored.diagnostics(Measured(minibatch(number), OBS)))
        agent.histograms(Measured(minibatch(number), OBS))
        seen, again = learn(agent, number), learn(restored, number)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen, again, strict=True))
    assert_same(agent.state_dict(), restored.state_dict())
    metrics = agent.diagnostics(Measured(minibatch(9), OBS))
    sigma = agent.online.get_parameter("hidden_value.sigma")
    assert metrics["layers/hidden_value/sigma_norm_mean"] == pytest.approx(sigma.norm(dim=1).mean().item())
    assert "layers/trunk.0/sigma_norm_mean" not in metrics
    expected = metrics["td_error/abs_td_error"]
    assert agent.update(minibatch(9)).td_error.abs().mean().item() == pytest.approx(expected)


def test_sigma_is_learned() -> None:
    agent = make_agent(param="standard")
    before = copy.deepcopy(agent.online)
    agent.update(minibatch(0))
    for name in ("hidden.sigma_bias", "output.sigma_bias", "output.sigma"):
        changed = agent.online.get_parameter(name) != before.get_parameter(name)
        assert changed.float().mean() > 0.5, name  # a unit that is 0 for the whole minibatch has no gradient
