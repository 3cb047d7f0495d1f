"""The last words of a run: its scores beside published ones, and commands that can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from written_runs import write_run

from wn_dqn.analysis.closing import closing, score_lines
from wn_dqn.analysis.read_runs import read_run
from wn_dqn.cli.main import cli


def test_scores_stand_beside_a_random_policy_and_a_human(tmp_path: Path) -> None:
    """Road Runner: random 11.5, human 7,845."""
    run = read_run(write_run(tmp_path, "RoadRunner", "wn", 0, [11.5, 3928.25, 1000.0]))
    assert score_lines(run) == [
        "           step    score  of human",
        "first   250,000     11.5        0%",
        "last    750,000  1,000.0       13%",
        "best    500,000  3,928.2       50%",
        "random              11.5        0%",
        "human            7,845.0      100%",
    ]


def test_a_game_that_no_human_was_tested_on_has_no_such_column(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, "Catch", "wn", 0, [-0.5, 0.93]))
    assert score_lines(run) == ["           step  score", "first   250,000  -0.50", "last    500,000   0.93",
                                "best    500,000   0.93", "random           -0.71"]  # fmt: skip


def test_the_longest_run_of_the_paper_fits_a_narrow_terminal(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, "VideoPinball", "wn", 0, [999_999.9] * 200))
    assert max(map(len, score_lines(run))) <= 40


@pytest.mark.parametrize("name", ["runs", "my runs", "it's"])
def test_the_commands_can_be_pasted(name: str, tmp_path: Path) -> None:
    """Whatever the folder is called: the shell takes each path as one word."""
    path = write_run(tmp_path / name, "Pong", "wn", 0, [-20.0])
    lines = closing(path)
    assert lines[0].endswith("is finished: 250,000 steps, 60 minutes of training")
    commands = [shlex.split(line) for line in lines[lines.index("next:") + 1 :]]
    assert [words[:2] for words in commands] == [["wn-dqn", "play"], ["wn-dqn", "report"], ["tensorboard", "--logdir"]]
    assert {words[1] for words in commands[:2]} <= set(cli.commands)
    assert {words[2] for words in commands} == {str(path)}
    assert commands[0][3:] == ["-o", "Pong.webm"]


def test_a_run_that_cannot_be_read_still_says_what_comes_next(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert closing(tmp_path / "run")[0] == "next:"
