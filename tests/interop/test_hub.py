"""`wn-dqn push` and `hf:USER/NAME`: through the Hub's own client, against a small Hub on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import huggingface_hub
import numpy as np
import pytest
from command import wn_dqn as command
from fake_hub import FakeHub, fake_hub
from huggingface_hub import ModelCard
from safetensors.numpy import load
from small_runs import SMALL_NETWORK, network_of, settings_for, train

import wn_dqn
from wn_dqn.interop import publish

FILES = {
    *("README.md", "config.json", "config.yaml", "curve.png"),
    *("evaluations.csv", "model.safetensors", "replay.mp4"),
}
pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "Catch"
    with network_of(SMALL_NETWORK):
        assert train(settings_for(), folder) == 0
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The client talks to it, and keeps what it gets in a folder of the test."""
    with fake_hub() as hub:
        address = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_nobody")
        yield hub


def test_what_is_sent_can_be_read_back(run: Path, hub: FakeHub) -> None:
    """The same Q-values there and here; the card is one that the Hub's own reader understands."""
    status, out, _ = command("push", str(run), "--repo-id", "me/it", "--private")
    assert (status, out) == (0, f"{hub.address}/me/it: others read it with wn_dqn.load('hf:me/it')\n")
    files = hub.repositories["me/it"]
    assert files.keys() == FILES
    assert hub.private["me/it"]
    here, there = wn_dqn.load(run), wn_dqn.load("hf:me/it")
    obs = np.random.default_rng(0).integers(256, size=(8, *here.obs_shape), dtype=np.uint8)
    np.testing.assert_allclose(there.q_values(obs), here.q_values(obs), rtol=1e-5, atol=1e-6)
    assert "hidden.weight" in load(files["model.safetensors"])
    assert json.loads(files["config.json"])["file"] == "model.safetensors"
    card = ModelCard(files["README.md"].decode())
    (result,) = card.data.eval_results
    assert (result.metric_type, result.dataset_name) == ("mean_reward", "Catch")
    test = wn_dqn.evaluate(run, "nature", games=2)  # reevaluations.jsonl had the 30 games that were played first
    assert len(test[0].result.games) == 2
    mean, spread = map(float, str(result.metric_value).split(" +/- "))
    assert -1.0 <= mean <= 1.0
    assert spread >= 0.0
    assert {"reinforcement-learning", "deep-reinforcement-learning", "Catch"} <= set(card.data.tags)
    assert card.data.library_name == "wn-dqn"
    assert "wn-dqn play hf:me/it" in card.text
    status, out, _ = command("evaluate", "hf:me/it", "--games", "3", "--device", "cpu", "--json")
    assert (status, len(json.loads(out)["scores"])) == (0, 3)  # tested as any other network
    assert str(run.parent) not in files["README.md"].decode() + files["config.json"].decode()


def test_files_for_a_look_and_nothing_sent(run: Path, tmp_path: Path) -> None:
    """It needs neither the Hub nor its package."""
    folder = tmp_path / "new" / "files"
    status, out, _ = command("push", str(run), "--repo-id", "me/it", "--to", str(folder))
    assert (status, out) == (0, f"{folder}: the files for me/it; without --to they are sent\n")
    assert {path.name for path in folder.iterdir()} == FILES
    assert cv2.VideoCapture(str(folder / "replay.mp4")).read()[0]
    assert cv2.imread(str(folder / "curve.png")) is not None
    assert wn_dqn.load(folder / "model.safetensors").settings == wn_dqn.Run(run).settings
    before = (folder / "README.md").read_bytes()
    status, _, err = command("push", str(run), "--repo-id", "me/it", "--to", str(folder))
    assert (status, err) == (2, f"wn-dqn: {folder} exists and is not an empty folder; choose another name\n")
    assert (folder / "README.md").read_bytes() == before


def test_a_hub_that_refuses_is_one_line(run: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "write_files", lambda run, policy, repo_id, folder, reporter: None)
    hub.refuse = 403
    status, _, err = command("push", str(run), "--repo-id", "me/it")
    assert status == 1
    assert err.splitlines()[-1].startswith("wn-dqn: the Hub did not take me/it: 403 ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [("me/nothing", 1, "cannot get me/nothing from the Hub: 404"), ("nothing", 2, "is USER/NAME, not 'nothing'")],
)
def test_a_repository_that_is_not_there(name: str, status: int, words: str, hub: FakeHub) -> None:
    got, _, err = command("evaluate", f"hf:{name}")
    assert (got, err.count("\n"), words in err) == (status, 1, True), err


def test_without_its_package(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments in (("push", str(run), "--repo-id", "me/it"), ("play", "hf:me/it", "-o", "a.webm")):
        status, _, err = command(*arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert "pip install 'wn-dqn[hub]'" in err
