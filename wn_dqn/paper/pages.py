"""Runs of the paper's other systems as a figure and as a page: after its figures 1, 3 and 4, and its table (figure 2).

A title always names the data: nothing that was measured on embedded images is called CIFAR-10's or MNIST's.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wn_dqn.analysis import plotting
from wn_dqn.analysis.curves import Curve
from wn_dqn.analysis.plotting import CurvePanel
from wn_dqn.analysis.read_runs import Table, read_table
from wn_dqn.analysis.rendering import render_html
from wn_dqn.analysis.report_tables import TextTable
from wn_dqn.analysis.resampling import Scores, bootstrap_interval, mean
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.errors import UsageError
from wn_dqn.paper.settings import ARMS, PaperSettings, differing
from wn_dqn.paper.storage import SETTINGS, read_paper_settings
from wn_dqn.runs.metrics_writer import EVALUATIONS_CSV, METRICS_CSV
from wn_dqn.runs.run_directory import CONFIG
from wn_dqn.system import reading
from wn_dqn.system.reading import MIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER_ERRORS = {"mean-only-bn": 8.52, "wn": 8.46, "standard": 8.43, "bn": 8.05, "wn-mean-only-bn": 7.31}
"""test error on CIFAR-10 in percent, from the table in figure 2 of Salimans & Kingma (2016)"""
FINAL = {"cifar10": ("error_percent", "test error, %"), "vae-cifar10": ("bits_per_dim", "bits per dimension")}
"""system -> the measure of its table and what it is called; the bound for the others"""
_BOUND = ("bound", "bound on the log likelihood of a test image, nats")
_TRAINING_ERROR = ("train/error_percent", "training error, %")
FEWEST_RESAMPLED = 5
"""seeds from which on a band is a bootstrap's; with fewer it is their range"""
_PICTURES = ("reconstructions", "samples", "glimpses")


@dataclass(frozen=True)
class PaperRun:
    """A run of one of the systems, as it was found."""

    path: Path
    settings: PaperSettings
    evaluations: Table
    """a row an epoch"""
    metrics: Table
    """a row an epoch"""


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seeds."""

    label: str
    param: str
    runs: Sequence[PaperRun]


def has_paper_runs(paths: Sequence[Path]) -> bool:
    """Whether `paths`, run directories or folders of them, hold runs of these systems; UsageError if others, too."""
    found = [_holds([path], SETTINGS) for path in paths]
    if any(found) and (not all(found) or _holds(paths, CONFIG)):
        raise UsageError("runs of the agent and of the paper's other systems cannot be shown together; name one kind")
    return any(found)


def are_all_paper_runs(paths: Sequence[Path]) -> bool:
    """Whether `paths` hold runs of these systems, and none of the agent's."""
    return _holds(paths, SETTINGS) and not _holds(paths, CONFIG)


def _holds(paths: Sequence[Path], settings: str) -> bool:
    return any(folder for path in paths for folder in _folders(path, settings))


def _folders(path: Path, settings: str = SETTINGS) -> Iterator[Path]:
    """The run directories that `path` is or holds, by the name of their file of settings."""
    for folder in (path, *(sorted(path.iterdir()) if path.is_dir() else ())):
        if (folder / settings).is_file():
            yield folder


def read_arms(paths: Sequence[Path]) -> list[Arm]:
    """The runs in `paths` by arm. UsageError if they are of several systems or data, or none has an evaluation."""
    runs = []
    for folder in dict.fromkeys(folder.resolve() for path in paths for folder in _folders(path)):
        evaluations, metrics = (
            read_table(folder / name, ("steps", "epoch")) for name in (EVALUATIONS_CSV, METRICS_CSV)
        )
        if evaluations:
            runs.append(PaperRun(folder, read_paper_settings(folder), evaluations, metrics))
    if not runs:
        raise UsageError("no run has an evaluation yet: the first one follows the first epoch")
    if len(kinds := sorted({f"{run.settings.system} on {run.settings.data_label}" for run in runs})) > 1:
        raise UsageError(f"these runs cannot be compared: {', '.join(kinds)}; name those of one system and one data")
    return list(arms_of(runs))


