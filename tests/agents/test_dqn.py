"""The DQN agent against a naive one, its exploration, and exact continuation from what it saves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import agent_for, assert_same
from stacked import Stacked
from torch import Tensor

from wn_dqn.config import registry
from wn_dqn.config.files import make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.envs.catch import Catch
from wn_dqn.errors import RunError, UsageError
from wn_dqn.nn.optimizers import OPTIMIZERS
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.checkpoint import load_checkpoint, save_checkpoint
from wn_dqn.seeding import torch_generator
from wn_dqn.training.agent import Measured
from wn_dqn_agents.double_dqn import DoubleDQN
from wn_dqn_agents.dqn import DQN

# An agent does not know the layers' sizes; what is compared with numbers of the real network has that one.
pytestmark = pytest.mark.usefixtures("small_network")

NUM_ACTIONS = 6
BATCH_SIZE = 12
# To an agent, wn-projected and ws are wn, and ln is the part of ln-wn-projected that keeps nothing.
PARAMS = [name for name in PARAMETERIZATIONS if name not in ("wn-projected", "ws", "ln")]
each_param = pytest.mark.parametrize("param", PARAMS)


def catch_frames(num: int = 48) -> Tensor:
    """Consecutive observations of one game after another."""
    env, rng = Stacked(Catch(1)), np.random.default_rng(0)
    seen = [env.reset(np.array([3]))]
    while len(seen) < num:
        env.send(rng.integers(0, 3, 1))
        seen.append(env.receive().obs)
    return torch.from_numpy(np.concatenate(seen))


FRAMES = catch_frames()


def make_agent(param: str = "wn", seed: int = 0, **sections: Any) -> DQN:
    settings = make_settings({"game": "Catch", "param": param, "seed": seed, **sections})
    agent: DQN = agent_for(settings, NUM_ACTIONS)
    return agent


def initialized_agent(param: str = "wn", **settings: Any) -> DQN:
    agent = make_agent(param, **settings)
    agent.initialize(FRAMES)
    return agent


def minibatch(number: int) -> TransitionBatch:
    """Transitions of which a third are terminal, with every action and rewards from -1 to 1."""
    generator = torch.Generator().manual_seed(number)
    index = torch.randint(0, len(FRAMES) - 1, (BATCH_SIZE,), generator=generator)
    return TransitionBatch(
        obs=FRAMES[index],
        action=torch.arange(BATCH_SIZE) % NUM_ACTIONS,
        reward=torch.randint(-1, 2, (BATCH_SIZE,), generator=generator).float(),
        discount=torch.where(torch.arange(BATCH_SIZE) % 3 == 0, 0.0, 0.99),
        next_obs=FRAMES[index + 1],
    )


def values(network: torch.nn.Module) -> list[Tensor]:
    """Parameters, and running statistics where there are any."""
    return [tensor.detach().clone() for tensor in (*network.parameters(), *network.buffers())]


def named_values(network: torch.nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


def same(network: torch.nn.Module, other: torch.nn.Module | list[Tensor]) -> bool:
    others = values(other) if isinstance(other, torch.nn.Module) else other
    return all(torch.equal(ours, theirs) for ours, theirs in zip(values(network), others, strict=True))


def fake_q(agent: DQN, action: int) -> None:
    """Make the network want `action` everywhere."""
    q = F.one_hot(torch.tensor(action), NUM_ACTIONS).float()
    agent.q_values = lambda obs: q.expand(len(obs), NUM_ACTIONS)  # type: ignore[method-assign]


def observations(num: int) -> Tensor:
    return FRAMES[:1].expand(num, 4, 84, 84)


# --- Learning ---

# Sum and sum of squares of all parameters after 5, 10 and 20 updates in float64. An optimization leaves them as they
# are; what changes them changes the algorithm.
TRACE: dict[str, list[tuple[float, float]]] = {
    "standard": [
        (72.82373401040272, 4566.327350297815),
        (53.41171034451666, 4566.30017898569),
        (40.54663956444091, 4566.3116686703615),
    ],
    "wn": [
        (1374.8507816597703, 10203.358548412889),
        (1314.3438797909166, 10204.420465968029),
        (1271.3205510607988, 10205.26798200584),
    ],
}


def on_a_grid_(v: Tensor, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """In place of `normal_`, whose float32 numbers differ in the last bit from processor to processor."""
    return v.copy_(mean + std * torch.randint(-512, 513, v.shape, generator=generator) / 256)


@pytest.mark.parametrize("param", TRACE)
@pytest.mark.usefixtures("nature_network")
def test_determinism_trace(param: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(param)
    agent.online.double()
    agent.target.double()
    monkeypatch.setattr(Tensor, "normal_", on_a_grid_)
    agent.initialize(FRAMES)
    trace = []
    for number in range(1, 21):
        agent.update(minibatch(number))
        if number == 8:
            agent.update_target()
        if number in (5, 10, 20):
            flat = torch.cat([parameter.detach().flatten() for parameter in agent.online.parameters()])
            trace.append((flat.sum().item(), flat.square().sum().item()))
    assert trace == [pytest.approx(expected, rel=1e-9) for expected in TRACE[param]]


@pytest.mark.usefixtures("nature_network")
def test_bfloat16_rounds_what_is_multiplied_and_nothing_else() -> None:
    """Parameters, loss and Q-values stay float32; the first update is close to float32's, and not equal."""
    exact, rounded = initialized_agent(), initialized_agent(learning={"precision": "bf16"})
    for agent in (exact, rounded):
        assert {parameter.dtype for parameter in agent.online.parameters()} == {torch.float32}
    expected, given = exact.update(minibatch(0)), rounded.update(minibatch(0))
    assert given.loss.dtype == given.mean_q.dtype == rounded.q_values(FRAMES).dtype == torch.float32
    assert given.loss != expected.loss
    torch.testing.assert_close(given.loss, expected.loss, rtol=0.05, atol=0)
    torch.testing.assert_close(given.mean_q, expected.mean_q, rtol=0.05, atol=0)
    for name, ours in rounded.online.named_parameters():
        theirs = dict(exact.online.named_parameters())[name]
        assert ours.grad is not None
        assert theirs.grad is not None
        difference = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert 0 < difference < 0.3, name


