"""Environments from outside by the command: trained, resumed, tested, filmed, exported, plotted, reported."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from command import wn_dqn

from wn_dqn.config.files import parse_yaml
from wn_dqn.config.schema import NetworkSettings
from wn_dqn.interop.export import onnx_model
from wn_dqn.nn.folding import fold
from wn_dqn.nn.layers import layer_kit
from wn_dqn.nn.networks import make_network

TINY = [
    *("--device", "cpu", "--num-envs", "4", "--steps", "64"),
    *("--set", "replay.capacity=64", "--set", "network={init_batch_size: 16, hidden: [8]}"),
    *("--set", "learning={start_steps: 32, batch_size: 8, target_period_steps: 16}"),
    *("--set", "evaluation={epoch_steps: 32, steps: 48, held_out_states: 8}", "--set", "output.log_period_steps=16"),
]  # fmt: skip
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "environments.md"
CASES = {
    "toy_envs:Walk": ("toy_envs-Walk", [3], "float32"),
    "toy_envs:Bits": ("toy_envs-Bits", [2, 6, 5], "bool"),
    "gymnasium:MinAtar/Breakout-v1": ("MinAtar-Breakout-v1", [4, 10, 10], "bool"),
}


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An environment and a finished run in its default folder."""
    env, folder = request.param, tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("WN_DQN_")]:
            patch.delenv(name)
        status, out, err = wn_dqn("train", "--env", env, *TINY)
    assert (status, out) == (0, ""), err
    assert f"network {'mlp' if env == 'toy_envs:Walk' else 'minatar'}, seed 0" in err
    return env, folder / "runs" / f"{CASES[env][0]}-wn-seed0"


def settings_of(run: Path) -> dict[str, Any]:
    return parse_yaml((run / "config.yaml").read_text(), "config.yaml")


def allowed(env: str) -> list[str]:
    return ["--env", env] if env.startswith("toy_envs") else []


def test_the_run_keeps_its_environment_and_goes_on(run: tuple[str, Path]) -> None:
    env, folder = run
    settings = settings_of(folder)
    assert settings["game"] == env
    assert settings["environment"]["repeats"] is True
    config = ["--config", str(folder / "config.yaml"), *allowed(env)]
    status, _, err = wn_dqn("train", *config, "--run-dir", str(folder), "--steps", "80")
    assert status == 0, err
    assert "resumed from" in err


@pytest.mark.parametrize("command", ["evaluate", "play", "export"])
def test_reading_a_run_runs_no_code_that_is_not_named(command: str, run: tuple[str, Path], tmp_path: Path) -> None:
    env, folder = run
    args = {
        "evaluate": ["--games", "2", "--num-envs", "2", "--device", "cpu"],
        "play": ["-o", str(tmp_path / "game.gif"), "--max-frames", "30", "--device", "cpu"],
        "export": ["-o", str(tmp_path / "q.safetensors")],
    }[command]
    if allowed(env):
        status, _, err = wn_dqn(command, str(folder), *args)
        assert status == 2
        assert err.endswith(f"if you trust it, add --env {env} (in Python: trust=True)\n")
        assert wn_dqn(command, str(folder), *args, "--env", "toy_envs:walks")[0] == 2
    status, _, err = wn_dqn(command, str(folder), *args, *allowed(env))
    assert status == 0, err
    if command == "export":
        contract = json.loads((tmp_path / "q.safetensors.json").read_text())
        _, shape, dtype = CASES[env]
        assert (contract["input"]["dtype"], contract["input"]["shape"]) == (dtype, ["batch", *shape])
        assert contract["preprocessing"] is None


def test_an_exported_network_takes_bits(tmp_path: Path) -> None:
    network = make_network(layer_kit("wn"), (2, 6, 5), torch.bool, 3, NetworkSettings())
    (tmp_path / "q.onnx").write_bytes(onnx_model(fold(network)))
    obs = torch.ones(4, 2, 6, 5, dtype=torch.bool)
    (q,) = onnxruntime.InferenceSession(tmp_path / "q.onnx").run(None, {"obs": obs.numpy()})
    torch.testing.assert_close(torch.from_numpy(q), network.eval()(obs).detach())


@pytest.mark.parametrize("command", ["plot", "card"])
def test_tables_are_read_without_the_environment(command: str, run: tuple[str, Path], tmp_path: Path) -> None:
    _, folder = run
    args = {
        "plot": ["-o", str(tmp_path / "plot.svg"), "--x", "frames"],
        "card": [],
    }[command]
    status, _, err = wn_dqn(command, str(folder), *args)
    assert status == 0, err
    text = (folder / "model_card.md").read_text()
    assert "agent steps, seed 0" in text
    assert "ale-py" not in text


def test_arguments_are_yaml_and_reach_the_environment(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    status, _, err = wn_dqn("train", "--env", "toy_envs:Walk", "--env-arg", "limit=3", *TINY, "--run-dir", str(folder))
    assert status == 0, err
    assert settings_of(folder)["environment"]["args"] == {"limit": 3}
    status, _, err = wn_dqn("train", "--env", "toy_envs:Walk", "--env-arg", "limit=4", *TINY, "--run-dir", str(folder))
    assert status == 2
    assert "environment.args.limit: 3 -> 4" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--env", "SpaceInvaders"], "for a game: --game SpaceInvaders"),
        (["--env", "toy_envs:Walk", "--game", "Catch"], "--game and --env exclude each other"),
        (["--env", "toy_envs:Walk", "--env-arg", "limit"], "not of the form KEY=VALUE"),
        (["--env", "gymnasium:ALE/Pong-v5"], "give --game ALE/Pong-v5 instead of --env"),
        (["--game", "Catch", "--env-arg", "limit=3"], "environment.args is for external environments"),
        (["--env", "gymnasium:Pendulum-v1"], "has the action space Box"),
        (["--env", "toy_envs:Wlak"], "did you mean Walk"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = wn_dqn("train", *args, *TINY)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_example_of_the_documentation_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class in a module of the current folder."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    (tmp_path / "my_module.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    status, _, err = wn_dqn("train", "--env", "my_module:MyGame", *TINY)
    assert status == 0, err
    assert (tmp_path / "runs" / "my_module-MyGame-wn-seed0" / "model_card.md").exists()


def test_the_environment_comes_from_a_variable_and_an_option_beats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WN_DQN_ENV", "toy_envs:Walk")
    assert wn_dqn("train", *TINY)[0] == 0
    assert wn_dqn("train", "--game", "CatchVector", *TINY)[0] == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "CatchVector-wn-seed0",
        "toy_envs-Walk-wn-seed0",
    ]


@pytest.mark.parametrize("run", ["toy_envs:Walk"], indirect=True)
def test_a_report_of_an_environment_from_outside(run: tuple[str, Path], tmp_path: Path) -> None:
    status, _, err = wn_dqn("report", str(run[1]), "-o", str(tmp_path / "report.html"))
    assert status == 0, err


def test_a_random_policy_plays_an_environment_from_outside() -> None:
    status, out, err = wn_dqn("evaluate", "--random", "gymnasium:CartPole-v1", "--games", "20", "--json")
    assert status == 0, err
    outcome = json.loads(out)
    assert 12 < outcome["mean_return"] < 40
    assert outcome["human_normalized"] is None
