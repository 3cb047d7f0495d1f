"""Trackers: what reaches the other programs, and that a run never waits for one."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from command import wn_dqn as command
from mlflow.tracking import MlflowClient
from small_runs import SMALL, assert_same, curves, outcome
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

import wn_dqn
from wn_dqn.config.files import dump_yaml, merge
from wn_dqn.interop import trackers
from wn_dqn.interop.trackers import Tracker

pytestmark = pytest.mark.usefixtures("small_network")


def train(folder: Path, *callbacks: wn_dqn.Callback, progress: bool = False, **settings: Any) -> wn_dqn.Run:
    """The small run; a section of `settings` changes it."""
    changed = wn_dqn.Settings(**merge([SMALL, settings]))
    return wn_dqn.train(changed, run_dir=folder, device="cpu", progress=progress, callbacks=callbacks)


class Memory(Tracker):
    """Keeps what it is given, and does what a test wants where a test wants it."""

    def __init__(self, where: str = "", what: Any = None, patience_s: float = 30.0) -> None:
        super().__init__(patience_s)
        self.where, self.what = where, what
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.status = ""

    def _now(self, where: str) -> None:
        if self.where == where:
            self.what()

    def open(self, view: wn_dqn.View) -> None:
        self._now("open")

    def log(self, steps: int, row: Mapping[str, float]) -> None:
        self.rows.append((steps, row))
        self._now("log")

    def close(self, status: str) -> None:
        self._now("close")
        self.status = status


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What nobody sets while a test runs."""
    event = threading.Event()
    yield event
    event.set()


def fail() -> None:
    raise OSError("no network\nand more")


def test_every_row_arrives_with_its_finite_numbers(tmp_path: Path) -> None:
    memory = Memory()
    run = train(tmp_path, memory)
    assert memory.status == "finished"
    for table, tag in ((run.metrics, lambda name: name), (run.evaluations, trackers.evaluation_tag)):
        for index, steps in enumerate(table["steps"]):
            values = {tag(name): column[index] for name, column in table.items() if name != "steps"}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            assert any(steps == at and row.keys() == finite.keys() for at, row in memory.rows), steps
    assert all(math.isfinite(value) for _, row in memory.rows for value in row.values())


@pytest.mark.survives("a tracker that fails", "one line; the run goes on, and ends in the same bits")
@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_tracker_that_fails_costs_one_line(
    where: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy = Memory()
    run = train(tmp_path / "run", Memory(where, fail), healthy, progress=True)
    assert run.status == healthy.status == "finished"
    messages = [line for line in capsys.readouterr().err.splitlines() if "Memory" in line]
    assert messages == ["Memory failed, and the run goes on without it: OSError: no network"]
    assert_same(outcome(trained), outcome(tmp_path / "run"))


@pytest.mark.survives("a tracker that never answers", "one line; the run ends without it")
@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_tracker_that_never_answers_costs_one_line(
    where: str,
    never: threading.Event,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether its queue has room for the whole run, or for three rows of it."""
    for rows in (1_000, 3):
        monkeypatch.setattr(trackers, "_QUEUE_ROWS", rows)
        stuck = Memory(where, never.wait, patience_s=0.01)
        assert train(tmp_path / str(rows), stuck, progress=True, learning={"total_steps": 120}).status == "finished"
        messages = [line for line in capsys.readouterr().err.splitlines() if "Memory" in line]
        assert messages == ["Memory does not answer: it loses its pending rows, the run loses nothing"]


def test_rows_that_find_no_room_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_QUEUE_ROWS", 3)
    go_on = threading.Event()

    class GoOn(wn_dqn.Callback):
        def on_end(self, view: wn_dqn.View) -> None:
            go_on.set()

    memory = Memory("open", go_on.wait)
    assert train(tmp_path, GoOn(), memory, progress=True).status == "finished"
    assert [steps for steps, _ in memory.rows] == [24, 48, 72]
    assert "Memory was slower than the run: 13 rows were left out" in capsys.readouterr().err


def test_a_tracker_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(wn_dqn.UsageError, match=r"WandbTracker needs wandb: pip install 'wn-dqn\[wandb\]'"):
        wn_dqn.WandbTracker()
    status, _, err = command("train", "--game", "Catch", "--track", "mlflow")
    assert (status, "MLflowTracker needs mlflow" in err) == (2, True)


def test_tensorboard_reads_the_same_curves_in_the_second_folder(tmp_path: Path) -> None:
    train(tmp_path / "run", wn_dqn.TensorBoard(tmp_path / "all"))
    events = EventAccumulator(str(tmp_path / "all" / "run"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(("speed/", "time/"))]
    copied = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    copied.pop("evaluation/train_s")
    assert copied == curves(tmp_path / "run")


def wandb_records(folder: Path) -> list[Any]:
    """What wandb wrote down to be sent."""
    records = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in log_records(path.read_bytes()[7:]):  # after the format's name and version
            records.append(wandb_internal_pb2.Record.FromString(data))
    return records


def log_records(log: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log: each is split where a block of 32 KiB ends."""
    position, begun = 7, b""  # in the first block, which began with 7 bytes more
    log = bytes(7) + log
    while position + 7 <= len(log):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(log[position + 4 : position + 6], "little"), log[position + 6]
        begun += log[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield begun
            begun = b""


def test_wandb_is_given_settings_rows_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, offline, in two parts; both are one run there."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(dump_yaml(SMALL))
    for steps in ("144", "320"):
        status, _, err = command(
            "train", "--config", "small.yaml", "--steps", steps, "--run-dir", "a", "--track", "wandb"
        )
        assert status == 0, err
        assert "Tracker" not in err
    records = wandb_records(Path("a"))
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.run_id, run.display_name, run.project) for run in runs} == {(runs[0].run_id, "a", "wn_dqn")}
    config = {item.key: item.value_json for item in runs[0].config.update}
    assert config["game"] == '"Catch"'
    logged: dict[str, dict[int, float]] = {}
    for record in records:
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for tag, value in items.items():
            logged.setdefault(tag, {})[record.history.step.num or int(items["_step"])] = float(value)
    run = wn_dqn.Run("a")
    scores = dict(zip(run.evaluations["steps"], run.evaluations["mean_return"], strict=True))
    assert logged["Score/mean_return"] == pytest.approx({**scores, 144: logged["Score/mean_return"][144]})
    epsilons = dict(zip(run.metrics["steps"], run.metrics["train/epsilon"], strict=True))
    assert logged["train/epsilon"] == pytest.approx(epsilons)
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0, 0]


