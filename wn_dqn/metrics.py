"""Where figures go: TensorBoard, CSV files and the console. The x axis is agent steps everywhere.

Files only grow, so the state of a run's metrics is how long each file is: a resumed run cuts them back to the length
they had at its checkpoint, and no row is lost or stands twice.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

METRICS_CSV = "metrics.csv"
EVALUATIONS_CSV = "evaluations.csv"

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
    "Speed": {"per second": ["Multiline", ["speed/steps_per_s", "speed/updates_per_s"]]},
}


class Metrics(Protocol):
    """What the loop tells about itself."""

    def write(self, steps: int, figures: Mapping[str, float]) -> None:
        """A row of figures of a log period; NaN where there is nothing to tell. Keys are the same in every row."""
        ...

    def write_evaluation(self, steps: int, figures: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """The outcome of an evaluation, and the distributions of the network's parameters."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """How long each file is, after what was written has reached the disk."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut each file back to the length it had."""
        ...


class NullMetrics:
    """Metrics that nobody reads."""

    def write(self, steps: int, figures: Mapping[str, float]) -> None: ...
    def write_evaluation(self, steps: int, figures: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None: ...
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class MetricsWriter:
    """Metrics in a run directory: ``metrics.csv``, ``evaluations.csv`` and TensorBoard event files."""

    def __init__(self, folder: Path, hyperparameters: Mapping[str, Any]) -> None:
        """`hyperparameters`: nested settings, for the HPARAMS tab."""
        self._folder = folder
        self._hyperparameters = {key: value for key, value in flatten(hyperparameters).items() if value is not None}
        self._tensorboard: SummaryWriter | None = None

    def write(self, steps: int, figures: Mapping[str, float]) -> None:
        """See :class:`Metrics`."""
        self._append_row(METRICS_CSV, {"steps": steps, **figures})
        self._add_scalars(steps, figures)

    def write_evaluation(self, steps: int, figures: Mapping[str, float], histograms: Mapping[str, Tensor]) -> None:
        """See :class:`Metrics`."""
        self._append_row(EVALUATIONS_CSV, {"steps": steps, **figures})
        self._add_scalars(steps, {f"evaluation/{name}": value for name, value in figures.items()})
        for tag, values in histograms.items():
            self._writer().add_histogram(tag, values.float().cpu().numpy(), steps)

    def write_clip(self, steps: int, tag: str, gif: bytes, size: tuple[int, int]) -> None:
        """A GIF of `size` (width, height), for the IMAGES tab, where browsers play it."""
        image = Summary.Image(height=size[1], width=size[0], colorspace=3, encoded_image_string=gif)
        file_writer = self._writer().file_writer
        assert file_writer is not None
        file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), steps)

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Metrics`."""
        if self._tensorboard is not None:
            self._tensorboard.flush()
        lengths = {}
        for path in self._files():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                lengths[path.name] = file.seek(0, os.SEEK_END)
        return lengths

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :class:`Metrics`. Files that began after the checkpoint are removed."""
        self.close()
        for path in self._files():
            if path.name not in state:
                path.unlink()
            elif path.stat().st_size > state[path.name]:
                os.truncate(path, state[path.name])

    def close(self) -> None:
        """Write out what is buffered."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def _files(self) -> list[Path]:
        tables = [self._folder / METRICS_CSV, self._folder / EVALUATIONS_CSV]
        return [path for path in tables if path.exists()] + sorted(self._folder.glob("events.out.tfevents.*"))

    def _writer(self) -> SummaryWriter:
        if self._tensorboard is None:
            first = not any(self._folder.glob("events.out.tfevents.*"))
            self._tensorboard = SummaryWriter(str(self._folder))
            if first:
                self._tensorboard.add_custom_scalars(_LAYOUT)
                # add_hparams() would make a run folder of its own; the summaries themselves belong to this run.
                values = {
                    k: v if isinstance(v, bool | int | float | str) else str(v)
                    for k, v in self._hyperparameters.items()
                }
                for summary in hparams(values, {"evaluation/mean_return": math.nan}):  # type: ignore[no-untyped-call]
                    assert self._tensorboard.file_writer is not None
                    self._tensorboard.file_writer.add_summary(summary)
        return self._tensorboard

    def _add_scalars(self, steps: int, figures: Mapping[str, float]) -> None:
        for tag, value in figures.items():
            if not math.isnan(value):
                self._writer().add_scalar(tag, value, steps)
        self._writer().flush()

    def _append_row(self, name: str, row: Mapping[str, float]) -> None:
        path = self._folder / name
        with path.open("a", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                table.writerow(row)
            table.writerow("" if math.isnan(value) else value for value in row.values())


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
