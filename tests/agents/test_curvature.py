"""The curvature of the loss: by differences of the fast gradient, and by eigenvalues that are known."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from small_runs import assert_same
from torch import Tensor

import wn_dqn
from wn_dqn.config.files import make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.nn.curvature import lanczos
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.parts import make_agent

CPU = torch.device("cpu")


def symmetric(values: list[float], seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues."""
    size = len(values)
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T


def unit(size: int, seed: int = 1) -> Tensor:
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vector / vector.norm()


def test_all_steps_give_all_eigenvalues() -> None:
    matrix = symmetric([-2.0, 0.5, 1.0, 7.0])
    values = lanczos(lambda vector: matrix @ vector, unit(4), 4)
    assert values.tolist() == pytest.approx([-2.0, 0.5, 1.0, 7.0])


def test_few_steps_find_the_largest() -> None:
    matrix = symmetric([100.0, 30.0, *np.linspace(-1, 1, 198).tolist()])
    values = lanczos(lambda vector: matrix @ vector, unit(200), 12)
    assert values[-2:].tolist() == pytest.approx([30.0, 100.0], rel=1e-9)


def test_a_vector_that_spans_little_ends_early() -> None:
    assert lanczos(lambda vector: 3.0 * vector, unit(5), 5).tolist() == pytest.approx([3.0])
    assert lanczos(torch.zeros_like, unit(5), 5).tolist() == [0.0]


SPEC = EnvSpec("Vectors", (3,), "float32", 1, ("a", "b"), 1, clip_rewards=False, repeats=True)


def agent_of(param: str, **sections: Any) -> Any:
    """A small agent, initialized from data, whose numbers are float64 from then on."""
    network = {"name": "mlp", "hidden": [4, 3], "init_centred": True} | sections.pop("network", {})
    settings = make_settings({"game": "CatchVector", "param": param, "network": network, **sections})
    agent: Any = make_agent(settings, SPEC, CPU)
    agent.initialize(observations(64))
    agent.online.double()
    agent.target.double()
    return agent


def observations(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def minibatch(size: int = 12) -> TransitionBatch:
    generator = torch.Generator().manual_seed(5)
    reward = torch.randn(size, generator=generator, dtype=torch.float64)
    return TransitionBatch(
        observations(size, 1),
        torch.arange(size) % 2,
        reward,
        torch.full((size,), 0.9),
        observations(size, 2),
        reward.abs(),
    )


def hessian_by_differences(agent: Any, batch: TransitionBatch) -> Tensor:
    """Central differences of the gradient that an update descends, through the fast operations that updates use."""
    base = torch.nn.utils.parameters_to_vector(agent.online.parameters()).detach()

    def gradient(place: Tensor) -> Tensor:
        twin = copy.copy(agent)
        twin.online, twin._noise = copy.deepcopy((agent.online, agent._noise))
        twin._draw_noise()
        torch.nn.utils.vector_to_parameters(place, twin.online.parameters())
        params = list(twin.online.parameters())
        found = torch.autograd.grad(twin._learn(*batch)[0], params, materialize_grads=True)
        return torch.cat([each.flatten() for each in found])

    step = 1e-5 * torch.eye(len(base), dtype=torch.float64)
    return torch.stack([(gradient(base + each) - gradient(base - each)) / 2e-5 for each in step])


def measured(agent: Any, batch: TransitionBatch, products: int) -> dict[str, float]:
    values: dict[str, float] = agent.curvature(batch, products, torch.Generator().manual_seed(3))
    return values


# The gradient of `sn` takes its singular vectors for constants, and a pass moves them: differences see both.
@pytest.mark.parametrize("param", [name for name in PARAMETERIZATIONS if name != "sn"])
def test_the_largest_eigenvalue_is_that_of_the_hessian(param: str) -> None:
    agent, batch = agent_of(param), minibatch()
    hessian = hessian_by_differences(agent, batch)
    known = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    before = {name: tensor.clone() for name, tensor in agent.online.state_dict().items()}
    few, all_of_them = measured(agent, batch, 24), measured(agent, batch, len(known))
    assert few["hessian_top"] == pytest.approx(known[-1].item(), rel=1e-3)
    assert all_of_them["hessian_top"] == pytest.approx(known[-1].item(), rel=1e-3)
    condition = (known[-1] / known[-5]).item()
    assert all_of_them["hessian_condition"] == (pytest.approx(condition, rel=1e-3) if known[-5] > 1e-9 else ANY)
    assert_same(dict(agent.online.state_dict()), before)


@pytest.mark.parametrize(
    "sections",
    [
        {"agent": "c51", "network": {"v_min": -2, "v_max": 2, "atoms": 5}},
        {"agent": "double-dqn", "network": {"dueling": True}},
        {"network": {"noisy": True}},
        {"learning": {"loss": "mse"}},
    ],
    ids=str,
)
def test_every_agent_has_one(sections: dict[str, Any]) -> None:
    agent, batch = agent_of("wn", **sections), minibatch()
    hessian = hessian_by_differences(agent, batch)
    known = torch.linalg.eigvalsh((hessian + hessian.T) / 2)[-1].item()
    assert measured(agent, batch, 40)["hessian_top"] == pytest.approx(known, rel=1e-3)


def test_spectral_normalization_and_bfloat16_give_finite_numbers() -> None:
    for agent in (agent_of("sn"), agent_of("wn", learning={"precision": "bf16"})):
        assert math.isfinite(measured(agent, minibatch(), 8)["hessian_top"])


def test_a_run_that_measures_it_learns_the_same_bits(tmp_path: Path) -> None:
    """And has two more columns, without a number before learning."""
    states = []
    for products in (0, 4):
        run = wn_dqn.train(
            "smoke",
            game="CatchVector",
            run_dir=tmp_path / str(products),
            network={"init_batch_size": 64},
            learning={"total_steps": 240, "start_steps": 100},
            evaluation={"epoch_steps": 80, "steps": 60, "held_out_states": 64, "curvature_products": products},
            progress=False,
        )
        states.append(run.policy("last")._network.agent.online.state_dict())
        table = run.evaluations
        assert ("hessian_top" in table) == bool(products)
    assert_same(dict(states[0]), dict(states[1]))
    assert np.isnan(table["hessian_top"][0])
    assert np.isfinite(table["hessian_top"][-1])
    assert "hessian_condition" in table
