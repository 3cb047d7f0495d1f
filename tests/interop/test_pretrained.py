"""The trained agents that come along: each plays as its card says, offline."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from command import wn_dqn as command

import wn_dqn
from wn_dqn.interop.places import pretrained, pretrained_folder, pretrained_names

GAMES = 10


@pytest.mark.parametrize("name", pretrained_names())
def test_it_plays_as_its_card_says(name: str) -> None:
    """Within four standard errors of the card's mean, and above what chance would score."""
    (row,) = (row for row in pretrained() if row["name"] == name)
    policy = wn_dqn.load(f"agent:{name}", device="cpu")
    test = policy.evaluate(row["score"]["protocol"].partition(" ")[0], games=GAMES, num_envs=GAMES)
    error = row["score"]["std"] / math.sqrt(GAMES)
    assert abs(test.mean - row["score"]["mean"]) < 4 * error
    assert row["score"]["games"] >= 100
    card = (pretrained_folder() / f"{name}.md").read_text()
    assert f"wn-dqn play agent:{name} -o game.webm" in card


def test_they_are_listed() -> None:
    status, out, _ = command("agents")
    assert status == 0
    assert [name for name in pretrained_names() if name not in out] == []
    status, out, _ = command("agents", "--json")
    assert (status, [row["name"] for row in json.loads(out)]) == (0, pretrained_names())
    assert len(pretrained_names()) >= 2


def test_they_are_small() -> None:
    """What everybody downloads with the package: 6 MB at most."""
    assert sum(path.stat().st_size for path in pretrained_folder().iterdir()) < 6e6


def test_one_that_is_not_there(tmp_path: Path) -> None:
    status, _, err = command("play", "agent:minatar-brakout-wn", "-o", str(tmp_path / "a.webm"))
    assert (status, err.count("\n")) == (2, 1)
    assert "did you mean minatar-breakout-wn" in err
