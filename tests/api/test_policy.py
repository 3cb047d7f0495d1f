"""Policies and runs in Python."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command import wn_dqn as command
from small_runs import CPU

import wn_dqn
from wn_dqn.interop import load_export
from wn_dqn.runs.policy import load_policy

pytestmark = pytest.mark.usefixtures("small_network")


def observations(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, 4, 84, 84), dtype=np.uint8)


def test_a_policy_predicts_what_its_agent_says(run: Path) -> None:
    policy, obs = wn_dqn.load(run, "last", device="cpu"), observations(50)
    q = load_policy(run, "last", CPU).q_values(torch.from_numpy(obs)).numpy()
    np.testing.assert_array_equal(policy.q_values(obs), q)
    actions, state = policy.predict(obs, deterministic=True)
    np.testing.assert_array_equal(actions, q.argmax(axis=1))
    assert state is None
    assert actions.dtype == np.int64


def test_one_observation_or_a_batch(run: Path) -> None:
    policy, obs = wn_dqn.load(str(run)), observations(3)
    assert policy.q_values(obs).shape == (3, 3)
    assert policy.q_values(obs[0]).shape == (3,)
    np.testing.assert_allclose(policy.q_values(obs[0]), policy.q_values(obs)[0], rtol=1e-5)
    action, _ = policy.predict(obs[0], deterministic=True)
    assert action.shape == ()
    assert policy.action_names[action] in ("LEFT", "STAY", "RIGHT")


def test_without_deterministic_some_actions_are_random(run: Path) -> None:
    obs = observations(300)
    policies = [wn_dqn.load(run) for _ in range(2)]
    greedy, _ = policies[0].predict(obs, deterministic=True)
    actions = [policy.predict(obs)[0] for policy in policies]
    np.testing.assert_array_equal(actions[0], actions[1])  # nothing outside of a policy decides
    assert 0 < (actions[0] != greedy).sum() < 40  # epsilon is 0.05, and a third of the random ones are greedy, too


@pytest.mark.parametrize(
    ("obs", "hint"),
    [
        (np.zeros((84, 84, 4), np.uint8), "uint8 [84, 84, 4]"),
        (np.zeros((4, 84, 84), np.float32), "float32 [4, 84, 84]"),
        (np.zeros((2, 2, 4, 84, 84), np.uint8), "uint8 [2, 2, 4, 84, 84]"),
        (np.zeros((84, 84), np.uint8), "uint8 [84, 84]"),
        ("an observation", "[]"),
    ],
)
def test_an_observation_that_does_not_fit_is_named_with_what_would(run: Path, obs: object, hint: str) -> None:
    policy = wn_dqn.load(run)
    for method in (policy.predict, policy.q_values):
        with pytest.raises(wn_dqn.UsageError) as error:
            method(obs)
        message = str(error.value)
        assert "an observation is uint8 [4, 84, 84], or a batch [B, 4, 84, 84] of them; this is" in message
        assert message.endswith(hint)
        assert "\n" not in message


def test_loading_and_predicting_change_nothing_of_the_process(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError

    for name in ("set_num_threads", "use_deterministic_algorithms", "manual_seed", "set_default_dtype"):
        monkeypatch.setattr(torch, name, refuse)
    monkeypatch.setattr("wn_dqn.system.hardware._keep_freed_memory", refuse)
    numpy_state, torch_state = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    policy = wn_dqn.load(run)
    policy.predict(observations(2))
    policy.evaluate("nature", games=2)
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_fresh_games_are_those_of_the_command_and_kept(run: Path) -> None:
    evaluation = wn_dqn.load(run).evaluate("nature", games=5)
    status, out, _ = command("evaluate", str(run), "--protocol", "nature", "--games", "5", "--json")
    assert status == 0
    assert json.loads(out)["scores"] == evaluation.scores
    records = [json.loads(line) for line in (run / "reevaluations.jsonl").read_text().splitlines()]
    assert [record["returns"] for record in records] == [evaluation.scores] * 2


def test_a_film(run: Path, tmp_path: Path) -> None:
    assert wn_dqn.load(run).play(tmp_path / "game.gif", max_frames=30) == 30
    assert (tmp_path / "game.gif").read_bytes().startswith(b"GIF8")
    with pytest.raises(wn_dqn.UsageError, match="not a known video format"):
        wn_dqn.load(run).play(tmp_path / "game.avi")


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_an_exported_file_is_loaded(run: Path, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"network.{suffix}"
    assert command("export", str(run), "-o", str(path))[0] == 0
    policy, obs = wn_dqn.load(path), observations(7)
    np.testing.assert_allclose(policy.q_values(obs), wn_dqn.load(run).q_values(obs), rtol=1e-4, atol=1e-5)
    assert (policy.path, policy.settings) == (path, wn_dqn.Run(run).settings)
    assert policy.action_names == ("LEFT", "STAY", "RIGHT")
    assert len(policy.evaluate("nature", games=3).scores) == 3
    assert policy.play(tmp_path / "game.gif", max_frames=12) == 12
    if suffix == "onnx":
        with pytest.raises(wn_dqn.UsageError, match="has no layers; load the run"):
            policy.play(tmp_path / "game.gif", max_frames=12, saliency="gradient")


def test_what_cannot_be_loaded_says_so(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(wn_dqn.UsageError, match=message) as error:
            wn_dqn.load(path)
        assert "\n" not in str(error.value)

    refused(tmp_path / "nothing", "is not a run directory")
    (tmp_path / "net.pt").write_bytes(b"PK")
    refused(tmp_path / "net.pt", "cannot be loaded as a policy; valid: a run directory")
    (tmp_path / "net.safetensors").write_bytes(b"")
    refused(tmp_path / "net.safetensors", "cannot read .*net.safetensors.json: No such file")
    for suffix in ("safetensors", "onnx"):
        path = tmp_path / f"good.{suffix}"
        assert command("export", str(run), "-o", str(path))[0] == 0
        data = path.read_bytes()
        path.write_bytes(data[:1000])
        refused(path, "is damaged")
        contract = path.with_name(f"{path.name}.json")
        whole = json.loads(contract.read_text())
        contract.write_text(json.dumps({key: whole[key] for key in whole if key != "settings"}))
        refused(path, "cannot read .*: settings: Field required; wn-dqn export writes it")
        contract.write_text(json.dumps([]))
        refused(path, "cannot read .*; wn-dqn export writes it")
        for shape in ([], ["batch"], ["batch", "batch"], [3, 3], ["batch", -1], ["batch", True]):
            contract.write_text(json.dumps({**whole, "output": {"shape": shape}}))
            refused(path, 'output.shape: Value error, not "batch" and sizes')
        contract.write_text(json.dumps({**whole, "output": {"shape": ["batch", 4]}}))
        path.write_bytes(data)
        refused(path, "not the network of")
    monkeypatch.setattr(load_export.importlib.util, "find_spec", lambda _name: None)
    refused(tmp_path / "good.onnx", "pip install onnxruntime")


def test_a_run_is_read(run: Path) -> None:
    read = wn_dqn.Run(run)
    assert (read.status, read.steps, read.directory) == ("finished", 320, run)
    assert read.evaluations["steps"].tolist() == [120, 240, 320]
    assert read.evaluations.to_pandas()["mean_return"].tolist() == read.evaluations["mean_return"].tolist()
    assert read.metrics["train/epsilon"].dtype == np.float64
    assert read.best is not None
    assert read.best.score == read.evaluations["mean_return"].max()
    assert read.policy().steps == read.best.steps
    assert read.policy("last").steps == 320
    assert read.settings.game == "Catch"
    assert re.fullmatch(r"Run\('.*': finished\)", repr(read))
    assert "uint8[4, 84, 84]" in repr(read.policy())


def test_without_pandas_a_table_says_what_it_needs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(wn_dqn.UsageError, match="pip install pandas"):
        wn_dqn.Run(run).evaluations.to_pandas()
