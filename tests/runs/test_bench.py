"""What the measured speeds are made into: times of whole runs, and the advice to take bfloat16."""

from __future__ import annotations

import pytest
import torch

from wn_dqn.config.files import make_settings, read_config
from wn_dqn.config.schema import Settings
from wn_dqn.runs import bench

LONG = {"game": "SpaceInvaders"}
SHORT = {"game": "Catch", "learning": {"total_steps": 100_000}}


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bfloat16, twice as fast as float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(bench, "_updates", lambda settings, device, seconds: {"float32": 40.0, "bf16": 20.0})


@pytest.mark.usefixtures("able")
def test_a_long_run_hears_of_a_faster_precision() -> None:
    advice = bench.precision_advice(make_settings(LONG), torch.device("cpu"))
    assert advice == "--precision bf16 would take 0.50 of the time of an update here (float32: 40 ms)"


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    ("settings", "device"),
    [
        (make_settings(SHORT), "cpu"),
        (make_settings(LONG | {"learning": {"precision": "bf16"}}), "cpu"),
        (make_settings(LONG), "cuda"),
    ],
)
def test_nobody_else_does(settings: Settings, device: str) -> None:
    assert bench.precision_advice(settings, torch.device(device)) is None


@pytest.mark.parametrize(("bf16_ms", "supported"), [(37.0, True), (20.0, False)])
def test_a_gain_that_is_small_or_cannot_be_is_no_advice(
    bf16_ms: float, supported: bool, able: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(bench, "_updates", lambda settings, device, seconds: {"float32": 40.0, "bf16": bf16_ms})
    assert bench.precision_advice(make_settings(LONG), torch.device("cpu")) is None


def test_how_long_a_run_takes() -> None:
    """By hand: 9,000 steps of training at 10/s are 900 s; 1,000 of random play and 2 tests of 500 at 100/s are 20 s."""
    changes = {
        "learning": {"total_steps": 10_000, "start_steps": 1000, "batch_size": 32},
        "network": {"init_batch_size": 32},
        "evaluation": {"epoch_steps": 5000, "steps": 500, "held_out_states": 32},
    }
    assert bench.hours_of(make_settings({"game": "Pong", **changes}), 10.0, 200.0) * 3600 == pytest.approx(920.0)


def test_only_the_same_work_has_the_measured_limits() -> None:
    game = {"game": bench.GAME}
    assert bench._works_as_measured(make_settings(game | read_config("salimans2016")))
    for other in (read_config("quick"), game | {"param": "standard"}, game | {"agent": "c51"}, {"game": "Pong"}):
        assert not bench._works_as_measured(make_settings(other))
    assert not bench._works_as_measured(make_settings(game | {"learning": {"batch_size": 32}}))
