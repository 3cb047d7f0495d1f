"""Metrics: the same figures in CSV and TensorBoard files, and files that are cut back to a checkpoint."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from wn_dqn.runs.metrics_writer import MetricsWriter, flatten
from wn_dqn.training.metrics import NullMetrics

HYPERPARAMETERS = {
    "game": "Catch",
    "seed": 3,
    "environment": {"max_game_frames": None, "full_action_set": False},
    "optimizer": {"learning_rate": 3e-4},
}


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def events(folder: Path) -> EventAccumulator:
    """All event files of a run, as TensorBoard itself reads them."""
    accumulator = EventAccumulator(str(folder), {"scalars": 0, "histograms": 0, "tensors": 0})
    return accumulator.Reload()


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = events(folder)
    if tag not in accumulator.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


@pytest.fixture
def writer(tmp_path: Path) -> MetricsWriter:
    return MetricsWriter(tmp_path, HYPERPARAMETERS)


def test_tables(writer: MetricsWriter, tmp_path: Path) -> None:
    """A header once, a row per call; NaN is an empty cell."""
    writer.write(100, {"train/loss": math.nan, "train/games": 3})
    writer.write(200, {"train/loss": 0.1, "train/games": 0})
    writer.write_evaluation(250, {"mean_return": 1e-7, "games": 2}, {})
    again = MetricsWriter(tmp_path, HYPERPARAMETERS)
    again.write(300, {"train/loss": -1.0, "train/games": 1})
    assert read_csv(tmp_path / "metrics.csv") == [
        ["steps", "train/loss", "train/games"], ["100", "", "3"], ["200", "0.1", "0"], ["300", "-1.0", "1"],
    ]  # fmt: skip
    assert read_csv(tmp_path / "evaluations.csv") == [["steps", "mean_return", "games"], ["250", "1e-07", "2"]]


def test_a_resumed_run_knows_its_scores(writer: MetricsWriter, tmp_path: Path) -> None:
    assert writer.scores() == []
    for steps, score in ((100, 1.5), (200, -3.0)):
        writer.write_evaluation(steps, {"mean_return": score, "games": 2}, {})
    assert MetricsWriter(tmp_path, HYPERPARAMETERS).scores() == [(100, 1.5), (200, -3.0)]


def test_a_table_keeps_the_columns_it_began_with(tmp_path: Path) -> None:
    """A run of an older version, gone on with: its rows stay a table, and the new figures are curves."""
    (tmp_path / "metrics.csv").write_text("steps,train/loss,train/gone\n100,0.5,1\n")
    MetricsWriter(tmp_path, HYPERPARAMETERS).write(200, {"train/new": 7.0, "train/loss": 0.25})
    assert read_csv(tmp_path / "metrics.csv")[1:] == [["100", "0.5", "1"], ["200", "0.25", ""]]
    assert scalars(tmp_path, "train/new") == [(200, 7.0)]


def test_a_metric_that_has_no_column_is_an_error(writer: MetricsWriter) -> None:
    """It would be lost in silence; one that is absent is NaN."""
    writer.write(100, {"train/loss": 1.0, "train/games": 3})
    writer.write(200, {"train/loss": 1.0})
    with pytest.raises(ValueError, match=r"metrics\.csv: the metrics of a run must be the same in every row"):
        writer.write(300, {"train/loss": 1.0, "train/games": 3, "layers/new": 1.0})


def test_a_renamed_metric_goes_on_in_its_old_column(tmp_path: Path) -> None:
    (tmp_path / "evaluations.csv").write_text("steps,cut_games\n100,2\n")
    MetricsWriter(tmp_path, HYPERPARAMETERS).write_evaluation(200, {"truncated_games": 5}, {})
    assert read_csv(tmp_path / "evaluations.csv")[1:] == [["100", "2"], ["200", "5"]]


def test_tensorboard_holds_the_same_scalars(writer: MetricsWriter, tmp_path: Path) -> None:
    """As soon as they are written; there is no point where a figure is NaN."""
    writer.write(100, {"train/loss": math.nan, "train/games": 3})
    writer.write(200, {"train/loss": 0.125, "train/games": 0})
    writer.write_evaluation(250, {"mean_return": -2.5}, {})
    assert scalars(tmp_path, "train/loss") == [(200, 0.125)]
    assert scalars(tmp_path, "train/games") == [(100, 3.0), (200, 0.0)]
    assert scalars(tmp_path, "Score/mean_return") == [(250, -2.5)]
    assert set(events(tmp_path).Tags()["scalars"]) == {"train/loss", "train/games", "Score/mean_return"}


def test_histograms_at_evaluations(writer: MetricsWriter, tmp_path: Path) -> None:
    values = {"parameters/g": torch.linspace(-1.0, 2.0, 7, dtype=torch.float64), "parameters/b": torch.ones(2, 3)}
    for steps in (10, 20):
        writer.write_evaluation(steps, {"mean_return": 0.0}, values)
    accumulator = events(tmp_path)
    for tag, tensor in values.items():
        histograms = accumulator.Histograms(tag)
        assert [event.step for event in histograms] == [10, 20]
        value = histograms[-1].histogram_value
        assert (value.num, value.min, value.max, value.sum) == (
            tensor.numel(),
            tensor.min(),
            tensor.max(),
            tensor.sum(),
        )


def test_hyperparameters_belong_to_the_run_itself(writer: MetricsWriter, tmp_path: Path) -> None:
    """The HPARAMS tab finds the flattened settings, in no run folder of their own.

    Nothing is said about the experiment: TensorBoard would take one run's word for all of them, and could not tell
    which settings differ.
    """
    writer.write(1, {"train/loss": 1.0})
    contents = [
        plugin_data_pb2.HParamsPluginData.FromString(metadata)
        for metadata in events(tmp_path).PluginTagToContent("hparams").values()
    ]
    (session,) = [data.session_start_info for data in contents if data.HasField("session_start_info")]
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in session.hparams.items()}
    assert values == {
        "game": "Catch", "seed": 3.0, "environment.full_action_set": "false", "optimizer.learning_rate": 3e-4,
    }  # fmt: skip
    assert not [data for data in contents if data.HasField("experiment") or data.HasField("session_end_info")]
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_custom_scalars_lay_out_the_figures(writer: MetricsWriter, tmp_path: Path) -> None:
    """What matters most comes first."""
    writer.write(1, {"train/loss": 1.0})
    (event,) = events(tmp_path).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert [category.title for category in layout.category] == [
        "Score", "Learning", "Layers", "One update", "Activations", "Values", "Speed",
    ]  # fmt: skip
    assert charts["mean of the test games"] == ["Score/mean_return"]
    assert charts["mean g per layer"] == ["layers/.*/g_mean"]


def test_a_point_has_its_step_and_the_time_of_its_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a resume, which drops what was written since the checkpoint: no curve goes back in step or time."""
    clock = itertools.count(1_000_000.0, 10.0)
    monkeypatch.setattr("time.time", lambda: next(clock))
    writer = MetricsWriter(tmp_path, HYPERPARAMETERS)
    writer.write(8, {"train/loss": 1.0})
    state = writer.state_dict()
    writer.write(16, {"train/loss": 2.0})
    lost_s = next(clock)
    resumed = MetricsWriter(tmp_path, HYPERPARAMETERS)
    resumed.load_state_dict(state)
    resumed.write(16, {"train/loss": 3.0})
    points = events(tmp_path).Scalars("train/loss")
    assert [(point.step, point.value) for point in points] == [(8, 1.0), (16, 3.0)]
    assert points[0].wall_time < lost_s < points[1].wall_time


