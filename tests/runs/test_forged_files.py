"""Every file of a run damaged, oversized or forged: one line that names it, or it makes no difference."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import wn_dqn
from small_runs import CPU, settings_for, train

from wn_dqn.analysis.model_card import write_card
from wn_dqn.analysis.read_runs import read_run
from wn_dqn.errors import RunError, UsageError
from wn_dqn.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from wn_dqn.runs.experiment import verify_checkpoint
from wn_dqn.runs.policy import load_policy
from wn_dqn.runs.records import read_reevaluations
from wn_dqn.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("small_network")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes with a name")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 120 steps; copy it, do not touch it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train(settings_for(learning={"total_steps": 120}), folder) == 0
    test = {"steps": 120, "protocol": "paper", "games": 2, "mean": 1.5, "std": 0.5}
    (folder / "reevaluations.jsonl").write_text(json.dumps(test) + "\n")
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def go_on(run: Path) -> None:
    train(settings_for(learning={"total_steps": 144}), run)


def verify(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        verify_checkpoint(RunDirectory(run), path, resumable=True)


USES: dict[str, Callable[[Path], object]] = {
    "read": read_run,
    "card": lambda run: write_card(run, picture=False),
    "tests": read_reevaluations,
    "verify": verify,
    "load": lambda run: load_policy(run, "last", CPU),
    "train": go_on,
}


def message_of(use: str, run: Path) -> str:
    """Why this use is refused, in one line; empty if it is not."""
    try:
        USES[use](run)
    except (UsageError, RunError, CheckpointError) as error:
        message = str(error)
    else:
        return ""
    assert message
    assert "\n" not in message
    return message


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


BAD: dict[str, Callable[[Path], object]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a terabyte of nothing": sparse,
    "a line of NULs": lambda path: path.write_bytes(bytes(200_000)),
    "a list that does not end": lambda path: path.write_bytes(b"[" * 200_000),
}
FILES = ["config.yaml", "status.json", "provenance.json", "metrics.csv", "evaluations.csv", "reevaluations.jsonl"]
FILES += [f"checkpoints/*/{name}" for name in ("manifest.json", "state.json", "tensors.safetensors")]
FILES += ["replay/*.arrays"]


@posix_only
@pytest.mark.survives(
    "a file of a run is a pipe, endless, or another kind of file",
    "one line names it, or it makes no difference; nothing hangs, and no memory is taken",
)
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_none(file: str, kind: str, run: Path) -> None:
    for path in list(run.glob(file)):
        path.unlink()
        BAD[kind](path)
    for use in USES:
        message_of(use, run)


def table(*rows: str) -> str:
    return "".join(f"{row}\n" for row in ("steps,mean_return,games,train_s", *rows))


@pytest.mark.survives(
    "numbers in a table of scores that are none, or too large, and missing columns",
    "one line names the table and the line",
)
@pytest.mark.parametrize(
    "text",
    [
        table("120,inf,4,1"),
        table("120,1e400,4,1"),
        table("120,1e308,4,1", "240,-1e308,4,1"),
        table("1e400,1,4,1"),
        table("120.5,1,4,1"),
        table("-120,1,4,1"),
        table("120,,4,1"),
        table("120,1,4," + "1" * 200_000),
        table("120,\x00,4,1"),
        "\n\n\n",
        "steps,mean_return\n120,1\n",
        "steps,games\n120,1\n",
        "steps,mean_return,games,games\n120,1,1,1\n",
        "steps," + "," * 20_000 + "\n",
    ],
    ids=lambda text: ascii(text)[-40:-2],
)
def test_a_table_of_scores(text: str, run: Path) -> None:
    (run / "evaluations.csv").write_text(text)
    assert "evaluations.csv is damaged" in message_of("read", run)
    assert "evaluations.csv" in message_of("card", run)


def test_an_instrument_that_is_infinite_has_a_gap(run: Path) -> None:
    (run / "metrics.csv").write_text("steps,a\n24,inf\n48,1e308\n72,-1e400\n96,2\n")
    assert read_run(run).metrics["a"].tolist() == [pytest.approx(float("nan"), nan_ok=True)] * 3 + [2.0]


STATUSES: list[Any] = [
    {"steps": float("inf")},
    {"steps": 10**400},
    {"steps": -1},
    {"steps": "1"},
    {"status": ["finished"]},
    {"status": "finished", "steps": 10**15 + 1},
    {"status": "running", "time": 5},
    {"status": "failed", "error": {"a": 1}},
    {"status": "failed", "error": "\ud800"},
    [],
    5,
]


@pytest.mark.survives("a status or provenance of wrong types", "it is not believed, and a damaged provenance is kept")
@pytest.mark.parametrize("status", STATUSES, ids=lambda status: ascii(status)[:40])
def test_a_status_of_wrong_types_is_not_believed(status: Any, run: Path) -> None:
    (run / "status.json").write_text(json.dumps(status))
    assert RunDirectory(run).read_status() == {}
    assert read_run(run).state_text
    assert message_of("card", run) == message_of("train", run) == ""


PROVENANCES: list[Any] = [5, [5], [{"time": 5}], [{"versions": [1]}], [{"machine": "x"}], [{"command": 5}], {"a": 1}]


@pytest.mark.parametrize("provenance", PROVENANCES, ids=str)
def test_a_provenance_of_wrong_types_is_kept_aside(provenance: Any, run: Path) -> None:
    (run / "provenance.json").write_text(json.dumps(provenance))
    assert read_run(run).provenance == ()
    go_on(run)
    assert json.loads((run / "damaged-provenance.json").read_bytes()) == provenance
    assert len(read_run(run).provenance) == 1


@pytest.mark.survives("a damaged line in the records of tests", "that test is left out, and one line says so")
@pytest.mark.parametrize(
    "change",
    [
        {"mean": 1e308},
        {"mean": float("inf")},
        {"mean": None},
        {"std": "x"},
        {"steps": 10**400},
        {"games": -1},
        {"games": 1.5},
        {"protocol": 5},
        {"protocol": "\ud800"},
        {"checkpoint": ["x"]},
    ],
    ids=lambda change: ascii(change)[:40],
)
def test_a_record_of_wrong_types_is_left_out(change: dict[str, Any], run: Path) -> None:
    good = (run / "reevaluations.jsonl").read_text()
    bad = json.dumps({**json.loads(good), **change})
    (run / "reevaluations.jsonl").write_text(good + bad + "\n" + good)
    found, (problem,) = read_reevaluations(run)
    assert [test.mean for test in found] == [1.5, 1.5]
    assert "damaged in line 2" in problem


def forged(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Every checkpoint with another content, and hashes that are right."""
    for path in sorted((run / "checkpoints").iterdir()):
        state = load_checkpoint(path)
        change(state)
        shutil.rmtree(path)
        save_checkpoint(path.parent, int(path.name[5:15]), state, 1.0)


