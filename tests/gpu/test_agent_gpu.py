"""The agent and the replay on a GPU: graphs against eager calls, the GPU against the CPU, and nobody waiting."""

from __future__ import annotations

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once; deterministic kernels need it

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import pytest
import torch
from small_runs import agent_for

from wn_dqn.config.files import make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Precision, Settings
from wn_dqn.envs.catch import SPEC
from wn_dqn.nn.optimizers import OPTIMIZERS
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.prioritized import PrioritizedReplay
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.system.hardware import prepare_torch
from wn_dqn_agents.dqn import DQN

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
UPDATES = 20
Replay = TypeVar("Replay", bound=ReplayBuffer)


@pytest.fixture(autouse=True)
def float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    prepare_torch(CUDA, "float32")
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def settings_for(
    param: str = "wn",
    optimizer: str = "adamax",
    precision: Precision = "float32",
    *,
    dueling: bool = False,
    rainbow: bool = False,
) -> Settings:
    """`rainbow`: Double C51 with dueling heads and noisy layers."""
    return make_settings(
        {
            "game": "Catch",
            "param": param,
            "agent": "double-c51" if rainbow else "dqn",
            "optimizer": {"name": optimizer},
            "learning": {"precision": precision},
            "network": {"dueling": dueling or rainbow, "noisy": rainbow},
        }
    )


def filled_replay(device: torch.device) -> ReplayBuffer:
    return filled(ReplayBuffer(SPEC, 512, 4, 0.99, device))


def filled(replay: Replay) -> Replay:
    rng = np.random.default_rng(0)
    replay.begin(rng.integers(0, 256, (4, 84, 84), dtype=np.uint8))
    for _ in range(200):
        replay.append(
            rng.integers(0, 3, 4),
            rng.choice([-1.0, 0.0, 1.0], 4).astype(np.float32),
            rng.random(4) < 0.1,
            rng.random(4) < 0.05,
            rng.integers(0, 256, (4, 84, 84), dtype=np.uint8),
            rng.random(4) < 0.05,
        )
    return replay


def batches(device: torch.device, size: int = 32) -> list[TransitionBatch]:
    return list(filled_replay(device).sample(np.random.default_rng(1), size, UPDATES))


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Kernels that repeat to the bit. The others differ in the last bit, and twenty updates make 0.01 of it."""
    prepare_torch(CUDA, "float32", deterministic=True)
    yield
    prepare_torch(CUDA, "float32")


def trained(
    settings: Settings,
    device: torch.device,
    *,
    graphs: bool = True,
    dtype: torch.dtype = torch.float32,
    updates: int = UPDATES,
) -> DQN:
    agent: DQN = agent_for(settings, 3, device)
    agent.online.to(dtype)
    agent.target.to(dtype)
    if not graphs:
        agent._run_update, agent._run_forward = agent._update, agent._forward
    minibatches = batches(device)
    agent.initialize(torch.cat([batch.obs for batch in minibatches[:4]]))
    for number, batch in enumerate(minibatches[:updates]):
        agent.update(batch)
        if number == UPDATES // 2:
            agent.update_target()
    return agent


@pytest.mark.parametrize(
    ("param", "optimizer", "changed"),
    [
        *((param, optimizer, "") for param in PARAMETERIZATIONS for optimizer in OPTIMIZERS),
        ("wn", "adamax", "dueling"),
        *((param, "adam", "rainbow") for param in PARAMETERIZATIONS),
    ],
)
def test_graphs_equal_eager_updates(param: str, optimizer: str, changed: str, deterministic: None) -> None:
    """To the bit, with the targets in a branch of their own or not."""
    settings = settings_for(param, optimizer, dueling=changed == "dueling", rainbow=changed == "rainbow")
    eager, graphed = trained(settings, CUDA, graphs=False), trained(settings, CUDA)
    for (name, ours), theirs in zip(graphed.online.named_parameters(), eager.online.parameters(), strict=True):
        assert torch.equal(ours, theirs), f"{name} differs"


def test_float32_graphs_equal_eager_q_values() -> None:
    agent = trained(settings_for(), CUDA)
    obs = filled_replay(CUDA).latest_observation()
    eager = agent._forward(obs)[0]
    for _ in range(6):
        torch.testing.assert_close(agent.q_values(obs), eager, rtol=1e-5, atol=1e-5)


def test_it_acts_with_the_noise_that_was_drawn() -> None:
    """Graphs read each new sample, and the mean has none."""
    agent, eager = (trained(settings_for(rainbow=True), CUDA) for _ in range(2))
    eager.load_state_dict(agent.state_dict())
    eager._run_noisy_forward = eager._noisy_forward
    obs = filled_replay(CUDA).latest_observation()
    seen = []
    for _ in range(8):
        q = agent._noisy_q_values(obs).clone()
        torch.testing.assert_close(q, eager._noisy_q_values(obs), rtol=1e-5, atol=1e-5)
        seen.append(q)
    assert len({tuple(q.flatten().tolist()) for q in seen}) == 8
    torch.testing.assert_close(agent.q_values(obs), eager.q_values(obs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("param", "rainbow"), [*((param, False) for param in PARAMETERIZATIONS), ("wn", True)])
def test_a_gpu_learns_what_a_cpu_does(param: str, rainbow: bool) -> None:
    """In float64: sums are in another order, and twenty updates make of a last bit a million times as much.

    After the initialization, after one update and after all, so that a failure says which tensor differs first.
    """
    settings = settings_for(param, rainbow=rainbow)
    obs = filled_replay(CPU).latest_observation()
    for updates in (0, 1, UPDATES):
        on_gpu, on_cpu = (trained(settings, device, dtype=torch.float64, updates=updates) for device in (CUDA, CPU))
        for (name, ours), theirs in zip(on_gpu.online.named_parameters(), on_cpu.online.parameters(), strict=True):
            close = torch.allclose(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)
            assert close, f"{name} differs after {updates} updates"
        torch.testing.assert_close(on_gpu.q_values(obs).cpu(), on_cpu.q_values(obs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precision_is_close(precision: Precision) -> None:
    """The same network's Q-values and its loss, to the rounding of 10 bits (tf32) or 8 (bf16) in five layers."""
    exact = trained(settings_for(), CUDA)
    obs, batch = filled_replay(CUDA).latest_observation(), batches(CUDA)[0]
    q = exact.q_values(obs)
    rounded = agent_for(settings_for(precision=precision), 3, CUDA)
    rounded.load_state_dict(exact.state_dict())
    loss = exact.update(batch).loss.clone()
    prepare_torch(CUDA, precision)
    rounded_q = rounded.q_values(obs)
    torch.testing.assert_close(rounded_q, q, rtol=0.0, atol=0.05 * q.abs().max().item())
    assert not torch.equal(rounded_q, q)
    torch.testing.assert_close(rounded.update(batch).loss, loss, rtol=0.1, atol=0.0)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("rainbow", [False, True])
