"""Writes metrics to TensorBoard and CSV files. The x axis is always agent steps.

Files only grow, so the state of a run's metrics is the length of each file. A resumed run truncates them to the length
at its checkpoint, so that no row is lost or duplicated. If the disk is full, rows wait in memory until there is room.
torch's SummaryWriter is not used: it writes from its own thread, and would lose those rows.
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
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wn_dqn.system import reading
from wn_dqn.system.durable import GrowingFile, cut_back, write_durably
from wn_dqn.system.reading import GIB, MIB

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

METRICS_CSV = "metrics.csv"
EVALUATIONS_CSV = "evaluations.csv"
TABLE_BYTES = 256 * MIB
"""upper limit for a table that is read as a whole"""
_GROWN_BYTES = 16 * GIB
_NEW_NAMES = {"cut_games": "truncated_games"}
"""column in tables of earlier versions -> current name of the metric"""
_TABLES = (METRICS_CSV, EVALUATIONS_CSV)
_CHECKSUMS = "crc32"
# The time has a decimal point here. That in names of torch's SummaryWriter has none, so that its files are left alone.
_OWN_EVENTS = re.compile(r"events\.out\.tfevents\.\d+\.\d{6}\..*\.\d+", re.DOTALL)


class MetricsWriter:
    """Metrics in a run directory: ``metrics.csv``, ``evaluations.csv`` and TensorBoard event files."""

    def __init__(self, folder: Path, hyperparameters: Mapping[str, Any]) -> None:
        """`hyperparameters` are nested settings, for TensorBoard's HPARAMS tab."""
        self._folder = folder
        self._hyperparameters = flatten(hyperparameters)
        self._growing: dict[str, GrowingFile] = {}
        self._columns: dict[str, list[str]] = {}
        self._left_out: dict[str, set[str]] = {}  # metrics without a column, by table of an earlier version
        self._events: str | None = None

    @property
    def unwritten(self) -> OSError | None:
        """The reason why rows are waiting to be written; None if no rows are."""
        return next((file.error for file in self._growing.values() if file.error is not None), None)

    def write(self, steps: int, row: Mapping[str, float]) -> None:
        """See :class:`Metrics`. Rows that a full disk refuses are kept and written when there is room."""
        from wn_dqn.runs.tensorboard_events import scalars

        self._append_row(METRICS_CSV, {"steps": steps, **row})
        self._add_event(steps, scalars(row))

    def write_evaluation(self, steps: int, row: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """See :class:`Metrics`. Rows that a full disk refuses are kept and written when there is room."""
        from wn_dqn.runs import tensorboard_events as events

        self._append_row(EVALUATIONS_CSV, {"steps": steps, **row})
        points = events.scalars({events.evaluation_tag(column): value for column, value in row.items()})
        self._add_event(steps, [*points, *events.histograms(histograms)])

    def write_clip(self, steps: int, tag: str, gif: bytes, size: tuple[int, int]) -> None:
        """A GIF of `size` (width, height), for the IMAGES tab, where browsers play it."""
        from wn_dqn.runs.tensorboard_events import clip

        self._add_event(steps, [clip(tag, gif, size)])

    def state_dict(self) -> dict[str, Any]:
        """The length of each file, after a flush to the disk. Raises OSError if the disk refuses it."""
        for file in self._growing.values():
            file.sync()
        tables = {name: self._growing[name] for name in _TABLES if name in self._growing}
        return {
            **{path.name: path.stat().st_size for path in self._event_files()},
            **{name: file.length_bytes for name, file in tables.items()},
            _CHECKSUMS: {name: file.crc32 for name, file in tables.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Truncate each file to its length at the checkpoint. Files created after the checkpoint are removed."""
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
                self._columns[name] = _header(self._folder / name)

    def scores(self) -> list[tuple[int, float]]:
        """Steps and mean return of each evaluation in the table."""
        path = self._folder / EVALUATIONS_CSV
        if not path.exists():
            return []
        table = csv.DictReader(reading.read_text(path, TABLE_BYTES).splitlines())
        return [(int(row["steps"]), float(row["mean_return"] or "nan")) for row in table]

    def problems(self, state: Mapping[str, Any]) -> list[str]:
        """A message about each table that has changed since `state` was taken. Appended rows are not a problem."""
        found = ((name, self._problem(name, state)) for name in _TABLES if name in state)
        return [f"{self._folder / name} {problem}" for name, problem in found if problem]

    def _problem(self, name: str, state: Mapping[str, Any]) -> str:
        length_bytes, crc32 = state[name], state.get(_CHECKSUMS, {}).get(name)
        if (self._folder / name).is_symlink():  # files are opened with O_NOFOLLOW: no row could be written
            return "is a link"
        try:
            found_bytes, found, whole = _read_beginning(self._folder / name, length_bytes)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if found_bytes < length_bytes:
            return f"has {found_bytes} bytes instead of {length_bytes}"
        # Earlier versions saved no checksum.
        return "" if (whole if crc32 is None else found == crc32) else "was changed since"

    def mended(self, state: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """Rewrite damaged tables with their complete rows up to `steps`, and return `state` with their new lengths."""
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
        """The event files that this program wrote into this run."""
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
        elif name not in self._columns:
            self._columns[name] = _header(self._folder / name)
        elif name in self._left_out and not row.keys() <= {*self._columns[name], *self._left_out[name]}:
            raise ValueError(f"{name}: the metrics of a run must be the same in every row")
        columns = self._columns[name]
        self._left_out[name] = row.keys() - columns  # a version with fewer metrics started the run
        values = [row.get(column, row.get(_NEW_NAMES.get(column, ""), math.nan)) for column in columns]
        table.writerow("" if math.isnan(value) else value for value in values)
        file.append(text.getvalue().encode())

    def _add_event(self, steps: int, summaries: list[Summary]) -> None:
        """Write one event, in a file of this process. A running TensorBoard reads on from its position in old files."""
        from wn_dqn.runs import tensorboard_events as events

        data = b""
        if self._events is None:
            first = not self._event_files()
            self._events = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            data = events.first_record()
            if first:
                data += events.record(0, events.description(self._hyperparameters))
        self._file(self._events).append(data + events.record(steps, summaries))


def _read_beginning(path: Path, length_bytes: int) -> tuple[int, int, bool]:
    """Read the first `length_bytes` of a table: the number of bytes found, their CRC-32, and whether they are rows."""
    done, crc32, whole, ending = 0, 0, True, b""
    with reading.opened(path, _GROWN_BYTES) as file:
        while block := file.read(min(MIB, length_bytes - done)):
            done, crc32 = done + len(block), zlib.crc32(block, crc32)
            rows, newline, rest = (ending + block).rpartition(b"\n")
            whole = whole and _is_table(rows + newline or b"\n") and len(rest) <= MIB
            ending = rest if whole else b""
    return done, crc32, whole and not ending and done > 0


def _header(path: Path) -> list[str]:
    """The column names of an existing table."""
    with reading.opened(path, _GROWN_BYTES) as file:
        return next(csv.reader([file.read(MIB).partition(b"\n")[0].decode()]))


def _is_table(data: bytes) -> bool:
    """Whether `data` can be complete rows of text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return data.endswith(b"\n") and b"\0" not in data


def _whole_rows(path: Path, steps: int) -> bytes:
    """The header of a damaged table and its complete rows up to `steps`; empty if there is no header."""
    try:
        data = reading.read_bytes(path, TABLE_BYTES)
        lines = [line for line in data.splitlines(keepends=True) if _is_table(line)]
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


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as a flat one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
