"""What is read of runs, how they are grouped, and the curves that become of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from small_runs import settings_for, train
from written_runs import write_run

from wn_dqn.analysis.curves import make_curve, stretch_means, trailing_mean
from wn_dqn.analysis.read_runs import Group, group_runs, read_run, read_runs
from wn_dqn.config.games import CATCH, Game
from wn_dqn.errors import UsageError

pytestmark = pytest.mark.usefixtures("small_network")


def groups_of(folder: Path) -> list[Group]:
    groups, problems = group_runs(read_runs([folder])[0])
    assert problems == []
    return groups


def test_a_real_run_is_read(tmp_path: Path) -> None:
    """The tables that training writes, with empty cells as NaN."""
    assert train(settings_for(), tmp_path / "catch") == 0
    run = read_run(tmp_path / "catch")
    assert run.finished
    assert run.steps == 320
    assert run.evaluations["steps"].tolist() == [120, 240, 320]
    assert math.isnan(run.metrics["train/loss"][0])
    assert run.metrics["steps"][-1] == 312
    assert run.game == CATCH


def test_folders_stand_for_the_runs_in_them_and_no_run_counts_twice(tmp_path: Path) -> None:
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0])
    write_run(tmp_path, "Pong", "wn", 1, [1.0])
    (tmp_path / "notes").mkdir()
    runs, problems = read_runs([path, tmp_path])
    assert [run.name for run in runs] == ["Pong-wn-seed0", "Pong-wn-seed1"]
    assert problems == []


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("evaluations.csv", "steps,mean_return\n250000,1\n500000,x\n", "damaged in line 3"),
        ("evaluations.csv", "steps,mean_return\n250000,1,2\n", "damaged in line 2"),
        ("evaluations.csv", "mean_return\n1\n", "damaged in line 2"),
        ("metrics.csv", "steps,a\n20,1\n10,1\n", "steps do not increase"),
        ("metrics.csv", b"steps,a\n\xff\xfe,1\n", "it is not text"),
        ("config.yaml", "game: [\n", "not valid YAML"),
        ("config.yaml", "", "holds no settings"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: str | bytes, message: str) -> None:
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0])
    (path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    runs, (problem,) = read_runs([path])
    assert runs == []
    assert message in problem
    assert file in problem
    assert "\n" not in problem


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    _, problems = read_runs([tmp_path / name for name in ("empty", "file", "absent")])
    assert [problem.split("not a run directory: ")[1] for problem in problems] == [
        "it has no readable config.yaml",
        "it is a file",
        "there is none",
    ]


def test_a_run_of_a_game_that_is_unknown_here_is_read(tmp_path: Path) -> None:
    """Another version of ale-py may have had it; a name that was spelled otherwise finds its game."""
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0])
    config = (path / "config.yaml").read_text()
    for name, expected in (("Pomg", Game("Pomg", "Pomg")), ("space_invaders", Game("space_invaders", "SpaceInvaders"))):
        (path / "config.yaml").write_text(config.replace("game: Pong", f"game: {name}"))
        (run,), problems = read_runs([path])
        assert (run.game, run.settings.game, problems) == (expected, expected.name, [])


def test_a_row_in_the_making_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0, 2.0])
    with (path / "evaluations.csv").open("a") as file:
        file.write("750000,3")
    assert read_run(path).scores.tolist() == [1, 2]


def test_runs_are_grouped_by_what_makes_them_comparable(tmp_path: Path) -> None:
    """Seeds of one experiment together, other settings apart, longer runs and other logging no matter."""
    for seed in range(2):
        write_run(tmp_path, "Pong", "wn", seed, [1.0], output__log_period_steps=10 + seed)
        write_run(tmp_path, "Pong", "standard", seed, [1.0], learning__total_steps=10**6 * (seed + 1))
    write_run(tmp_path / "other", "Pong", "wn", 0, [1.0], optimizer__learning_rate=1e-3)
    groups, problems = group_runs(read_runs([tmp_path, tmp_path / "other"])[0])
    assert problems == []
    assert [(group.label, len(group.runs)) for group in groups] == [
        ("standard parameterization", 2),
        ("weight normalization, optimizer.learning_rate 0.0003", 2),
        ("weight normalization, optimizer.learning_rate 0.001", 1),
    ]


def test_a_seed_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "Pong", "wn", 0, [1.0])
    write_run(tmp_path / "b", "Pong", "wn", 0, [2.0])
    (group,), (problem,) = group_runs(read_runs([tmp_path / "a", tmp_path / "b"])[0])
    assert len(group.runs) == 1
    assert "repeats seed 0" in problem


def test_a_process_that_died_is_not_called_running_without_a_time(tmp_path: Path) -> None:
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0], status="running")
    assert read_run(path).state_text == "running at step 250,000 of 50,000,000, last heard of 2026-01-02T12:00:00+0000"
    (path / "status.json").unlink()
    assert read_run(path).state_text == "not started at step 250,000 of 50,000,000"


def test_a_curve_is_the_mean_over_seeds_as_far_as_all_of_them_go(tmp_path: Path) -> None:
    write_run(tmp_path, "Pong", "wn", 0, [1.0, 3.0, 5.0])
    write_run(tmp_path, "Pong", "wn", 1, [3.0, 7.0])
    curve, (note,) = make_curve(groups_of(tmp_path)[0], "mean_return")
    assert curve is not None
    assert curve.x.tolist() == [1, 2]
    assert curve.center.tolist() == [2, 5]
    assert curve.interval is not None
    np.testing.assert_array_equal(curve.interval, [[1, 3], [3, 7]])  # of two runs, the bounds are the runs
    assert curve.label == "weight normalization (2 seeds)"
    assert "ends at step 500,000" in note


@pytest.mark.parametrize(
    ("x_axis", "x"), [("epochs", [1, 2]), ("steps", [2.5e5, 5e5]), ("frames", [1e6, 2e6]), ("hours", [1, 2])]
)
def test_x_axes(tmp_path: Path, x_axis: str, x: list[float]) -> None:
    write_run(tmp_path, "Pong", "wn", 0, [1.0, 3.0])
    curve, _ = make_curve(groups_of(tmp_path)[0], "mean_return", x_axis=x_axis)
    assert curve is not None
    assert curve.x.tolist() == x
    assert curve.interval is None
    assert curve.label == "weight normalization (1 seed, no band)"


def test_rows_without_a_value_are_bridged(tmp_path: Path) -> None:
    """No game may have ended in a log period."""
    write_run(tmp_path, "Pong", "wn", 0, [], metrics={"a": [math.nan, 1.0, math.nan, 3.0]})
    write_run(tmp_path, "Pong", "wn", 1, [], metrics={"a": [0.0, 1.0, 2.0, 3.0]})
    curve, notes = make_curve(groups_of(tmp_path)[0], "a", x_axis="steps")
    assert curve is not None
    assert curve.x.tolist() == [20_000, 30_000, 40_000]
    assert curve.center.tolist() == [1, 2, 3]
    assert notes == []


def test_smoothing_looks_back_only() -> None:
    assert trailing_mean(np.array([4.0, 0.0, 2.0, 6.0]), 3).tolist() == [4, 2, 2, 8 / 3]


def test_long_curves_become_means_over_stretches() -> None:
    assert stretch_means(np.arange(6.0), 3).tolist() == [0.5, 2.5, 4.5]
    values = np.random.default_rng(0).random((2, 103))
    naive = [[part.mean() for part in np.split(row, [20, 41, 61, 82])] for row in values]
    np.testing.assert_allclose(stretch_means(values, 5), naive)


def test_a_group_without_values_has_no_curve(tmp_path: Path) -> None:
    write_run(tmp_path, "Pong", "wn", 0, [])
    curve, (note,) = make_curve(groups_of(tmp_path)[0], "mean_return")
    assert curve is None
    assert "no mean_return yet" in note


def test_reevaluations_of_another_program_may_say_more(tmp_path: Path) -> None:
    entry = {"checkpoint": "step-1", "steps": 250_000, "protocol": "paper", "games": 60, "mean": 5.5, "std": None}
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0], fresh=[{**entry, "seed": 3, "new": [1]}])
    (found,) = read_run(path).reevaluations
    assert (found.steps, found.protocol, found.games, found.mean) == (250_000, "paper", 60, 5.5)
    assert math.isnan(found.std)


@pytest.mark.parametrize("line", [b"[1]", b'{"steps": 1}', b"\xff", b"cut", b"[" * 100_000])
def test_a_damaged_reevaluation_is_named_and_the_others_are_kept(tmp_path: Path, line: bytes) -> None:
    entry = {"checkpoint": "step-1", "steps": 250_000, "protocol": "paper", "games": 60, "mean": 5.5, "std": None}
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0], fresh=[entry])
    with (path / "reevaluations.jsonl").open("ab") as file:
        file.write(line + b"\n" + json.dumps(entry).encode() + b"\n")
    (run,), (problem,) = read_runs([path])
    assert [found.mean for found in run.reevaluations] == [5.5, 5.5]
    assert problem == f"{path / 'reevaluations.jsonl'} is damaged in line 2: that test is left out"


def test_provenance_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0])
    for content in ("{", json.dumps({"a": 1}), json.dumps([1])):
        (path / "provenance.json").write_text(content)
        assert read_run(path).provenance == ()
    with pytest.raises(UsageError):
        read_run(path / "provenance.json")