def arms_of(runs: Sequence[PaperRun]) -> Iterator[Arm]:
    """Runs with equal settings but for the seed, in the order of the paper's arms."""
    groups: dict[PaperSettings, list[PaperRun]] = {}
    for run in sorted(runs, key=lambda run: (ARMS[run.settings.system].index(run.settings.param), run.settings.seed)):
        groups.setdefault(replace(run.settings, seed=0), []).append(run)
    usual: dict[str, PaperSettings] = {}
    for settings, members in groups.items():
        changes = differing(usual.setdefault(settings.param, settings), settings)
        label = ", ".join([PARAMETERIZATIONS[settings.param].label, *changes])
        yield Arm(label, settings.param, members)


def draw(arms: Sequence[Arm]) -> Figure:
    """The curves of all arms: of the classifier the training and the test error, of the others the bound."""
    settings = arms[0].runs[0].settings
    columns = [_TRAINING_ERROR, FINAL["cifar10"]] if settings.system == "cifar10" else [_BOUND]
    panels = [
        CurvePanel(f"{settings.title}\n{title}", [_curve(arm, column) for arm in arms]) for column, title in columns
    ]
    caption = (
        f"Means over seeds. Bands are the range of 2 to {FEWEST_RESAMPLED - 1} seeds, "
        f"and 95% of a bootstrap of {FEWEST_RESAMPLED} or more."
    )
    return plotting.draw_curves(panels, x_title="training epochs", y_title="", caption=caption, levels="none")


def _curve(arm: Arm, column: str) -> Curve:
    """The mean of a column over the seeds of an arm, up to the epoch that all have reached."""
    tables = [run.metrics if column.startswith("train/") else run.evaluations for run in arm.runs]
    length = min(len(table[column]) for table in tables)
    values = np.stack([table[column][:length] for table in tables])
    return Curve(arm.label, arm.param, tables[0]["epoch"][:length], mean(values.T), _band(values), tuple(values))


def _band(values: Scores) -> Scores | None:
    """The lower and the upper edge [2, epoch] of `values` [seed, epoch]; None for one seed.

    A bootstrap of fewer than `FEWEST_RESAMPLED` seeds promises a confidence that so few values cannot give.
    """
    if len(values) < 2:
        return None
    if len(values) < FEWEST_RESAMPLED:
        return np.stack([values.min(axis=0), values.max(axis=0)])
    return bootstrap_interval([values], mean)


def last_values(arm: Arm) -> list[float]:
    """The measure of the table after the last epoch, of each seed."""
    column, _ = FINAL.get(arm.runs[0].settings.system, _BOUND)
    return [float(run.evaluations[column][-1]) for run in arm.runs]


def final_table(arms: Sequence[Arm]) -> TextTable:
    """A row an arm: mean and range over seeds after the last epoch; of the classifier the paper's error beside it."""
    settings = arms[0].runs[0].settings
    _, title = FINAL.get(settings.system, _BOUND)
    with_paper = settings.system == "cifar10"
    header = ["arm", f"{title}\n{settings.data_label}", "seeds", "epochs"]
    rows = []
    for arm in arms:
        values = last_values(arm)
        shown = f"{np.mean(values):,.2f}" + (f"\n{min(values):,.2f} to {max(values):,.2f}" if len(values) > 1 else "")
        epochs = [int(run.evaluations["epoch"][-1]) for run in arm.runs]
        row = [arm.label, shown, str(len(values)), " to ".join(map(str, sorted({min(epochs), max(epochs)})))]
        rows.append([*row, f"{PAPER_ERRORS[arm.param]:.2f}"] if with_paper else row)
    return TextTable(settings.title, [*header, "the paper\nCIFAR-10"] if with_paper else header, rows)


def make_page(arms: Sequence[Arm]) -> bytes:
    """The HTML page about the runs: the table, the curves, and the newest pictures of each arm's first seed."""
    settings = arms[0].runs[0].settings
    return render_html(
        "paper.html",
        title=settings.title,
        embedded=settings.data_label.endswith("(embedded)"),
        classifier=settings.system == "cifar10",
        data=settings.data_label,
        table=final_table(arms),
        curves=base64.b64encode(plotting.figure_bytes(draw(arms), "svg")).decode(),
        pictures=list(_pictures(arms)),
    ).encode()


def _pictures(arms: Sequence[Arm]) -> Iterator[tuple[str, str]]:
    """A caption and a PNG in base64 for each picture."""
    for arm in arms:
        run = arm.runs[0]
        for name in _PICTURES:
            try:
                data = reading.read_bytes(run.path / f"{name}.png", 4 * MIB)
            except OSError:  # none was made yet, or none of this name
                continue
            yield f"{name}: {arm.label}, seed {run.settings.seed}", base64.b64encode(data).decode()