def test_a_resumed_run_says_the_layout_once(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        writer = MetricsWriter(tmp_path, HYPERPARAMETERS)
        writer.load_state_dict({path.name: path.stat().st_size for path in tmp_path.iterdir()})
        writer.write(steps, {"train/loss": 1.0})
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 3
    assert len(events(tmp_path).Tensors("custom_scalars__config__")) == 1


Action = tuple[str, int]
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "evaluate"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["save", "restore", "crash"]), st.integers(0, 3)),
    ),
    max_size=14,
)


@given(actions=ACTIONS)
@example(actions=[("evaluate", 1), ("save", 0), ("crash", 0)])  # what was buffered is saved, too
@example(actions=[("write", 1), ("restore", 0), ("evaluate", 1)])
def test_no_row_is_lost_or_stands_twice(tmp_path_factory: pytest.TempPathFactory, actions: list[Action]) -> None:
    """Write, save and restore in any order, in one process or after a crash: the files hold what a list would."""
    folder = tmp_path_factory.mktemp("run")
    writer = MetricsWriter(folder, HYPERPARAMETERS)
    rows: list[tuple[int, float]] = []
    evaluations: list[tuple[int, float]] = []
    saved: list[tuple[Mapping[str, int], int, int]] = [({}, 0, 0)]
    for steps, (action, number) in enumerate(actions):
        if action == "write":
            writer.write(steps, {"value": number})
            rows.append((steps, float(number)))
        elif action == "evaluate":
            writer.write_evaluation(steps, {"value": number}, {"histogram": torch.ones(3)})
            evaluations.append((steps, float(number)))
        elif action == "save":
            saved.append((writer.state_dict(), len(rows), len(evaluations)))
        else:
            if action == "crash":
                writer = MetricsWriter(folder, HYPERPARAMETERS)
            state, num_rows, num_evaluations = saved[-1 - number % len(saved)]
            del saved[len(saved) - number % len(saved) :], rows[num_rows:], evaluations[num_evaluations:]
            writer.load_state_dict(state)
    for name, tag, expected in (("metrics", "value", rows), ("evaluations", "evaluation/value", evaluations)):
        path = folder / f"{name}.csv"
        table = read_csv(path) if path.exists() else [["steps", "value"]]
        assert table[0] == ["steps", "value"]
        assert [(int(row[0]), float(row[1])) for row in table[1:]] == expected
        assert scalars(folder, tag) == expected
    if rows or evaluations:
        assert len(events(folder).Tensors("custom_scalars__config__")) == 1
    if evaluations:
        assert [event.step for event in events(folder).Histograms("histogram")] == [step for step, _ in evaluations]


def test_null_metrics_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    metrics = NullMetrics()
    metrics.write(1, {"train/loss": 1.0})
    metrics.write_evaluation(1, {"mean_return": 1.0}, {"parameters/g": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_flatten() -> None:
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": None}}, "f": {}}) == {"a": 1, "b.c": 2, "b.d.e": None}
