"""The model card that a finished run leaves: true, complete, and never in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from command import wn_dqn
from ruamel.yaml import YAML
from small_runs import settings_for, train
from written_runs import write_run

from wn_dqn.analysis import model_card, plotting, scores
from wn_dqn.analysis.read_runs import read_run
from wn_dqn.config.files import read_config
from wn_dqn.config.games import Game
from wn_dqn.config.registry import AGENTS, PARAMETERIZATIONS
from wn_dqn.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("small_network")
FRESH = {"checkpoint": "step-500000", "steps": 500_000, "protocol": "paper", "games": 61, "mean": 1450.25, "std": 400.0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    means = [200.0, 1500.0, 900.0, 1000.0, 1100.0, 1200.0]
    return write_run(tmp_path, "SpaceInvaders", "wn", 3, means, fresh=[FRESH])


def test_the_command_writes_card_and_picture(run: Path) -> None:
    status, out, err = wn_dqn("card", str(run))
    assert (status, err) == (0, "")
    assert out.startswith(f"{run / 'model_card.md'}: Markdown")
    assert out.count("\n") == 1
    card = (run / "model_card.md").read_text()
    for words in (
        "# DQN playing SpaceInvaders, weight normalization",
        "seed 3",
        "| last epoch | 1,200.0 | 60 |",
        "| mean of the last 5 epochs | 1,140.0 | 300 |",
        "| maximum over 6 epochs | 1,500.0 | 60 | at step 500,000; biased upward",
        "| best network, fresh games | 1,450.2 | 61 | protocol paper; unbiased |",
        "| random policy | 148.0 |",
        "![Mean test score after each epoch of training](curve.png)",
        "MIT licence",
    ):
        assert words in card
    assert str(run.parent) not in card  # nobody else has this folder
    assert cv2.imread(str(run / "curve.png")) is not None


def test_the_metadata_is_what_the_hub_reads(run: Path) -> None:
    """Keys as in the Hub's specification of model cards; the number is the unbiased one."""
    wn_dqn("card", str(run))
    beginning, metadata, _ = (run / "model_card.md").read_text().split("---\n", 2)
    assert beginning == ""
    data = YAML(typ="safe").load(metadata)
    assert data["license"] == "mit"
    assert {"reinforcement-learning", "atari", "SpaceInvaders"} <= set(data["tags"])
    (result,) = data["model-index"][0]["results"]
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["dataset"]["type"] == "SpaceInvaders"
    assert [(metric["type"], metric["value"], metric["verified"]) for metric in result["metrics"]] == [
        ("mean_reward", "1450.25 +/- 400.00", False)
    ]
    (run / "reevaluations.jsonl").unlink()
    wn_dqn("card", str(run))
    card = (run / "model_card.md").read_text()
    assert "value: 1140.00 +/- 205.91" in card
    assert "| best network, fresh games |  |  | not run" in card


def test_a_finished_run_has_a_card_that_makes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that took seconds is not kept waiting for a picture."""
    monkeypatch.setattr(plotting, "learning_curves", None)
    monkeypatch.setattr(scores, "training_hours", lambda _run: 59 / 3600)  # whatever this machine needs
    settings = settings_for()
    assert train(settings, tmp_path / "run") == 0
    card = (tmp_path / "run" / "model_card.md").read_text()
    assert "`wn-dqn card .` draws the learning curve" in card
    assert "wn-dqn train --config config.yaml" in card
    assert read_config(str(tmp_path / "run" / "config.yaml")) == settings.model_dump()
    assert not (tmp_path / "run" / "curve.png").exists()


def test_a_run_of_a_minute_has_its_picture(run: Path) -> None:
    model_card.write_finished_card(run, pytest.fail)
    assert (run / "curve.png").exists()


def test_a_card_that_fails_is_told_and_the_run_is_finished_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_card, "write_durably", full)
    assert train(settings_for(), tmp_path / "run") == 0
    assert "no model card: [Errno 28] No space left on device" in capsys.readouterr().err
    assert RunDirectory(tmp_path / "run").read_status()["status"] == "finished"


def test_a_card_that_a_person_has_made_their_own_is_left_alone(run: Path) -> None:
    (run / "model_card.md").write_text("# Mine\n")
    status, out, err = wn_dqn("card", str(run))
    assert (status, out) == (2, "")
    assert "has been edited" in err
    assert (run / "model_card.md").read_text() == "# Mine\n"
    assert not (run / "curve.png").exists()


@pytest.mark.parametrize(
    ("param", "agent"), [*((param, "dqn") for param in PARAMETERIZATIONS), *(("wn", agent) for agent in AGENTS)]
)
def test_every_parameterization_and_agent_has_its_card(tmp_path: Path, param: str, agent: str) -> None:
    path = write_run(tmp_path, "Breakout", param, 0, [1.0], agent=agent)
    card = model_card.card_text(read_run(path), picture=False)
    assert f"{AGENTS[agent].label} plays Breakout. The layers of its Q-network: " in card
    (line,) = [line for line in card.splitlines() if line.startswith("# ")]
    name = AGENTS[agent].label.partition(" (")[0]
    assert line == f"# {name} playing Breakout, {PARAMETERIZATIONS[param].label}"
    assert ("51 returns from -10 to 10" in card) == AGENTS[agent].distributional
    data = YAML(typ="safe").load(card.split("---\n")[1])
    assert {agent, param} <= set(data["tags"])


def test_a_name_with_marks_of_markdown_is_only_a_name(tmp_path: Path) -> None:
    """It opens no table cell, no heading and no HTML; the metadata stay YAML."""
    name = "a|b*c*\n# [d](e) <img> `f` \x1b[0m --- :"
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0], fresh=[FRESH | {"steps": 250_000, "protocol": name}])
    run = replace(read_run(path), game=Game(name, name))
    card = model_card.card_text(run, picture=False)
    shown = r"a\|b\*c\* \# \[d\](e) \<img\> \`f\` \\x1b\[0m --- :"
    assert f"# DQN playing {shown}, weight normalization\n" in card
    assert f"| best network, fresh games | 1,450.2 | 61 | protocol {shown}; unbiased |\n" in card
    assert YAML(typ="safe").load(card.split("---\n")[1])["tags"][-2] == name


def test_there_is_no_card_of_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path, "Pong", "wn", 0, [])
    for folder, words in ((path, "has no evaluation yet"), (tmp_path / "absent", "is not a run directory")):
        status, out, err = wn_dqn("card", str(folder))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert words in err
