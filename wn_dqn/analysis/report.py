"""The report: one self-contained HTML file with the runs, their results, and a list of what is missing.

Its first table is Figure 6 of Salimans & Kingma (2016) with our columns. Unbiased scores accompany each maximum.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wn_dqn import __version__
from wn_dqn.analysis import plotting, report_tables
from wn_dqn.analysis.curves import make_curve, metric_names, x_label
from wn_dqn.analysis.plotting import CurvePanel
from wn_dqn.analysis.read_runs import Group, Run
from wn_dqn.analysis.rendering import render_html
from wn_dqn.analysis.resampling import RESAMPLES
from wn_dqn.analysis.scores import LAST_EPOCHS
from wn_dqn.analysis.starts import starts_table
from wn_dqn.config.registry import AGENTS, PARAMETERIZATIONS
from wn_dqn.system.progress import ProgressReporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INSTRUMENT_POINTS = 120


@dataclass(frozen=True)
class Picture:
    """A plot inside the page, with a description for people who cannot see it."""

    alt: str
    svg_base64: str


def make_report(
    groups: Sequence[Group],
    problems: Sequence[str],
    reporter: ProgressReporter,
    price_per_hour: float | None = None,
    reference: str | None = None,
) -> bytes:
    """The HTML file about `groups`. `problems` are messages about unreadable runs.

    `reference` names published curves to draw behind ours.
    """
    runs = [run for group in groups for run in group.runs]
    curves, curve_notes = _curves(groups, reference)
    differing, same = report_tables.settings_tables(runs)
    page = render_html(
        "report.html",
        games=", ".join(dict.fromkeys(group.game.name for group in groups)),
        subtitle=_subtitle(groups, runs),
        missing=report_tables.missing_lines(groups, problems),
        scores=report_tables.scores_table(groups),
        human_normalized=report_tables.human_normalized_table(groups),
        improvement=report_tables.improvement_table(groups),
        starts=starts_table(groups),
        curves=curves,
        curve_notes=curve_notes,
        instruments=_instruments(groups, reporter),
        runs=report_tables.runs_table(runs, price_per_hour),
        differing_settings=differing,
        same_settings=same,
        provenance=report_tables.provenance_table(runs),
        last_epochs=LAST_EPOCHS,
        resamples=RESAMPLES,
        instrument_points=_INSTRUMENT_POINTS,
    )
    return page.encode()


def _subtitle(groups: Sequence[Group], runs: Sequence[Run]) -> str:
    """Agents, parameterizations and the number of runs, in the registry's order and words."""
    agents = [row.label for name, row in AGENTS.items() if name in {run.settings.agent for run in runs}]
    params = [row.label for name, row in PARAMETERIZATIONS.items() if name in {group.param for group in groups}]
    return f"{', '.join(agents)}; {', '.join(params)}: {len(runs)} runs, wn_dqn {__version__}"


def _curves(groups: Sequence[Group], reference: str | None) -> tuple[Picture | None, list[str]]:
    """The plot of all groups' scores over training, and notes about missing data."""
    if not any(len(run.scores) for group in groups for run in group.runs):
        return None, []
    figure, notes = plotting.learning_curves(groups, reference=reference)
    games = ", ".join(dict.fromkeys(group.game.name for group in groups))
    return _picture(figure, f"Mean test score after each epoch of training: {games}"), notes


def _instruments(groups: Sequence[Group], reporter: ProgressReporter) -> list[tuple[str, Picture]]:
    """Every column of the runs, game by game."""
    pictures = []
    games = list(dict.fromkeys(group.game.name for group in groups))
    with reporter.task("drawing", len(games)) as task:
        for number, game in enumerate(games, start=1):
            pictures += list(_instruments_of(game, [group for group in groups if group.game.name == game]))
            task.update(number, game)
    return pictures


def _instruments_of(game: str, groups: Sequence[Group]) -> Iterator[tuple[str, Picture]]:
    """A heading and a plot for each family of columns: evaluations, training, layers of the network."""
    runs = [run for group in groups for run in group.runs]
    families: dict[str, list[CurvePanel]] = {}
    for metric in metric_names(runs):
        made = [make_curve(group, metric, points=_INSTRUMENT_POINTS)[0] for group in groups]
        curves = [curve for curve in made if curve is not None]
        if curves:
            family = "layers" if metric.startswith("layers/") else "training" if "/" in metric else "evaluation"
            families.setdefault(family, []).append(CurvePanel(metric.removeprefix("layers/"), curves))
    for family, panels in families.items():
        figure = plotting.draw_small_multiples(panels, x_label(runs, "epochs"))
        columns = ", ".join(panel.title for panel in panels)
        yield f"{game}: {family}", _picture(figure, f"{game}, {family}: {columns}")


def _picture(figure: Figure, alt: str) -> Picture:
    return Picture(alt, base64.b64encode(plotting.figure_bytes(figure, "svg")).decode())
