"""Plots of learning curves, after Figure 5 of Salimans & Kingma (2016).

Colours are those of Okabe and Ito, then of Paul Tol, which people with any colour vision can distinguish. The lines
also differ in their dashes and markers, for print in black and white. The same data gives the same bytes, independently
of matplotlibrc.

Importing matplotlib takes most of a second, so only functions that draw import it.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wn_dqn.analysis import reference as published_curves
from wn_dqn.analysis.curves import MAX_POINTS, Curve, make_curve, require_metric, x_label, x_values, y_label
from wn_dqn.analysis.published import PAPER_ARMS, PAPER_COLUMNS, published_scores
from wn_dqn.analysis.read_runs import Group, Run
from wn_dqn.analysis.reference import ReferenceCurve
from wn_dqn.analysis.resampling import Scores
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.errors import UsageError
from wn_dqn.system import output_file
from wn_dqn.system.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: list[dict[str, Any]] = [
    {"color": "#0072B2", "linestyle": (0, (5, 2)), "marker": "s"},
    {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": (0, (1, 1)), "marker": "v"},
    {"color": "#56B4E9", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "D"},
    {"color": "#E69F00", "linestyle": (0, (8, 2)), "marker": "P"},
    {"color": "#000000", "linestyle": (0, (3, 3)), "marker": "x"},
    {"color": "#882255", "linestyle": (0, (6, 1, 1, 1)), "marker": "<"},
    {"color": "#332288", "linestyle": (0, (4, 4)), "marker": ">"},
    {"color": "#44AA99", "linestyle": (0, (2, 1)), "marker": "p"},
    {"color": "#999933", "linestyle": (0, (8, 1, 2, 1)), "marker": "h"},
    {"color": "#661100", "linestyle": (0, (1, 2)), "marker": "*"},
]
"""styles of the parameterizations, in the order of their registry"""
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "svg.hashsalt": "wn_dqn",  # a fixed salt keeps the identifiers in the file the same
    "path.simplify": True,
    "text.parse_math": False,  # a dollar in a name is a dollar
}
# The mark by which our own plots are recognized. It has no date and no version, so that equal plots are equal files.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": output_file.MARK},
    "svg": {"Creator": output_file.MARK, "Date": None},
    "pdf": {"Creator": output_file.MARK, "CreationDate": None},
}
_GRAY = "#666666"
_NEAR = 0.2  # share of the axis; the axis is extended to published scores within this distance of the curves


@contextmanager
def _our_settings(**changes: Any) -> Iterator[None]:
    """Use matplotlib's defaults and our settings, independently of the user's matplotlibrc."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)  # the font lacks the script of some name
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS | changes)
        yield


@dataclass(frozen=True)
class Level:
    """A published score, drawn as a horizontal line."""

    label: str
    score: float
    style: dict[str, Any]


@dataclass(frozen=True)
class CurvePanel:
    """One set of axes."""

    title: str
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()
    reference: tuple[Scores, ReferenceCurve] | None = None
    """a published curve, and its points [T] in units of the x axis"""


def published_levels(game: str) -> list[Level]:
    """The paper's maxima over epochs, and the scores of a random policy and a human."""
    published = published_scores(game)
    levels = []
    for column, score in published.paper.items():
        name = PAPER_COLUMNS[column]
        if column in PAPER_ARMS:
            line = {key: value for key, value in _style_of(column).items() if key != "marker"}
            levels.append(Level(f"paper, {name}", score, line))
        else:
            levels.append(Level(name, score, {"color": "#000000", "linestyle": ":"}))
    for name, level in (("random", published.random), ("human", published.human)):
        if level is not None:
            levels.append(Level(name, level, {"color": _GRAY, "linestyle": (0, (1, 3))}))
    return levels


def draw_curves(
    panels: Sequence[CurvePanel],
    *,
    x_title: str,
    y_title: str,
    caption: str,
    levels: str = "auto",
    each_run: bool = False,
) -> Figure:
    """One panel per game, two in a row.

    `levels` is "auto", "all" or "none": published scores beyond the axis are marked by an arrow, the axis is extended
    to all of them, or they are left out.
    """
    from matplotlib.figure import Figure

    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    width, height = (6.4, 4.2) if columns == 1 else (5.3 * columns, 3.5 * rows)  # inches
    styles = _styles(panels)
    with _our_settings():
        figure = Figure(figsize=(width, height), layout="constrained")
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, number + 1)
            _draw_panel(axes, panel, styles, each_run=each_run)
            lines = len(panel.curves) + (panel.reference is not None)
            axes.set_title(printable(panel.title), loc="left", fontweight="bold", pad=8 + 13 * lines)
            axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), frameon=False, borderaxespad=0.2, fontsize=8.5)
            if levels != "none":
                _draw_levels(axes, panel.levels, height / rows * 0.7, make_room=levels == "all")
            axes.set_ylabel(printable(y_title) if number % columns == 0 else "")
            axes.set_xlabel(x_title if number + columns >= len(panels) else "")
        wrapped = textwrap.fill(caption, round(width * 16))
        figure.text(0.01, -0.01, wrapped, fontsize=7.5, color=_GRAY, va="top")
    return figure


