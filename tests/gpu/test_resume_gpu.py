"""Resume on a GPU: the bits of a run that never stopped with deterministic kernels, the same steps without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_same, outcome, settings_for

from wn_dqn.config.files import dump_yaml
from wn_dqn.runs.run_directory import RunDirectory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine"),
]

# A process of its own: whether kernels are deterministic is set for the whole process, before CUDA begins.
TRAIN = """
import sys
from pathlib import Path

import torch

from wn_dqn.config.files import make_settings, read_config
from wn_dqn.runs.experiment import Experiment
from wn_dqn.runs.launch import train_run
from wn_dqn.system.progress import ProgressReporter

config, folder, stop_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
original = Experiment.after_step

def after_step(experiment, state):
    original(experiment, state)
    if state.steps == stop_at:
        experiment.stop.request("the test", 0)

Experiment.after_step = after_step
settings = make_settings(read_config(config))
sys.exit(train_run(settings, folder, torch.device("cuda"), ProgressReporter()))
"""


def train_on_gpu(config: Path, folder: Path, stop_at: int) -> None:
    """Train, or go on, until `stop_at` steps are made or the run ends."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(config), str(folder), str(stop_at)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("num_envs", [1, 8])
@pytest.mark.parametrize("param", ["wn", "standard"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_stopped_run_goes_on(deterministic: bool, param: str, num_envs: int, tmp_path: Path) -> None:
    """Counters, games, replay and tables' steps are equal in both tiers; with deterministic kernels, every bit is."""
    config = tmp_path / "config.yaml"
    settings = settings_for(param=param, environment={"num_envs": num_envs}, learning={"deterministic": deterministic})
    config.write_text(dump_yaml(settings.model_dump()))
    train_on_gpu(config, tmp_path / "undisturbed", 0)
    train_on_gpu(config, tmp_path / "run", 200)
    assert RunDirectory(tmp_path / "run").read_status()["status"] == "paused"
    train_on_gpu(config, tmp_path / "run", 0)
    stopped, undisturbed = outcome(tmp_path / "run"), outcome(tmp_path / "undisturbed")
    if deterministic:
        assert_same(stopped, undisturbed)
    for name in ("steps", "updates", "learning_from_steps", "evaluated_at", "epoch_began_at", "replay_generator"):
        assert stopped["state"]["training"][name] == undisturbed["state"]["training"][name]
    for name, rows in stopped["tables"].items():
        assert [row["steps"] for row in rows] == [row["steps"] for row in undisturbed["tables"][name]]
    assert shapes(stopped["state"]["agent"]) == shapes(undisturbed["state"]["agent"])
    entries: list[dict[str, Any]] = json.loads((tmp_path / "run" / "provenance.json").read_bytes())
    assert [entry["machine"]["device"] for entry in entries] == [torch.cuda.get_device_name()] * 2


def shapes(state: dict[str, Any]) -> dict[str, Any]:
    """The structure of a state, without its values."""
    return {
        key: shapes(value) if isinstance(value, dict) else getattr(value, "shape", None) for key, value in state.items()
    }