def test_mlflow_is_given_settings_rows_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two parts, of which the first is stopped; both are one run there."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    client = MlflowClient(uri)

    class Enough(wn_dqn.Callback):
        def on_evaluation(self, view: wn_dqn.View) -> None:
            raise wn_dqn.StopTraining

    train(tmp_path / "a", wn_dqn.MLflowTracker("mine", tracking_uri=uri), Enough())
    experiment = client.get_experiment_by_name("mine").experiment_id
    (stopped,) = client.search_runs([experiment])
    assert (stopped.info.status, stopped.info.run_name) == ("KILLED", "a")
    assert stopped.data.params["game"] == "Catch"
    assert stopped.data.params["learning.total_steps"] == "320"
    run = train(tmp_path / "a", wn_dqn.MLflowTracker("mine", tracking_uri=uri))
    (finished,) = client.search_runs([experiment])
    assert (finished.info.run_id, finished.info.status) == (stopped.info.run_id, "FINISHED")
    for tag, steps, values in (
        ("Score/mean_return", run.evaluations["steps"], run.evaluations["mean_return"]),
        ("train/epsilon", run.metrics["steps"], run.metrics["train/epsilon"]),
    ):
        history = client.get_metric_history(finished.info.run_id, tag)
        assert [(point.step, point.value) for point in history] == list(zip(steps, values, strict=True))
    train(tmp_path / "b", wn_dqn.MLflowTracker("mine", tracking_uri=uri), learning={"total_steps": 24})
    assert len(client.search_runs([experiment])) == 2


def test_optuna_prunes_a_run_that_can_go_on(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        run = train(tmp_path / str(trial.number), wn_dqn.OptunaPruning(trial))
        return float(run.evaluations["mean_return"][-1])

    optuna.logging.disable_default_handler()
    states = []
    for lower in (-10.0, 10.0):  # a score of Catch is between -1 and 1
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=lower))
        study.optimize(objective, n_trials=1)
        states.append(study.trials[0].state.name)
        reported = study.trials[0].intermediate_values
        run = wn_dqn.Run(tmp_path / "0")
        scores = dict(zip(run.evaluations["steps"], run.evaluations["mean_return"], strict=True))
        assert reported == scores
        if lower > 0:
            assert (run.status, list(reported)) == ("paused", [120])
            assert train(tmp_path / "0").status == "finished"
        else:
            (tmp_path / "0").rename(tmp_path / "first")
    assert states == ["COMPLETE", "PRUNED"]