def draw_small_multiples(panels: Sequence[CurvePanel], x_title: str) -> Figure:
    """Many small panels, four in a row, with one legend for all."""
    from matplotlib.figure import Figure

    columns = 4
    rows = math.ceil(len(panels) / columns)
    height = 1.75 * rows + 0.75  # inches
    styles = _styles(panels)
    with _our_settings(**{"font.size": 7.5}):
        figure = Figure(figsize=(11, height))
        handles: dict[str, Any] = {}
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, number + 1)
            _draw_panel(axes, panel, styles, each_run=False)
            axes.set_title(printable(panel.title), loc="left", fontsize=8)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.subplots_adjust(0.055, 0.42 / height, 0.99, 1 - 0.5 / height, 0.3, 0.55)
        figure.legend(handles.values(), handles.keys(), loc="upper left", ncols=3, frameon=False, fontsize=8.5)
        figure.text(0.5, 0.06 / height, x_title, ha="center", fontsize=8.5)
    return figure


def _style_of(param: str) -> dict[str, Any]:
    """The look of a parameterization: the same in every plot."""
    return _STYLES[list(PARAMETERIZATIONS).index(param) % len(_STYLES)]


def _styles(panels: Sequence[CurvePanel]) -> dict[str, dict[str, Any]]:
    """A style for each name of a curve. The first curve of a parameterization has the parameterization's style.

    Its variants get unused styles. Those of the paper's two arms are used last, because its scores are drawn in them.
    """
    curves = {curve.name: curve for panel in panels for curve in panel.curves}
    first = {curve.param: name for name, curve in reversed(curves.items())}
    styles = {name: _style_of(param) for param, name in first.items()}
    paper = [_style_of(param) for param in PAPER_ARMS]
    spare = [style for style in _STYLES if style not in paper] + paper
    for name in curves:
        if name not in styles:
            free = [style for style in spare if style not in styles.values()]
            styles[name] = free[0] if free else spare[len(styles) % len(spare)]
    return styles