def test_updates_never_wait_for_the_gpu(rainbow: bool) -> None:
    agent, replay = agent_for(settings_for(rainbow=rainbow), 3, CUDA), filled_replay(CUDA)
    generator = np.random.default_rng(1)
    agent.initialize(next(iter(replay.sample(generator, 256))).obs)
    for batch in replay.sample(generator, 32, 5):  # eager calls and the capture may wait
        agent.update(batch)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for batch in replay.sample(generator, 32, 5):
            agent.update(batch)
        agent.update_target()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_replay_on_a_gpu_gives_the_same_minibatches() -> None:
    for ours, theirs in zip(batches(CUDA), batches(CPU), strict=True):
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            assert a.is_cuda
            assert torch.equal(a.cpu(), b)
    assert torch.equal(filled_replay(CUDA).latest_observation().cpu(), filled_replay(CPU).latest_observation())


def test_a_checkpoint_moves_between_devices() -> None:
    agent = trained(settings_for(), CUDA)
    on_cpu, back = agent_for(settings_for(), 3, CPU), agent_for(settings_for(), 3, CUDA)
    on_cpu.load_state_dict({**agent.state_dict()})
    back.load_state_dict(on_cpu.state_dict())
    obs = filled_replay(CPU).latest_observation()
    assert torch.equal(back.q_values(obs.cuda()), agent.q_values(obs.cuda()))
    (batch,) = filled_replay(CUDA).sample(np.random.default_rng(5), 32)
    agent.update(batch)
    back.update(batch)
    for ours, theirs in zip(back.online.parameters(), agent.online.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_td_errors_reach_the_priorities_from_a_gpu() -> None:
    """Each minibatch, weights included, and all priorities in the end are those of TD errors of a CPU."""
    ours, theirs = (
        filled(PrioritizedReplay(SPEC, 512, 4, 0.99, device, 3, exponent=0.6, epsilon=1e-6)) for device in (CUDA, CPU)
    )
    agent = agent_for(settings_for(), 3, CUDA)
    agent.initialize(next(ours.sample(np.random.default_rng(2), 256)).obs)
    drawn = (replay.minibatches(np.random.default_rng(1), 32, UPDATES, 0.5) for replay in (ours, theirs))
    for on_gpu, on_cpu in zip(*drawn, strict=True):
        for a, b in zip(on_gpu, on_cpu, strict=True):
            assert a is not None
            assert b is not None
            assert torch.equal(a.cpu(), b)
        td_error = agent.update(on_gpu).td_error
        ours.update_priorities(td_error)
        theirs.update_priorities(td_error.cpu())
    assert np.array_equal(ours.state_dict()["values"], theirs.state_dict()["values"])
