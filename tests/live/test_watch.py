"""Runs that are followed: what a page is shown of them, and that it is read again when it has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from written_runs import write_run

from wn_dqn.live.watch import STALLED_AFTER_S, Watch
from wn_dqn.system import reading

NOW_S = 2_000_000_000.0
METRICS = {"speed/steps_per_s": [100.0, 250.0], "train/epsilon": [1.0, 0.5], "train/loss": [float("nan"), 0.25]}


def touch(run: Path, age_s: float) -> None:
    """Let all files of a run have changed so long ago."""
    for path in run.iterdir():
        os.utime(path, (NOW_S - age_s, NOW_S - age_s))


def test_a_run_under_way(tmp_path: Path) -> None:
    """50,000,000 steps in all, 500,000 of them done, 250 a second."""
    run = write_run(tmp_path, "Pong", "wn", 3, [-20.0, -5.0], status="running", metrics=METRICS)
    touch(run, 10)
    (shown,) = Watch([tmp_path], lambda: NOW_S).runs()
    assert shown == {
        "id": str(run), "name": "Pong-wn-seed3", "status": "running", "reason": "", "heard_s": NOW_S - 10,
        "game": "Pong", "layers": "weight normalization", "agent": "DQN", "seed": 3, "random": -20.7, "human": 14.6,
        "steps": 500_000, "total": 50_000_000, "speed": 250.0, "left_s": 198_000.0, "epsilon": 0.5, "loss": 0.25,
        "scores": [(250_000, -20.0), (500_000, -5.0)], "last": -5.0, "best": -5.0, "best_steps": 500_000,
        "num_scores": 2,
    }  # fmt: skip


def test_those_under_way_come_first_and_the_stalled_and_failed_are_marked(tmp_path: Path) -> None:
    """A run that says that it is running, and has not written for minutes, is stalled."""
    for seed, (status, age_s) in enumerate(
        [("finished", 0), ("failed", 0), ("running", STALLED_AFTER_S + 1), ("running", STALLED_AFTER_S - 1)]
    ):
        touch(write_run(tmp_path, "Catch", "wn", seed, [0.5], status=status), age_s)
    shown = Watch([tmp_path], lambda: NOW_S).runs()
    assert [(run["seed"], run["status"]) for run in shown] == [
        (3, "running"), (2, "stalled"), (1, "failed"), (0, "finished"),
    ]  # fmt: skip
    assert "files do not change" in shown[1]["reason"]


def test_the_reason_of_a_failure(tmp_path: Path) -> None:
    run = write_run(tmp_path, "Catch", "wn", 0, [])
    (run / "status.json").write_text(json.dumps({"status": "failed", "steps": 70, "error": "the loss is \x1bnan"}))
    (shown,) = Watch([run]).runs()
    assert (shown["status"], shown["reason"], shown["steps"]) == ("failed", "the loss is \\x1bnan", 70)
    assert (shown["scores"], shown["speed"], shown["left_s"]) == ([], None, None)


def test_a_row_that_is_being_written_is_left_for_the_next_time(tmp_path: Path) -> None:
    run = write_run(tmp_path, "Catch", "wn", 0, [0.25], status="running", metrics=METRICS)
    watch = Watch([run])
    for name in ("evaluations.csv", "metrics.csv"):
        with (run / name).open("a") as file:
            file.write("500000,0.")
    (shown,) = watch.runs()
    assert (shown["scores"], shown["epsilon"]) == ([(250_000, 0.25)], 0.5)


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a run are read once, its tables when they grow."""
    run = write_run(tmp_path, "Catch", "wn", 0, [0.25], status="running", metrics=METRICS)
    read: list[str] = []
    opened = reading.opened

    def watched(path: Path, max_bytes: int) -> object:
        read.append(path.name)
        return opened(path, max_bytes)

    monkeypatch.setattr(reading, "opened", watched)
    watch = Watch([run])
    first = watch.runs()
    assert {"config.yaml", "status.json", "evaluations.csv", "metrics.csv"} <= set(read)
    read.clear()
    assert watch.runs() == first
    assert read == []
    with (run / "metrics.csv").open("a") as file:
        file.write("30000,300.0,0.25,0.125,7\n")
    (shown,) = watch.runs()
    assert shown["epsilon"] == 0.25
    assert "config.yaml" not in read


def test_runs_that_begin_later_and_folders_that_go_are_followed(tmp_path: Path) -> None:
    now_s = NOW_S
    watch = Watch([tmp_path / "runs"], lambda: now_s)
    assert watch.runs() == []
    run = write_run(tmp_path / "runs", "Catch", "wn", 0, [0.5])
    now_s += 60
    assert [shown["name"] for shown in watch.runs()] == ["Catch-wn-seed0"]
    assert watch.folder(str(run)) == run
    assert watch.folder("/etc") is None
    run.rename(tmp_path / "gone")
    now_s += 60
    assert watch.runs() == []


@pytest.mark.parametrize("name", ["config.yaml", "evaluations.csv", "metrics.csv"])
def test_a_damaged_run_is_named_and_the_others_are_shown(name: str, tmp_path: Path) -> None:
    damaged = write_run(tmp_path, "Catch", "wn", 0, [0.5], metrics=METRICS)
    write_run(tmp_path, "Catch", "wn", 1, [0.5])
    (damaged / name).write_bytes(b"steps,mean_return,games\n\xff\xfe,1\n1,2\n")
    shown = {run["name"]: run for run in Watch([tmp_path]).runs()}
    assert shown["Catch-wn-seed0"]["status"] == "unreadable"
    assert shown["Catch-wn-seed0"]["reason"]
    assert shown["Catch-wn-seed1"]["status"] == "finished"


@pytest.mark.parametrize("name", ["evaluations.csv", "metrics.csv"])
@pytest.mark.parametrize("cell", ["inf", "1e400", "1" * 200_000, "9" * 400], ids=lambda cell: cell[:5])
def test_a_number_of_any_size_ends_no_page(cell: str, name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path, "Catch", "wn", 0, [0.5], metrics=METRICS)
    write_run(tmp_path, "Catch", "wn", 1, [0.5], metrics=METRICS)
    header = (run / name).read_text().partition("\n")[0]
    (run / name).write_text(f"{header}\n" + ",".join([cell] * len(header.split(","))) + "\n")
    assert len(Watch([tmp_path]).runs()) == 2


def test_a_long_run_is_told_in_few_points(tmp_path: Path) -> None:
    """The first evaluation and the last are among them."""
    (shown,) = Watch([write_run(tmp_path, "Catch", "wn", 0, [float(i) for i in range(1999)])]).runs()
    assert shown["num_scores"] == 1999
    assert len(shown["scores"]) <= 401
    assert (shown["scores"][0][1], shown["scores"][-1][1], shown["best"]) == (0.0, 1998.0, 1998.0)
