"""A run's data for TensorBoard: tags, the layout of the charts, and the records of an event file.

Importing tensorboard loads 90 modules in a tenth of a second. So a run imports this module when it writes its first
row. TensorBoard sorts tags by their characters. Capitals come first, and so ``Score`` is at the top of the page.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import custom_scalars, hparams
from torch.utils.tensorboard.summary import histogram as histogram_of
from torch.utils.tensorboard.summary import scalar as scalar_of

_SCORE_COLUMNS = ("mean_return", "median_return")
"""columns of evaluations.csv at the top of the page"""

LAYOUT = {
    "Score": {
        "mean of the test games": ["Multiline", ["Score/mean_return"]],
        "median of the test games": ["Multiline", ["Score/median_return"]],
        "mean of the training games": ["Multiline", ["train/episode_return"]],
    },
    "Learning": {
        "loss": ["Multiline", ["train/loss"]],
        "Q-values": ["Multiline", ["evaluation/held_out_max_q", "train/mean_q"]],
        "TD errors": ["Multiline", ["td_error/.*"]],
        "share of greedy actions that one update changes": ["Multiline", ["train/greedy_churn"]],
    },
    "Layers": {
        "mean g per layer": ["Multiline", ["layers/.*/g_mean"]],
        "mean ||v|| per layer": ["Multiline", ["layers/.*/v_norm_mean"]],
        "mean ||w|| per layer": ["Multiline", ["layers/.*/w_norm_mean"]],
        "largest singular value per layer": ["Multiline", ["layers/.*/sigma_1"]],
        "feature rank of the last hidden layer": ["Multiline", ["layers/.*/feature_rank"]],
    },
    "One update": {
        "||dv||/||v|| per layer": ["Multiline", ["layers/.*/step_ratio"]],
        "||dw||/||w|| per layer": ["Multiline", ["layers/.*/w_step_ratio"]],
        "angle in degrees per layer": ["Multiline", ["layers/.*/angle_degrees"]],
        "||gradient||/||v|| per layer": ["Multiline", ["layers/.*/gradient_ratio"]],
    },
    "Activations": {
        "mean before the ReLU per layer": ["Multiline", ["layers/.*/preactivation_mean"]],
        "std before the ReLU per layer": ["Multiline", ["layers/.*/preactivation_std"]],
        "share of dead units per layer": ["Multiline", ["layers/.*/dead_share"]],
        "share of dormant units per layer": ["Multiline", ["layers/.*/dormant_share"]],
    },
    "Values": {
        "max-Q and the return obtained": ["Multiline", ["evaluation/visited_max_q", "evaluation/visited_return"]],
        "overestimation": ["Multiline", ["evaluation/overestimation"]],
        "largest eigenvalue of the Hessian": ["Multiline", ["evaluation/hessian_top"]],
        "epsilon": ["Multiline", ["train/epsilon"]],
    },
    "Speed": {"per second": ["Multiline", ["speed/steps_per_s", "speed/updates_per_s"]]},
}
"""the CUSTOM SCALARS tab: sections, their charts, and the tags in each as regular expressions"""
_POSITIVE_LIMITS = 1e-12 * 1.1 ** np.arange(774)  # up to 1e20
_HISTOGRAM_LIMITS = np.concatenate([-_POSITIVE_LIMITS[::-1], [0.0], _POSITIVE_LIMITS])


def evaluation_tag(column: str) -> str:
    """The tag of a column of evaluations.csv."""
    return f"Score/{column}" if column in _SCORE_COLUMNS else f"evaluation/{column}"


def scalars(row: Mapping[str, float]) -> list[Summary]:
    """A point for each number in `row`, by tag. NaN is left out."""
    return [scalar_of(tag, value) for tag, value in row.items() if not math.isnan(value)]  # type: ignore[no-untyped-call]


def histograms(values: Mapping[str, Tensor]) -> list[Summary]:
    """The distribution of each tensor, by tag."""
    return [
        histogram_of(tag, tensor.float().cpu().numpy(), _HISTOGRAM_LIMITS)  # type: ignore[no-untyped-call]
        for tag, tensor in values.items()
    ]


def clip(tag: str, gif: bytes, size: tuple[int, int]) -> Summary:
    """A GIF of `size` (width, height), for the IMAGES tab, where browsers play it."""
    image = Summary.Image(height=size[1], width=size[0], colorspace=3, encoded_image_string=gif)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def description(settings: Mapping[str, Any]) -> list[Summary]:
    """The layout of the charts, and the settings, dotted, for the HPARAMS tab.

    The HPARAMS tab needs no list of an experiment's settings. Without it, TensorBoard finds the settings that differ
    between the runs of a folder, and shows those first. A setting that is None is left out.
    """
    layout: Summary = custom_scalars(LAYOUT)  # type: ignore[no-untyped-call]
    shown = {key: _hyperparameter(value) for key, value in settings.items() if value is not None}
    _, session_start, _ = hparams(shown, {})  # type: ignore[no-untyped-call]
    return [layout, session_start]


def _hyperparameter(value: Any) -> int | float | str:
    """A number unchanged, anything else as text, also a boolean: torch would write it as 0.0 or 1.0."""
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, int | float) else str(value)


def first_record() -> bytes:
    """The first record of an event file, with its version."""
    return _records([Event(wall_time=time.time(), file_version="brain.Event:2")])


def record(steps: int, summaries: Iterable[Summary]) -> bytes:
    """The record of one event with all of `summaries`, at `steps` and the current time."""
    values = [value for summary in summaries for value in summary.value]
    return _records([Event(wall_time=time.time(), step=steps, summary=Summary(value=values))])


def _records(events: Iterable[Event]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