def _draw_panel(axes: Axes, panel: CurvePanel, styles: dict[str, dict[str, Any]], *, each_run: bool) -> None:
    """The curves of a panel, their bands and, with `each_run`, a thin line for each seed."""
    for number, curve in enumerate(panel.curves):
        style = styles[curve.name]
        every = max(len(curve.x) // 8, 1)
        if curve.interval is not None:
            axes.fill_between(curve.x, *curve.interval, color=style["color"], alpha=0.18, linewidth=0)
        if each_run and len(curve.runs) > 1:
            for values in curve.runs:
                axes.plot(curve.x, values, color=style["color"], linewidth=0.5, alpha=0.6)
        marks = {"markevery": (min(number * every // 2, len(curve.x) - 1), every), "markersize": 3.5}
        look: dict[str, Any] = {**style, **marks, "linewidth": 1.5}
        axes.plot(curve.x, curve.center, label=printable(curve.label), **look)
    axes.margins(x=0.02)
    if panel.reference is not None:
        _draw_reference(axes, *panel.reference)
    _format_ticks(axes, panel)


def _draw_reference(axes: Axes, x: Scores, curve: ReferenceCurve) -> None:
    """Draw a published curve, thin and gray, up to the end of our curves."""
    limits = axes.get_xlim()
    # Include one point beyond our last one, so that the line reaches the edge.
    shown = slice(0, int((x <= limits[1]).sum()) + 1)
    axes.fill_between(x[shown], *curve.interval[:, shown], color=_GRAY, alpha=0.15, linewidth=0)
    axes.plot(x[shown], curve.center[shown], label=curve.label, color=_GRAY, linewidth=0.9, zorder=1.8)
    axes.set_xlim(limits)


def _format_ticks(axes: Axes, panel: CurvePanel) -> None:
    """Whole numbers if all x are whole; abbreviations like 1M for large x."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    if all((curve.x == curve.x.round()).all() for curve in panel.curves):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # no ticks like epoch 1.5
    if axes.get_xlim()[1] >= 1e4:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_levels(axes: Axes, levels: Sequence[Level], height_inches: float, *, make_room: bool) -> None:
    """Draw lines across the axes, with their names beside them. The names are moved apart so that none overlap."""
    low, high = axes.get_ylim()
    reach = math.inf if make_room else _NEAR * (high - low)
    near = [level.score for level in levels if low - reach <= level.score <= high + reach]
    lowest, highest = min(near, default=low), max(near, default=high)
    space = 0.03 * (max(high, highest) - min(low, lowest))
    axes.set_ylim(min(low, lowest - space), max(high, highest + space))
    low, high = axes.get_ylim()
    ordered = sorted(levels, key=lambda level: level.score)
    heights = _spread([(level.score - low) / (high - low) for level in ordered], 0.15 / height_inches)
    for level, text_height in zip(ordered, heights, strict=True):
        _draw_level(axes, level, text_height)


def _draw_level(axes: Axes, level: Level, text_height: float) -> None:
    """Draw a line and its name at `text_height` (0 to 1 of the axes). A level beyond the axes gets an arrow instead."""
    low, high = axes.get_ylim()
    arrow = "↑ " if level.score > high else "↓ " if level.score < low else ""
    inside = not arrow
    if inside:
        axes.axhline(level.score, linewidth=1.0, alpha=0.9, zorder=1.5, **level.style)
    axes.annotate(
        f"{arrow}{level.label} {level.score:,.6g}",
        xy=(1, level.score) if inside else (1, text_height),
        xycoords=axes.get_yaxis_transform() if inside else "axes fraction",
        xytext=(1.04, text_height),
        textcoords="axes fraction",
        va="center",
        fontsize=7.5,
        color=level.style["color"],
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": level.style["color"], "linewidth": 0.6} if inside else None,
    )


def _spread(heights: Sequence[float], distance: float) -> list[float]:
    """Ascending heights in [0, 1], moved in two passes so that neighbours are at least `distance` apart."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(min(max(height, 0.0), 1.0), placed[-1] + distance if placed else 0.0))
    ceiling = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - distance
    return placed


def figure_bytes(figure: Figure, file_format: str) -> bytes:
    """The plot as the bytes of a png, svg or pdf file. The page is enlarged to include the text beside the axes."""
    file = io.BytesIO()
    with _our_settings():
        figure.savefig(
            file, format=file_format, dpi=150, metadata=_METADATA[file_format], bbox_inches="tight", pad_inches=0.12
        )
    return file.getvalue()


def learning_curves(
    groups: Sequence[Group],
    metric: str = "mean_return",
    *,
    x_axis: str = "epochs",
    statistic: str = "mean",
    smoothing: int = 1,
    levels: str = "auto",
    each_run: bool = False,
    reference: str | None = None,
) -> tuple[Figure, list[str]]:
    """The plot of `groups`, one panel per game, and notes about missing data.

    `reference` names published curves to draw behind ours, a key of :data:`~wn_dqn.analysis.choices.REFERENCES`. Raises
    UsageError if there is nothing to draw, or if the reference does not have this quantity.
    """
    runs = [run for group in groups for run in group.runs]
    require_metric(runs, metric)
    if reference is not None and (metric not in published_curves.METRICS or x_axis == "hours"):
        allowed = " or ".join(published_curves.METRICS)
        raise UsageError(f"--reference has {allowed} over steps, frames or epochs, not {metric} over {x_axis}")
    panels, notes = [], []
    for game in dict.fromkeys(group.game.name for group in groups):
        curves = []
        for group in [group for group in groups if group.game.name == game]:
            curve, more = make_curve(group, metric, x_axis=x_axis, statistic=statistic, smoothing=smoothing)
            notes += more
            curves += [] if curve is None else [curve]
        if curves:
            beside = reference and _beside([run for run in runs if run.game.name == game], reference, x_axis)
            notes += [f"{game}: {reference} has no such game"] if reference and not beside else []
            levels_here = published_levels(game) if metric == "mean_return" else ()
            panels.append(CurvePanel(game, curves, levels_here, beside or None))
    if not panels:
        raise UsageError("nothing to draw: " + "; ".join(notes))
    figure = draw_curves(
        panels,
        x_title=x_label(runs, x_axis),
        y_title=y_label(metric, statistic, smoothing),
        caption=_caption(panels, levels),
        levels=levels,
        each_run=each_run,
    )
    return figure, notes


def _beside(runs: Sequence[Run], reference: str, x_axis: str) -> tuple[Scores, ReferenceCurve] | None:
    """The published curve of the game of `runs`, and its points in units of the x axis."""
    curve = published_curves.reference_curve(reference, runs[0].game)
    return None if curve is None else (x_values(runs, curve.steps, x_axis), curve)


def _caption(panels: Sequence[CurvePanel], levels: str) -> str:
    """How to read bands and horizontal lines."""
    curves = [curve for panel in panels for curve in panel.curves]
    several_seeds = any(curve.interval is not None for curve in curves)
    caption = "Bands: 95% stratified bootstrap over seeds." if several_seeds else "One seed each: no bands."
    if levels != "none" and any(panel.levels for panel in panels):
        caption += " Horizontal lines: published scores, those of the papers being maxima over epochs" + (
            " (arrows: beyond the axis)." if levels == "auto" else "."
        )
    if any(panel.reference for panel in panels):
        caption += " Gray: published, the band from the smallest to the largest run."
    if any(len(curve.x) == MAX_POINTS for curve in curves):
        caption += f" Longer curves are means over {MAX_POINTS} intervals of equal length."
    return caption
