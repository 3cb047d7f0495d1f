"""Where metrics go: TensorBoard, CSV files and the console. The x axis is agent steps everywhere.

Files only grow, so the state of a run's metrics is how long each file is: a resumed run cuts them back to the length
they had at its checkpoint, and no row is lost or stands twice. What a full disk refuses waits in memory until there is
room: torch's SummaryWriter, whose summaries are used here, writes from a thread of its own and would lose it.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import socket
import stat
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import custom_scalars, histogram, hparams, scalar

from wn_dqn.system.durable import GrowingFile, cut_back, open_file, write_durably

METRICS_CSV = "metrics.csv"
EVALUATIONS_CSV = "evaluations.csv"
_NEW_NAMES = {"cut_games": "truncated_games"}
"""columns of tables that earlier versions began -> what the metric is called now"""
_TABLES = (METRICS_CSV, EVALUATIONS_CSV)
_CHECKSUMS = "crc32"
# torch's SummaryWriter writes no point into its names: files of others are left alone.
_OWN_EVENTS = re.compile(r"events\.out\.tfevents\.\d+\.\d{6}\..*\.\d+", re.DOTALL)

_LAYOUT = {
    "Learning": {
        "game score": ["Multiline", ["evaluation/mean_return", "train/episode_return"]],
        "max-Q": ["Multiline", ["evaluation/held_out_max_q", "train/mean_q"]],
        "loss": ["Multiline", ["train/loss"]],
    },
    "Weight normalization": {
        "mean g per layer": ["Multiline", ["layers/.*/g_mean"]],
        "mean ||v|| per layer": ["Multiline", ["layers/.*/v_norm_mean"]],
        "mean ||w|| per layer": ["Multiline", ["layers/.*/w_norm_mean"]],
    },
    "One update": {
        "||dv||/||v|| per layer": ["Multiline", ["layers/.*/step_ratio"]],
        "angle in degrees per layer": ["Multiline", ["layers/.*/angle_degrees"]],
        "||gradient||/||v|| per layer": ["Multiline", ["layers/.*/gradient_ratio"]],
    },
    "Activations": {
        "mean before the ReLU per layer": ["Multiline", ["layers/.*/preactivation_mean"]],
        "std before the ReLU per layer": ["Multiline", ["layers/.*/preactivation_std"]],
        "share of dead units per layer": ["Multiline", ["layers/.*/dead_share"]],
    },
    "Values": {
        "TD errors": ["Multiline", ["td_error/.*"]],
        "max-Q and the return obtained": ["Multiline", ["evaluation/visited_max_q", "evaluation/visited_return"]],
        "overestimation": ["Multiline", ["evaluation/overestimation"]],
    },
    "Speed": {"per second": ["Multiline", ["speed/steps_per_s", "speed/updates_per_s"]]},
}
_POSITIVE_LIMITS = 1e-12 * 1.1 ** np.arange(774)  # up to 1e20
_HISTOGRAM_LIMITS = np.concatenate([-_POSITIVE_LIMITS[::-1], [0.0], _POSITIVE_LIMITS])


class MetricsWriter:
    """Metrics in a run directory: ``metrics.csv``, ``evaluations.csv`` and TensorBoard event files."""

    def __init__(self, folder: Path, hyperparameters: Mapping[str, Any]) -> None:
        """`hyperparameters`: nested settings, for the HPARAMS tab."""
        self._folder = folder
        self._hyperparameters = {key: value for key, value in flatten(hyperparameters).items() if value is not None}
        self._growing: dict[str, GrowingFile] = {}
        self._columns: dict[str, list[str]] = {}
        self._left_out: dict[str, set[str]] = {}  # by a table that an earlier version began
        self._events: str | None = None

    @property
    def unwritten(self) -> OSError | None:
        """Why rows are waiting to be written; None if none are."""
        return next((file.error for file in self._growing.values() if file.error is not None), None)

    def write(self, steps: int, row: Mapping[str, float]) -> None:
        """See :class:`Metrics`. Rows that a full disk refuses are kept and written when there is room."""
        self._append_row(METRICS_CSV, {"steps": steps, **row})
        self._add_event(steps, _scalars(row))

    def write_evaluation(self, steps: int, row: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """See :class:`Metrics`. Rows that a full disk refuses are kept and written when there is room."""
        self._append_row(EVALUATIONS_CSV, {"steps": steps, **row})
        summaries = _scalars({f"evaluation/{name}": value for name, value in row.items()})
        for tag, values in histograms.items():
            summaries.append(histogram(tag, values.float().cpu().numpy(), _HISTOGRAM_LIMITS))  # type: ignore[no-untyped-call]
        self._add_event(steps, summaries)

    def write_clip(self, steps: int, tag: str, gif: bytes, size: tuple[int, int]) -> None:
        """A GIF of `size` (width, height), for the IMAGES tab, where browsers play it."""
        image = Summary.Image(height=size[1], width=size[0], colorspace=3, encoded_image_string=gif)
        self._add_event(steps, [Summary(value=[Summary.Value(tag=tag, image=image)])])

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Metrics`. OSError if the disk refuses what was written."""
        for file in self._growing.values():
            file.sync()
        tables = {name: self._growing[name] for name in _TABLES if name in self._growing}
        return {
            **{path.name: path.stat().st_size for path in self._event_files()},
            **{name: file.length_bytes for name, file in tables.items()},
            _CHECKSUMS: {name: file.crc32 for name, file in tables.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :class:`Metrics`. Files that began after the checkpoint are removed."""
        self._growing.clear()
        self._columns.clear()
        self._events = None
        for path in [*map(self._folder.joinpath, _TABLES), *self._event_files()]:
            if path.name in state:
                cut_back(path, state[path.name])
            elif os.path.lexists(path):
                path.unlink()
        for name in _TABLES:
            if name in state:
                self._file(name)

    def problems(self, state: Mapping[str, Any]) -> list[str]:
        """A message about each table that is not as it was when `state` was taken. Later rows are no problem."""
        found = ((name, self._problem(name, state)) for name in _TABLES if name in state)
        return [f"{self._folder / name} {problem}" for name, problem in found if problem]

    def _problem(self, name: str, state: Mapping[str, Any]) -> str:
        length_bytes, crc32 = state[name], state.get(_CHECKSUMS, {}).get(name)
        try:
            with open_file(self._folder / name, "rb") as file:
                data = file.readall()
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if len(data) < length_bytes:
            return f"has {len(data)} bytes instead of {length_bytes}"
        data = data[:length_bytes]
        # Earlier versions kept no checksum.
        whole = _is_table(data) if crc32 is None else zlib.crc32(data) == crc32
        return "" if whole else "was changed since"

    def mended(self, state: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """`state`, fitted to tables that are not as they were: rewritten with their whole rows up to `steps`."""
        fitted = {**state, _CHECKSUMS: dict(state.get(_CHECKSUMS, {}))}
        for name in _TABLES:
            if name in state and self._problem(name, state):
                data = _whole_rows(self._folder / name, steps)
                fitted[_CHECKSUMS].pop(name, None)
                if data:
                    write_durably(self._folder / name, data)
                    fitted |= {name: len(data), _CHECKSUMS: {**fitted[_CHECKSUMS], name: zlib.crc32(data)}}
                else:
                    del fitted[name]
        return fitted

    def _event_files(self) -> list[Path]:
        """Those that this program wrote into this run."""
        paths = sorted(self._folder.glob("events.out.tfevents.*"))
        return [path for path in paths if _OWN_EVENTS.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)]

    def _file(self, name: str) -> GrowingFile:
        if name not in self._growing:
            self._growing[name] = GrowingFile(self._folder / name)
        return self._growing[name]

    def _append_row(self, name: str, row: Mapping[str, float]) -> None:
        file, text = self._file(name), io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        if file.length_bytes == 0:
            self._columns[name] = list(row)
            table.writerow(row)
        elif name not in self._columns:  # of a run that goes on, begun perhaps by a version with fewer metrics
            with (self._folder / name).open(newline="", encoding="utf-8") as begun:
                self._columns[name] = next(csv.reader(begun))
        elif not row.keys() <= {*self._columns[name], *self._left_out[name]}:
            raise ValueError(f"{name}: the metrics of a run must be the same in every row")
        columns = self._columns[name]
        self._left_out[name] = row.keys() - columns
        values = [row.get(column, row.get(_NEW_NAMES.get(column, ""), math.nan)) for column in columns]
        table.writerow("" if math.isnan(value) else value for value in values)
        file.append(text.getvalue().encode())

    def _add_event(self, steps: int, summaries: list[Summary]) -> None:
        """One event, in a file of this process's own: a TensorBoard that is watching reads on where it was."""
        events = []
        if self._events is None:
            first = not self._event_files()
            self._events = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            events.append(Event(wall_time=time.time(), file_version="brain.Event:2"))
            if first:
                events += [Event(wall_time=time.time(), summary=summary) for summary in self._description()]
        values = [value for summary in summaries for value in summary.value]
        events.append(Event(wall_time=time.time(), step=steps, summary=Summary(value=values)))
        buffer = io.BytesIO()
        records = RecordWriter(buffer)
        for event in events:
            records.write(event.SerializeToString())
        self._file(self._events).append(buffer.getvalue())

    def _description(self) -> list[Summary]:
        """The layout of the charts, and the settings with the score that they led to."""
        # SummaryWriter.add_hparams would make a run folder of its own; the summaries themselves belong to this run.
        values = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in self._hyperparameters.items()}
        layout: Summary = custom_scalars(_LAYOUT)  # type: ignore[no-untyped-call]
        return [layout, *hparams(values, {"evaluation/mean_return": math.nan})]  # type: ignore[no-untyped-call]


def _is_table(data: bytes) -> bool:
    """Whether `data` may be whole rows of text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return data.endswith(b"\n") and b"\0" not in data


def _whole_rows(path: Path, steps: int) -> bytes:
    """The header of a damaged table and its rows up to `steps` that are whole; empty if there is none."""
    try:
        with open_file(path, "rb") as file:
            lines = [line for line in file.readall().splitlines(keepends=True) if _is_table(line)]
    except OSError:
        return b""
    if not lines or not lines[0].startswith(b"steps,"):
        return b""
    kept, last = [lines[0]], -1
    for line in lines[1:]:
        first = line.partition(b",")[0]
        if line.count(b",") == lines[0].count(b",") and first.isdigit() and last < int(first) <= steps:
            kept.append(line)
            last = int(first)
    return b"".join(kept) if kept[1:] else b""


def _scalars(row: Mapping[str, float]) -> list[Summary]:
    return [scalar(tag, value) for tag, value in row.items() if not math.isnan(value)]  # type: ignore[no-untyped-call]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