def naive_q(state: dict[str, Tensor], obs: Tensor, training: bool = False) -> Tensor:
    """The Nature network, or its dueling form, as plain functions; in training normalized with the batch, and moving
    running averages."""

    def normalized(name: str, t: Tensor) -> Tensor:
        if f"{name}.running_mean" not in state:
            return t
        samples = t.transpose(0, 1).flatten(1)  # a row per unit
        if training:
            batch = {"running_mean": samples.mean(dim=1), "running_var": samples.var(dim=1)}
            for key in {f"{name}.{statistic}" for statistic in batch} & state.keys():
                state[key] = 0.9 * state[key] + 0.1 * batch[key.removeprefix(f"{name}.")].detach()
            mean, var = samples.mean(dim=1), samples.var(dim=1, correction=0)
        else:
            mean, var = state[f"{name}.running_mean"], state.get(f"{name}.running_var")
        if f"{name}.gain" not in state:
            return t - mean.view(-1, *[1] * (t.ndim - 2))
        scale = state[f"{name}.gain"] / (var + 1e-5).sqrt()  # type: ignore[operator]
        return (t - mean.view(-1, *[1] * (t.ndim - 2))) * scale.view(-1, *[1] * (t.ndim - 2))

    def weight(name: str) -> Tensor:
        if f"{name}.weight" in state:
            return state[f"{name}.weight"]
        v = state[f"{name}.v"]
        g = state[f"{name}.s"].exp() if f"{name}.s" in state else state[f"{name}.g"]
        return torch.stack([scale * direction / direction.square().sum().sqrt() for scale, direction in zip(g, v)])  # noqa: B905

    x = obs.double() / 255
    for name, stride in (("conv1", 4), ("conv2", 2), ("conv3", 1)):
        t = normalized(name, F.conv2d(x, weight(name), stride=stride))
        x = (t + state[f"{name}.bias"][:, None, None]).clamp(min=0)

    def stream(hidden: str, output: str) -> Tensor:
        h = (normalized(hidden, x.flatten(1) @ weight(hidden).T) + state[f"{hidden}.bias"]).clamp(min=0)
        return normalized(output, h @ weight(output).T) + state[f"{output}.bias"]

    if "output.bias" in state:
        return stream("hidden", "output")
    value, advantage = stream("hidden_value", "value"), stream("hidden_advantage", "advantage")
    return torch.stack([v + a - sum(a) / len(a) for v, a in zip(value, advantage, strict=True)])