def set_at(*keys: str, to: Any) -> Callable[[dict[str, Any]], object]:
    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = to

    return change


def rename_moment(state: dict[str, Any]) -> None:
    for moments in state["agent"]["optimizer"].values():
        moments["another"] = moments.pop("exp_avg")


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "steps infinite": set_at("training", "steps", to=float("inf")),
    "steps negative": set_at("training", "steps", to=-8),
    "steps text": set_at("training", "steps", to="120"),
    "no training": set_at("training", to=None),
    "returns of text": set_at("training", "period", "returns", to=["x"]),
    "another field": set_at("training", "period", "another", to=1),
    "actions of floats": set_at("training", "epoch_actions", to=torch.ones(3, 8)),
    "actions that the game has not": set_at("training", "epoch_actions", to=torch.full((3, 8), 99, dtype=torch.uint8)),
    "returns of another number of games": set_at("training", "game_return", to=torch.zeros(3, dtype=torch.float64)),
    "a generator of another kind": set_at("training", "replay_generator", to={"bit_generator": "x"}),
    "a generator of huge numbers": set_at("training", "replay_generator", "state", "state", to=10**1000),
    "exploration that is none": set_at("agent", "exploration", to={"bit_generator": "PCG64", "state": 5}),
    "settings that are none": set_at("settings", to={"game": 5}),
    "a network of another shape": set_at("agent", "online", "output.b", to=torch.zeros(5)),
    "a parameter that is NaN": set_at("agent", "online", "output.b", to=torch.full((3,), torch.nan)),
    "a parameter that float32 has not": set_at(
        "agent", "target", "output.b", to=torch.full((3,), 1e300, dtype=torch.float64)
    ),
    "an optimizer of another": set_at("agent", "optimizer", to={"0": {"x": torch.zeros(5)}}),
    "moments of another name": rename_moment,
    "no metrics": set_at("metrics", to={"metrics.csv": -5}),
    "a replay without its beginning": set_at("replay", "segments", to=[]),
    "a replay of another length": set_at("replay", "num_appended", to=10**15),
    "segments that are none": set_at("replay", "segments", to=[5]),
    "a segment outside of the run": set_at(
        "replay", "segments", to=[{"name": "../config.yaml", "bytes": 1, "sha256": "0" * 64, "start": 0, "stop": 9}]
    ),
    "held-out states that are none": set_at("held_out", to={"name": "x\ud800"}),
}


@pytest.mark.survives(
    "a forged checkpoint whose hashes are right: wrong types, shapes and numbers", "one line says what is wrong"
)
@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_checkpoint_is_refused(what: str, run: Path) -> None:
    forged(run, FORGERIES[what])
    assert "no checkpoint in" in message_of("train", run)


def test_a_checkpoint_that_is_saved_again_is_not_refused(run: Path) -> None:
    """So that it is the forgeries above that are refused, and not the way in which they are made."""
    forged(run, lambda _state: None)
    assert message_of("train", run) == message_of("load", run) == ""


@pytest.mark.survives("`checkpoint verify` of a run without checkpoints", "one line, and exit status 1")
def test_a_run_without_checkpoints_is_not_whole(run: Path) -> None:
    """`wn-dqn checkpoint verify` says so."""
    shutil.rmtree(run / "checkpoints")
    assert wn_dqn("checkpoint", "verify", str(run)) == (1, "", f"wn-dqn: {run} has no checkpoint\n")


def test_a_score_that_is_no_number_is_none(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"x": np.zeros(2)}, float("nan"))
    assert load_checkpoint(path)["x"].tolist() == [0, 0]
