"""What runs keep of their start, and what the report makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command import wn_dqn
from written_runs import write_run

import wn_dqn as package
from wn_dqn.analysis.read_runs import group_runs, read_runs
from wn_dqn.analysis.starts import difference, starts_table
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.networks import MlpNetwork
from wn_dqn.runs.start import START, Start, read_start, start_of, write_start

STATES = "0" * 64


def rows(folder: Path) -> list[list[str]]:
    groups, _ = group_runs(read_runs([folder])[0])
    return [list(row) for row in starts_table(groups).rows]


def write(folder: Path, param: str, seed: int, q_values: list[list[float]] | None, states: str = STATES) -> None:
    run = write_run(folder, "Pong", param, seed, [1.0])
    if q_values is not None:
        write_start(run, Start(states=states, q_values=q_values))


def test_the_largest_difference_over_seeds_decides(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, "standard", seed, [[1.0, 2.0], [3.0, 4.0]])
        write(tmp_path, "wn", seed, [[1.0, 2.0], [3.0, 4.0 + 4e-6]])
        write(tmp_path, "ln", seed, [[1.0, 2.0 + seed / 2], [3.0, 4.0]])
    label = {"wn": "weight normalization", "ln": "layer normalization"}
    beside = "standard parameterization"
    assert rows(tmp_path) == [
        ["Pong", label["wn"], beside, "2", "4e-06", "the same function"],
        ["Pong", label["ln"], beside, "2", "0.5", "a different function"],
    ]


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    write(tmp_path, "standard", 0, [[1.0, 2.0]])
    write(tmp_path, "wn", 0, [[1.0, 2.0]], states="1" * 64)
    write(tmp_path, "bn", 0, None)
    write(tmp_path, "ws", 3, [[1.0, 2.0]])
    verdicts = {row[1]: row[-1] for row in rows(tmp_path)}
    assert verdicts["weight normalization"] == "not comparable: the states differ"
    assert verdicts["batch normalization"] == "unknown: no common seed with a saved start"
    assert verdicts["weight standardization"] == "unknown: no common seed with a saved start"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"states": "x", "q_values": []}', b"\xff"])
def test_a_damaged_start_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / START).write_bytes(content)
    assert read_start(tmp_path) is None


def test_a_start_is_computed_in_float64_and_leaves_the_network_alone() -> None:
    network = MlpNetwork(layer_kit("wn"), (3,), 2, obs_dtype=torch.float32).eval()
    states = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    start = start_of(network, states)
    assert next(network.parameters()).dtype == torch.float32
    with torch.no_grad():
        np.testing.assert_allclose(start.q_values, network(states), atol=1e-5)
        np.testing.assert_array_equal(start.q_values, network.double()(states))
    assert difference(start, start) == 0.0
    assert difference(start, start_of(network.float(), states + 1)) is None


def test_trained_arms_keep_how_they_began(tmp_path: Path) -> None:
    """The same function for `standard` and `wn`, another for `ln`; a resumed run keeps its start."""
    for param in ("standard", "wn", "ln"):
        package.train(
            "smoke",
            game="CatchVector",
            param=param,
            run_dir=tmp_path / param,
            network={"init_batch_size": 64},
            learning={"total_steps": 120, "start_steps": 64},
            evaluation={"steps": 60, "held_out_states": 64},
            progress=False,
        )
    verdicts = {row[1]: row[-1] for row in rows(tmp_path)}
    assert verdicts == {"weight normalization": "the same function", "layer normalization": "a different function"}
    before = (tmp_path / "wn" / START).read_bytes()
    package.train(
        package.Run(tmp_path / "wn").settings, run_dir=tmp_path / "wn", learning={"total_steps": 160}, progress=False
    )
    assert (tmp_path / "wn" / START).read_bytes() == before
    page = tmp_path / "page.html"
    assert wn_dqn("report", str(tmp_path), "-o", str(page))[0] == 0
    assert "a different function" in page.read_text()