@pytest.mark.parametrize(
    ("param", "lr", "reduction", "loss_name", "changed"),
    [
        ("standard", 1e-4, "mean", "huber", ""),
        ("wn", 3e-4, "mean", "huber", ""),
        ("wn", 3e-4, "mean", "huber", "weighted"),
        ("wn", 3e-4, "sum", "huber", ""),
        ("wn", 3e-4, "sum", "mse", "weighted"),
        ("wn-projected", 3e-4, "mean", "huber", ""),
        ("wn-exp", 3e-4, "mean", "huber", ""),
        ("mean-only-bn", 1e-4, "mean", "huber", ""),
        ("wn-mean-only-bn", 3e-4, "mean", "huber", ""),
        ("bn", 3e-4, "mean", "huber", ""),
        ("wn", 3e-4, "mean", "huber", "dueling"),
        ("bn", 3e-4, "mean", "huber", "dueling"),
    ],
)
def test_updates_equal_a_naive_implementation(
    param: str, lr: float, reduction: str, loss_name: str, changed: str
) -> None:
    """Three updates in float64, with a copy to the target network before the third."""
    weight = torch.linspace(0.1, 1.0, BATCH_SIZE, dtype=torch.float64) if changed == "weighted" else None
    learning = {"loss_reduction": reduction, "loss": loss_name}
    agent = make_agent(param, learning=learning, network={"dueling": changed == "dueling"})
    agent.online.double()
    agent.target.double()
    agent.initialize(FRAMES)
    online = {name: tensor.detach().clone() for name, tensor in agent.online.state_dict().items()}
    target = dict(online)
    parameters = [online[name].requires_grad_() for name, _ in agent.online.named_parameters()]
    optimizer = torch.optim.Adamax(parameters, lr=lr, betas=(0.5, 0.999), eps=1e-8, foreach=False)
    num_clipped = 0
    for number in range(3):
        if number == 2:
            agent.update_target()
        if number in (0, 2):
            target = {name: tensor.detach().clone() for name, tensor in online.items()}
        batch = minibatch(number)._replace(weight=weight)
        metrics = agent.update(batch)
        q, next_q = naive_q(online, batch.obs, training=True), naive_q(target, batch.next_obs)
        losses = []
        for i in range(BATCH_SIZE):
            y = batch.reward[i] + batch.discount[i] * max(next_q[i])
            error = (q[i, batch.action[i]] - y).abs()
            error_loss = error - 0.5 if error > 1 and loss_name == "huber" else error**2 / 2
            losses.append(error_loss if weight is None else weight[i] * error_loss)
            num_clipped += int(error > 1)
        loss = sum(losses) / (BATCH_SIZE if reduction == "mean" else 1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        if param == "wn-projected":
            with torch.no_grad():
                for name in ("conv1", "conv2", "conv3", "hidden", "output"):
                    for direction in online[f"{name}.v"]:
                        direction /= direction.square().sum().sqrt()
        assert metrics.loss.item() == pytest.approx(loss.item(), rel=1e-10)  # type: ignore[union-attr]
        assert metrics.mean_q.item() == pytest.approx(q.max(dim=1).values.mean().item(), rel=1e-10)
    assert 0 < num_clipped < 3 * BATCH_SIZE
    for name, tensor in agent.online.state_dict().items():
        torch.testing.assert_close(tensor, online[name].detach(), rtol=0, atol=1e-9, msg=f"{name} differs")
    for name, tensor in agent.target.state_dict().items():
        torch.testing.assert_close(tensor, target[name], rtol=0, atol=1e-9, msg=f"{name} of the target differs")


@pytest.mark.parametrize(
    ("param", "optimizer", "lr"),
    [("standard", {}, 1e-4), ("wn", {}, 3e-4), ("wn", {"learning_rate": 1e-3}, 1e-3)],
)
def test_the_learning_rate_is_the_parameterizations(param: str, optimizer: dict[str, Any], lr: float) -> None:
    """Adamax's first step is its learning rate in every element that has a gradient to speak of."""
    agent = initialized_agent(param, optimizer=optimizer)
    before = values(agent.online)
    agent.update(minibatch(0))
    changes = [(new - old).abs().max().item() for new, old in zip(values(agent.online), before, strict=True)]
    assert changes == pytest.approx([lr] * len(changes), rel=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_that_is_set_is_taken_from_the_next_update_on(name: str) -> None:
    """A hundredth of the rate makes a hundredth of the step: each optimizer's first step is linear in it."""
    steps = []
    for rate in (1e-3, 1e-5):
        agent = initialized_agent(optimizer={"name": name})
        agent.set_learning_rate(rate)
        before = values(agent.online)
        agent.update(minibatch(0))
        steps.append([(new - old).double().norm() for new, old in zip(values(agent.online), before, strict=True)])
    for large, small in zip(*steps, strict=True):
        assert small.item() == pytest.approx(large.item() / 100, rel=0.05)


def test_the_optimizer_is_the_one_asked_for() -> None:
    """The first step of rmsprop-nature is small where the gradient is: lr d / sqrt(0.0475 d^2 + 0.01)."""
    agent = initialized_agent(optimizer={"name": "rmsprop-nature"})
    before = values(agent.online)
    agent.update(minibatch(0))
    for parameter, old in zip(agent.online.parameters(), before, strict=True):
        assert parameter.grad is not None
        step = 2.5e-4 * parameter.grad / (0.0475 * parameter.grad**2 + 0.01).sqrt()
        torch.testing.assert_close(parameter.detach(), old - step, rtol=1e-6, atol=1e-7)


@each_param
def test_an_update_changes_the_online_network_only(param: str) -> None:
    agent = initialized_agent(param)
    before = values(agent.target)
    metrics = agent.update(minibatch(0))
    assert same(agent.target, before)
    kept = {name for name, _ in agent.online.named_buffers() if name.endswith(("scale", "first_norm"))}
    for (name, new), old in zip(named_values(agent.online), before, strict=True):
        assert torch.equal(new, old) == (name in kept), name
    assert all(parameter.grad is None for parameter in agent.target.parameters())
    for metric, shape in zip(metrics, [(), (), (BATCH_SIZE,), (BATCH_SIZE,)], strict=True):
        assert metric.shape == shape
        assert metric.dtype == torch.float32
        assert not metric.requires_grad
    agent.update_target()
    assert same(agent.target, agent.online)
    copied = values(agent.target)
    agent.update(minibatch(1))
    assert same(agent.target, copied)


@each_param
def test_the_online_network_chooses_and_the_target_network_values(param: str) -> None:
    """Double DQN. Both as they act: only the pass that is learned from moves running averages."""
    rate = {"learning_rate": 3e-3}  # so that the networks soon disagree
    settings = make_settings({"game": "Catch", "param": param, "agent": "double-dqn", "optimizer": rate})
    agent = agent_for(settings, NUM_ACTIONS)
    assert type(agent) is DoubleDQN
    agent.initialize(FRAMES)
    for number in range(3):  # apart from the target network
        agent.update(minibatch(number))
    batch, learner = minibatch(3), copy.deepcopy(agent.online).train()
    with torch.no_grad():
        online_q, target_q = agent.online(batch.next_obs), agent.target(batch.next_obs)
        q = learner(batch.obs)
    y, differs = torch.empty(BATCH_SIZE), 0
    for i in range(BATCH_SIZE):
        chosen = max(range(NUM_ACTIONS), key=online_q[i].tolist().__getitem__)
        y[i] = batch.reward[i] + batch.discount[i] * target_q[i, chosen]
        differs += int(target_q[i, chosen] < target_q[i].max() and batch.discount[i] > 0)
    assert differs > 0, "these networks should not always agree"
    expected = F.huber_loss(q[range(BATCH_SIZE), batch.action], y)
    assert agent.update(batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    moved = dict(agent.online.named_buffers())
    for name, buffer in learner.named_buffers():
        torch.testing.assert_close(moved[name], buffer)


# --- Initialization ---


@each_param
def test_initialization_is_from_data_and_reaches_the_target_network(param: str) -> None:
    agent = make_agent(param)
    assert agent.initialize(FRAMES) == {"batch_size": len(FRAMES), "dead_units": 0}
    assert same(agent.target, agent.online)
    q = agent.q_values(FRAMES)
    torch.testing.assert_close(q.mean(dim=0), torch.zeros(NUM_ACTIONS), rtol=0, atol=1e-5)
    torch.testing.assert_close(q.std(dim=0, correction=0), torch.ones(NUM_ACTIONS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("init", ["data", "torch", "nature"])
def test_all_parameterizations_start_as_the_same_function(init: str, dueling: bool) -> None:
    """With an equal seed, and with the output's scale; on the batch also as they are trained, with its statistics.

    But for those with a start of their own.
    """
    network = {"init": init, "init_centred": True, "output_init_scale": 0.1, "dueling": dueling}
    names = [name for name, row in PARAMETERIZATIONS.items() if row.start != "own"]
    agents = {param: make_agent(param, network=network) for param in names}
    for agent in agents.values():
        agent.online.double()
        agent.target.double()
        agent.initialize(FRAMES)
    q = agents["standard"].q_values(FRAMES)
    assert q.std() > 1e-4
    for param, agent in agents.items():
        for version in (agent.q_values(FRAMES), agent.target(FRAMES), agent.online.train()(FRAMES)):
            torch.testing.assert_close(version, q, rtol=0, atol=1e-12, msg=param)
    if init == "data":  # value and each advantage have the standard deviation that Q-values have without dueling
        measured = agents["wn"].diagnostics(Measured(minibatch(0), FRAMES))
        for output in ("value", "advantage") if dueling else ("output",):
            assert measured[f"layers/{output}/preactivation_mean"] == pytest.approx(0.0, abs=1e-12)
            assert measured[f"layers/{output}/preactivation_std"] == pytest.approx(0.1, abs=1e-12)


@each_param
def test_initialization_depends_on_the_seed_only(param: str) -> None:
    agent, busy, other = make_agent(param), make_agent(param), make_agent(param, seed=1)
    busy.act(FRAMES, 0.5)
    for each in (agent, busy, other):
        each.initialize(FRAMES)
    assert same(agent.online, busy.online)
    assert not torch.allclose(agent.q_values(FRAMES), other.q_values(FRAMES), atol=0.1)


@pytest.mark.usefixtures("nature_network")
def test_initialization_draws_from_the_init_stream() -> None:
    agent = initialized_agent()
    v = torch.empty(32, 4, 8, 8).normal_(0.0, 0.05, generator=torch_generator(0, "init"))
    assert torch.equal(agent.online.conv1.v, v)  # type: ignore[arg-type]


# --- Statistics of batches ---


@pytest.mark.parametrize("param", [name for name, row in registry.PARAMETERIZATIONS.items() if row.batch_statistics])
def test_acting_and_targets_use_running_statistics_and_learning_those_of_the_minibatch(param: str) -> None:
    agent = initialized_agent(param)
    agent.update(minibatch(0))
    agent.update_target()
    for q_values in (agent.q_values, agent.target):
        alone = torch.cat([q_values(FRAMES[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(q_values(FRAMES)[:5], alone, rtol=1e-4, atol=1e-5)
    before = values(agent.online)
    agent.act(FRAMES[:7], 0.0)
    assert same(agent.online, before)  # acting moves no average
    batch = minibatch(1)
    learned_from = copy.deepcopy(agent.online).train()(batch.obs).amax(dim=1).mean()
    metrics = agent.update(batch)
    torch.testing.assert_close(metrics.mean_q, learned_from.detach(), rtol=1e-4, atol=1e-5)
    assert abs(metrics.mean_q - agent.q_values(batch.obs).amax(dim=1).mean()) > 1e-3
    assert not any(module.training for module in (*agent.online.modules(), *agent.target.modules()))


@pytest.mark.parametrize("param", [name for name, row in registry.PARAMETERIZATIONS.items() if row.batch_statistics])
def test_a_minibatch_of_one_has_no_statistics(param: str) -> None:
    with pytest.raises(UsageError, match=f"learning.batch_size must be at least 2 for {param}"):
        make_agent(param, learning={"batch_size": 1})


# --- Acting ---


@each_param
def test_without_epsilon_it_is_greedy(param: str) -> None:
    agent = initialized_agent(param)
    action = agent.act(FRAMES, 0.0)
    assert action.dtype == np.int64
    np.testing.assert_array_equal(action, agent.online(FRAMES).argmax(dim=1))
    assert len(set(action.tolist())) > 1


def test_q_values_are_the_online_networks_without_gradients() -> None:
    agent = initialized_agent()
    agent.update(minibatch(0))
    q = agent.q_values(FRAMES)
    torch.testing.assert_close(q, agent.online(FRAMES), rtol=1e-4, atol=1e-5)
    assert (q - agent.target(FRAMES)).abs().max() > 1e-3
    assert not q.requires_grad
    assert q.dtype == torch.float32


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_exploration_is_uniform_with_probability_epsilon(epsilon: float) -> None:
    agent, num = make_agent(), 60_000
    fake_q(agent, 2)
    counts = np.bincount(agent.act(observations(num), epsilon), minlength=NUM_ACTIONS)
    expected = np.full(NUM_ACTIONS, epsilon * num / NUM_ACTIONS)
    expected[2] += (1 - epsilon) * num
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi squared, 5 degrees of freedom: p = 0.001


def test_random_numbers_do_not_depend_on_the_network() -> None:
    """Nor does their number depend on epsilon: two arms of an experiment explore alike."""
    agents = [make_agent(), make_agent("standard")]
    for wanted, agent in enumerate(agents):
        fake_q(agent, wanted)
    for epsilon in (0.5, 1.0, 0.0, 0.3):
        first, second = (agent.act(observations(200), epsilon) for agent in agents)
        differ = first != second
        assert (first[differ] == 0).all()
        assert (second[differ] == 1).all()
        assert differ.mean() == pytest.approx(1 - epsilon, abs=0.1)
    states = [agent.state_dict()["exploration"] for agent in agents]
    assert states[0] == states[1]
    always_greedy = make_agent()
    fake_q(always_greedy, 0)
    for _ in range(4):
        always_greedy.act(observations(200), 0.0)
    assert always_greedy.state_dict()["exploration"] == states[0]


def test_other_seeds_explore_otherwise() -> None:
    first, again, other = (make_agent(seed=seed).act(observations(50), 1.0).tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


# --- Saving ---


def learn(agent: DQN, numbers: range) -> list[Any]:
    """Act and update by turns; everything that can be seen of it."""
    seen: list[Any] = []
    for number in numbers:
        seen.append(agent.act(FRAMES[:8], 0.5).tolist())
        metrics = agent.update(minibatch(number))
        seen += [metrics.loss.item(), metrics.mean_q.item()]
        if number % 3 == 0:
            agent.update_target()
    return seen


each_param_and_each_optimizer = pytest.mark.parametrize(
    ("param", "optimizer"),
    [
        *((param, "adamax") for param in PARAMS),
        *(("wn", name) for name in OPTIMIZERS if name != "adamax"),
    ],
)


@each_param_and_each_optimizer
def test_a_restored_agent_continues_bit_for_bit(param: str, optimizer: str, tmp_path: Path) -> None:
    """Through a checkpoint on disk, into an agent that began elsewhere."""
    agent = initialized_agent(param, optimizer={"name": optimizer})
    learn(agent, range(5))
    path = save_checkpoint(tmp_path, 5, agent.state_dict(), None)
    restored = initialized_agent(param, seed=1, optimizer={"name": optimizer})
    learn(restored, range(100, 102))
    restored.load_state_dict(load_checkpoint(path))
    assert same(restored.online, agent.online)
    assert same(restored.target, agent.target)
    assert not same(restored.target, restored.online)
    assert learn(restored, range(5, 10)) == learn(agent, range(5, 10))
    assert same(restored.online, agent.online)
    assert same(restored.target, agent.target)


def test_an_agent_can_be_restored_without_its_optimizer() -> None:
    """As an evaluation does, which has no use for it."""
    agent, restored = initialized_agent(), make_agent()
    agent.update(minibatch(0))
    restored.load_state_dict({key: value for key, value in agent.state_dict().items() if key != "optimizer"})
    assert torch.equal(restored.q_values(FRAMES), agent.q_values(FRAMES))


def test_the_state_of_a_new_agent_can_be_restored() -> None:
    agent, restored = make_agent(), make_agent(seed=1)
    restored.load_state_dict(agent.state_dict())
    agent.initialize(FRAMES)
    restored.load_state_dict(agent.state_dict())
    assert learn(restored, range(3)) == learn(agent, range(3))


@each_param
def test_loading_its_own_state_changes_nothing(param: str) -> None:
    agent, untouched = initialized_agent(param), initialized_agent(param)
    for number in range(3):
        agent.load_state_dict(agent.state_dict())
        assert learn(agent, range(number, number + 1)) == learn(untouched, range(number, number + 1))
    assert_same(agent.state_dict(), untouched.state_dict())


# --- Watching ---


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["hidden.bias", "conv2.v", "conv1.running_mean"])
def test_parameters_that_are_not_finite_are_an_error(name: str, value: float) -> None:
    agent = initialized_agent("wn-mean-only-bn")
    agent.check_finite()
    with torch.no_grad():
        agent.online.state_dict()[name][3] = value
    with pytest.raises(RunError, match=rf"parameter {name} is NaN or infinite; .* optimizer\.learning_rate"):
        agent.check_finite()


@pytest.mark.parametrize(("param", "dueling"), [*((param, False) for param in PARAMS), ("wn", True)])
def test_diagnostics(param: str, dueling: bool) -> None:
    """Of a network from data: pre-activations as section 3 makes them, and of an update the step really made."""
    agent = initialized_agent(param, network={"dueling": dueling})
    outputs = ("output", "value", "advantage")
    without_relu = {f"layers/{name}/{share}" for name in outputs for share in ("dead_share", "dormant_share")}
    before = copy.deepcopy(agent.online)
    greedy = agent.q_values(FRAMES).argmax(dim=1)
    metrics = agent.diagnostics(Measured(minibatch(3), FRAMES))
    nothing = agent.diagnostics(None)
    assert list(nothing) == list(metrics)
    assert not without_relu & metrics.keys()
    errors = agent.update(minibatch(3)).td_error
    assert metrics.pop("td_error/abs_td_error") == pytest.approx(errors.abs().mean().item())
    assert metrics.pop("td_error/clipped_share") == pytest.approx((errors.abs() > 1).double().mean().item())
    changed = (agent.q_values(FRAMES).argmax(dim=1) != greedy).double().mean().item()
    assert metrics.pop("train/greedy_churn") == pytest.approx(changed)
    for name, layer in agent.online.named_children():
        old = before.get_submodule(name)
        own = {key: metrics.pop(f"layers/{name}/{key}") for key in LAYER_METRICS if f"layers/{name}/{key}" in metrics}
        assert own.pop("w_norm_mean") == pytest.approx(old.weight.flatten(1).norm(dim=1).mean().item())  # type: ignore[operator,union-attr]
        trained = "v" if hasattr(layer, "v") else "weight"
        v, new_v = (each.get_parameter(trained).detach().flatten(1) for each in (old, layer))
        if hasattr(layer, "g"):
            assert own.pop("g_mean") == pytest.approx(old.g.mean().item())  # type: ignore[operator,union-attr]
            assert own.pop("v_norm_mean") == pytest.approx(v.norm(dim=1).mean().item())
        has_plain_form = PARAMETERIZATIONS[param].start != "own"
        w, new_w = (
            (each.fold()[0] if has_plain_form else each.weight).detach().flatten(1)  # type: ignore[operator,union-attr]
            for each in (old, layer)
        )
        assert own.pop("w_step_ratio") == pytest.approx(((new_w - w).norm(dim=1) / w.norm(dim=1)).mean().item())
        assert own.pop("sigma_1") == pytest.approx(np.linalg.norm(w.double().numpy(), 2))
        gradient = layer.get_parameter(trained).grad
        assert gradient is not None
        assert own.pop("step_ratio") == pytest.approx(((new_v - v).norm(dim=1) / v.norm(dim=1)).mean().item())
        ratio = (gradient.flatten(1).norm(dim=1) / v.norm(dim=1)).mean().item()
        assert own.pop("gradient_ratio") == pytest.approx(ratio)
        turn = F.cosine_similarity(old.weight.double().flatten(1), layer.weight.double().flatten(1))  # type: ignore[operator,union-attr]
        assert own.pop("angle_degrees") == pytest.approx(turn.clamp(max=1).acos().rad2deg().mean().item(), rel=1e-3)
        assert own.pop("preactivation_mean") == pytest.approx(0.0, abs=1e-4)
        assert 0.5 < own.pop("preactivation_std") <= 1.0 + 1e-4  # units that are dead on so few frames have 0
        assert 0.0 <= own.pop("dead_share", 0.0) < 0.5
        assert 0.0 <= own.pop("dormant_share", 0.0) <= 1.0
        assert (name in outputs) == ("feature_rank" in own)
        assert 1.0 <= own.pop("feature_rank", 1.0) <= len(FRAMES)
        assert own == {}
    assert metrics == {}
    assert {key for key, value in nothing.items() if value == value} == {
        key for key in nothing if key.endswith(("w_norm_mean", "g_mean", "v_norm_mean", "sigma_1"))
    }


LAYER_METRICS = (
    "w_norm_mean", "g_mean", "v_norm_mean", "sigma_1", "step_ratio", "w_step_ratio", "angle_degrees", "gradient_ratio",
    "preactivation_mean", "preactivation_std", "dead_share", "dormant_share", "feature_rank",
)  # fmt: skip


@pytest.mark.parametrize("param", ["wn", "bn"])
def test_instruments_change_nothing(param: str) -> None:
    """The agent learns on in the same bits: parameters, statistics, optimizer and exploration."""
    watched, unwatched = initialized_agent(param), initialized_agent(param)
    for number in range(3):
        watched.diagnostics(Measured(minibatch(10 + number), FRAMES))
        watched.histograms(Measured(minibatch(20 + number), FRAMES))
        assert learn(watched, range(number, number + 1)) == learn(unwatched, range(number, number + 1))
    assert_same(watched.state_dict(), unwatched.state_dict())


@each_param
def test_histograms_show_every_parameter_and_the_td_errors(param: str) -> None:
    agent = initialized_agent(param)
    parameters = {f"parameters/{name}" for name, _ in agent.online.named_parameters()}
    assert agent.histograms(None).keys() == parameters
    histograms = agent.histograms(Measured(minibatch(0), FRAMES))
    assert histograms.keys() == parameters | {"td_error/minibatch"}
    assert not any(tensor.requires_grad for tensor in histograms.values())
    assert torch.equal(histograms["parameters/output.bias"], agent.online.output.bias)  # type: ignore[arg-type]
    assert torch.equal(histograms["td_error/minibatch"], agent.update(minibatch(0)).td_error)


@each_param
def test_the_target_network_has_the_norms_of_its_own_parameters(param: str) -> None:
    """After each copy, and after a state was put back: its layers keep what they compute from them."""
    agent = initialized_agent(param)
    learn(agent, range(3))
    agent.update_target()
    fresh = make_agent(param, seed=1)
    fresh.load_state_dict(agent.state_dict())
    obs = observations(4)
    for each in (agent, fresh):
        assert torch.equal(each._q(each.target, obs), each.q_values(obs))
