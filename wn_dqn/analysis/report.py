"""The report: one HTML file that says what was run, what came out, and what is missing. It needs no other file.

Its first table is Figure 6 of Salimans & Kingma (2016) with our columns; beside each maximum stands what it is worth.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from wn_dqn import __version__
from wn_dqn.analysis import plotting, scores
from wn_dqn.analysis.curves import make_curve, metric_names, x_label
from wn_dqn.analysis.plotting import CurvePanel
from wn_dqn.analysis.published import PAPER_ARMS, PAPER_GAMES, human_normalized, published_scores
from wn_dqn.analysis.read_runs import Group, Run, differing_settings
from wn_dqn.analysis.resampling import (
    RESAMPLES,
    Scores,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    probability_of_improvement,
)
from wn_dqn.analysis.scores import LAST_EPOCHS
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.runs.metrics_writer import flatten
from wn_dqn.system.progress import ProgressReporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAPER_STEPS = Settings.model_fields["learning"].default.total_steps
_INSTRUMENT_POINTS = 120
_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d5d5, #444); --quiet: light-dark(#555, #aaa);
  --band: light-dark(#f6f6f4, #26262a); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1.5rem;
  background: light-dark(#fff, #18181b); color: light-dark(#1b1b1b, #ececec); }
h1 { margin: 0 0 .2rem; line-height: 1.2; } h2 { margin: 2.5rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.6rem 0 .4rem; } p, li { max-width: 52rem; } .quiet, figcaption, caption { color: var(--quiet); }
.scroll { overflow-x: auto; margin: .8rem 0; } table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding-bottom: .4rem; }
caption span { display: block; max-width: min(70rem, 100vw - 4.5rem); }
td small { display: block; color: var(--quiet); }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { background: var(--band); vertical-align: bottom; } td.number { text-align: right; white-space: nowrap; }
tbody th { font-weight: 600; } code { font-size: .85em; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; min-width: min(100%, 44rem); height: auto; background: #fff; border-radius: 6px; }
.warning { border-left: 4px solid #D55E00; padding: .1rem 1rem; background: var(--band); }
nav a { margin-right: 1rem; } a { color: light-dark(#0072B2, #7cc4f0); }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; } figure, tr { break-inside: avoid; } }
"""
_METHOD = f"""
<p>Maxima over epochs are what the paper reports. They are biased upward: the luckiest of many noisy evaluations is
picked. Beside them stand fresh games of the network so picked (<code>wn-dqn evaluate RUN</code>), and the mean of the
last {LAST_EPOCHS} epochs, which no choice has biased. Human-normalized: 0% is a random policy, 100% a human (Wang et
al. 2016). Intervals are 95% percentile intervals of a bootstrap that resamples runs within each game ({RESAMPLES:,}
resamples, a fixed seed). IQM: the mean without the lowest and highest quarter of the scores of all games and seeds; of
fewer than four, the mean. Probability of improvement: how often a run of one kind beats a run of the other on the same
game, a tie counting one half, averaged over games (Agarwal et al. 2021).</p>
<p>Salimans &amp; Kingma (2016), Weight Normalization, arXiv:1602.07868. Mnih et al. (2015), Human-level control through
deep reinforcement learning, Nature 518. Wang et al. (2016), Dueling Network Architectures, arXiv:1511.06581. Agarwal et
al. (2021), Deep RL at the Edge of the Statistical Precipice, arXiv:2108.13264.</p>
"""


def make_report(
    groups: Sequence[Group], problems: Sequence[str], reporter: ProgressReporter, price_per_hour: float | None = None
) -> bytes:
    """The HTML file about `groups`; `problems` are lines about what could not be read."""
    runs = [run for group in groups for run in group.runs]
    sections = [
        ("missing", "What was not run or not finished", _missing(groups, problems)),
        ("scores", "Scores", _scores(groups)),
        ("comparison", "Weight normalization against the standard parameterization", _comparison(groups)),
        ("curves", "Learning curves", _curves(groups)),
        ("instruments", "Instruments", _instruments(groups, reporter)),
        ("runs", "Runs, time and cost", _runs(runs, price_per_hour)),
        ("settings", "Settings", _settings(runs)),
        ("provenance", "Provenance", _provenance(runs)),
        ("method", "How to read the numbers", _METHOD),
    ]
    games = ", ".join(dict.fromkeys(group.game.name for group in groups))
    links = "".join(f'<a href="#{name}">{escape(title)}</a> ' for name, title, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{escape(title)}</h2>{html}</section>\n' for name, title, html in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="wn_dqn">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>wn_dqn: {escape(games)}</title>\n<style>{_STYLE}</style></head>\n'
        f"<body><header><h1>{escape(games)}</h1>"
        f'<p class="quiet">DQN with standard and weight-normalized layers: {len(runs)} runs, wn_dqn {__version__}</p>'
        f"<nav>{links}</nav></header>\n<main>{body}</main></body></html>\n"
    ).encode()


def _missing(groups: Sequence[Group], problems: Sequence[str]) -> str:
    lines = list(problems)
    runs = [run for group in groups for run in group.runs]
    lines += [f"{run.path}: {run.told_state()}" for run in runs if not run.finished]
    lines += [f"{run.path}: no evaluation yet" for run in runs if not len(run.scores)]
    for group in groups:
        name = f"{group.game.name}, {group.label}"
        if len(group.runs) == 1:
            lines.append(f"{name}: a single seed, so no interval")
    for game in dict.fromkeys(group.game.name for group in groups):
        lines += [
            f"{game}, {PARAMETERIZATIONS[param].label}: not run"
            for param in PAPER_ARMS
            if (game, param) not in {(group.game.name, group.param) for group in groups}
        ]
    untested = [run.name for run in runs if len(run.scores) and not scores.latest_reevaluations(run)]
    if untested:
        lines.append(f"fresh games of the best network: not run for {len(untested)} runs: {', '.join(untested)}")
    names = {group.game.name for group in groups}
    absent = [game for game in PAPER_GAMES if game not in names]
    if absent:
        lines.append(f"of the paper's four games, {', '.join(absent)}: not run")
    short = [run for run in runs if run.settings.learning.total_steps < _PAPER_STEPS]
    if short:
        lines.append(
            f"{len(short)} of {len(runs)} runs are shorter than the paper's {_PAPER_STEPS:,} steps: their scores do "
            "not repeat its figures"
        )
    if not lines:
        return "<p>Nothing: all runs are finished, with both parameterizations, several seeds and fresh games.</p>"
    return f'<div class="warning"><ul>{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul></div>'


def _scores(groups: Sequence[Group]) -> str:
    header = [
        "Game",
        "Parameterization",
        "Paper: maximum",
        "Maximum over epochs (biased upward)",
        "Best network, fresh games",
        f"Mean of the last {LAST_EPOCHS} epochs",
        "Human-normalized",
        "Seeds",
        "Steps",
        "Games completed in",
    ]
    rows = [_score_row(group) for group in groups]
    caption = (
        "Figure 6 of Salimans & Kingma (2016), with our columns. Scores are means over seeds; in brackets, 95% "
        "intervals. Fresh games are those of the network with the maximum, played anew. Human-normalized: of the "
        f"last {LAST_EPOCHS} epochs."
    )
    return _table(caption, header, rows)


def _score_row(group: Group) -> list[str]:
    evaluated = [run for run in group.runs if len(run.scores)]
    row = [group.game.name, group.label]
    row.append(_number(published_scores(group.game.name).paper.get(group.param)))
    if evaluated:
        last = np.array([scores.last_epochs(run) for run in evaluated])
        normalized = human_normalized(group.game.name, float(last.mean()))
        row += [
            _with_interval(np.array([scores.maximum(run) for run in evaluated])),
            _told_fresh_games(group),
            _with_interval(last),
            "not published" if normalized is None else f"{normalized:,.1%}",
        ]
    else:
        row += ["not evaluated"] * 4
    steps = sorted({run.steps for run in group.runs})
    finished = sum(run.finished for run in group.runs)
    row += [
        f"{len(group.runs)}" + ("" if finished == len(group.runs) else f"\n{finished} finished"),
        f"{steps[0]:,}" if len(steps) == 1 else f"{steps[-1]:,}\nleast: {steps[0]:,}",
        "\n".join(scores.told_protocol(group.runs[0].settings)),
    ]
    return row


def _told_fresh_games(group: Group) -> str:
    fresh = scores.fresh_games(group)
    if fresh is None:
        return "not run"
    of = "" if len(fresh.means) == len(group.runs) else f", {len(fresh.means)} of {len(group.runs)} seeds"
    return f"{_with_interval(fresh.means)}\n{fresh.games:,} games, {fresh.protocol}{of}"


def _comparison(groups: Sequence[Group]) -> str:
    return (
        f"<p>Of finished runs, by their mean of the last {LAST_EPOCHS} epochs.</p>"
        + _human_normalized(groups)
        + _improvement(groups)
    )


def _human_normalized(groups: Sequence[Group]) -> str:
    rows = []
    for label in sorted({group.label for group in groups}):
        strata, games = [], []
        for group in groups:
            values = [human_normalized(group.game.name, score) for score in _finished_scores(group)]
            known = [value for value in values if value is not None]
            if group.label == label and known:
                strata.append(np.array(known)[:, None])
                games.append(group.game.name)
        if strata:
            everything = np.concatenate(strata)[:, 0]
            low, high = bootstrap_interval(strata, interquartile_mean)[:, 0]
            interval = f"\n[{low:,.1%}, {high:,.1%}]" if any(len(each) > 1 for each in strata) else ""
            iqm = f"{interquartile_mean(everything):,.1%}{interval}"
            rows.append([label, iqm, f"{everything.mean():,.1%}", f"{len(everything)}", ", ".join(games)])
    if not rows:
        return "<p>Human-normalized scores: none, as no finished run is of a game with a published human score.</p>"
    header = ["Parameterization", "IQM", "Mean", "Runs", "Games"]
    return _table("Human-normalized scores over all games and seeds, with 95% intervals.", header, rows)


def _improvement(groups: Sequence[Group]) -> str:
    rows, wn, standard = [], [], []
    for group in groups:
        if group.param != "wn":
            continue
        for other in groups:
            if (other.game, other.param, other.variant) == (group.game, "standard", group.variant):
                x, y = _finished_scores(group), _finished_scores(other)
                if len(x) and len(y):
                    wn.append(x)
                    standard.append(y)
                    name = group.game.name + (f", {group.variant}" if group.variant else "")
                    rows.append([name, *_told_improvement([x], [y])])
    if not rows:
        return "<p>Probability of improvement: not computed, as no game has finished runs of both.</p>"
    if len(rows) > 1:
        rows.append(["all", *_told_improvement(wn, standard)])
    header = ["Game", "Probability of improvement", "95% interval", "Runs: wn, standard"]
    return _table("How probably a run with weight normalization beats a standard one.", header, rows)


def _told_improvement(x: Sequence[Scores], y: Sequence[Scores]) -> list[str]:
    low, high = improvement_interval(x, y)
    several = any(len(runs) > 1 for runs in [*x, *y])
    return [
        f"{probability_of_improvement(x, y):.2f}",
        f"[{low:.2f}, {high:.2f}]" if several else "single seeds: none",
        f"{sum(map(len, x))}, {sum(map(len, y))}",
    ]


def _finished_scores(group: Group) -> Scores:
    return np.array([scores.last_epochs(run) for run in group.runs if run.finished and len(run.scores)])


def _curves(groups: Sequence[Group]) -> str:
    if not any(len(run.scores) for group in groups for run in group.runs):
        return "<p>No run has an evaluation yet.</p>"
    figure, notes = plotting.learning_curves(groups)
    games = ", ".join(dict.fromkeys(group.game.name for group in groups))
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return _figure(figure, f"Mean test score after each epoch of training: {games}") + (told and f"<ul>{told}</ul>")


def _instruments(groups: Sequence[Group], reporter: ProgressReporter) -> str:
    parts = [
        "<p>Every column of <code>evaluations.csv</code> and <code>metrics.csv</code>: means over seeds, with 95% "
        f"bands where there are several. Longer tables are drawn as means over {_INSTRUMENT_POINTS} equal stretches."
        "</p>"
    ]
    games = list(dict.fromkeys(group.game.name for group in groups))
    with reporter.task("drawing", len(games)) as task:
        for number, game in enumerate(games, start=1):
            parts += _instruments_of(game, [group for group in groups if group.game.name == game])
            task.update(number, game)
    return "".join(parts)


def _instruments_of(game: str, groups: Sequence[Group]) -> list[str]:
    """A figure for each family of columns: evaluations, training, layers of the network."""
    runs = [run for group in groups for run in group.runs]
    families: dict[str, list[CurvePanel]] = {}
    for metric in metric_names(runs):
        made = [make_curve(group, metric, points=_INSTRUMENT_POINTS)[0] for group in groups]
        curves = [curve for curve in made if curve is not None]
        if curves:
            family = "layers" if metric.startswith("layers/") else "training" if "/" in metric else "evaluation"
            families.setdefault(family, []).append(CurvePanel(metric.removeprefix("layers/"), curves))
    return [
        f"<h3>{escape(game)}: {escape(family)}</h3>"
        + _figure(
            plotting.draw_small_multiples(panels, x_label(runs, "epochs")),
            f"{game}, {family}: " + ", ".join(panel.title for panel in panels),
        )
        for family, panels in families.items()
    ]


def _runs(runs: Sequence[Run], price_per_hour: float | None) -> str:
    header = ["Run", "Parameterization", "Seed", "Steps", "Status", "Hours of training", "Hours in all", "Processes"]
    rows = []
    for run in runs:
        wall_hours = scores.wall_clock_hours(run)
        row = [str(run.path), run.settings.param, f"{run.settings.seed}", f"{run.steps:,}", run.told_state()]
        row += [_hours(scores.training_hours(run)), _hours(wall_hours), f"{len(run.provenance)}"]
        if price_per_hour is not None:
            row.append("unknown" if wall_hours is None else f"{wall_hours * price_per_hour:,.2f}")
        rows.append(row)
    caption = (
        "Hours of training leave evaluations out; hours in all go from the first start to the last word of the run, "
    )
    caption += "pauses between its processes included."
    if price_per_hour is not None:
        header.append("Cost")
        known = [hours for run in runs if (hours := scores.wall_clock_hours(run)) is not None]
        caption += f" Cost: hours in all at {price_per_hour:g} per hour; together {sum(known) * price_per_hour:,.2f}."
    return _table(caption, header, rows)


def _settings(runs: Sequence[Run]) -> str:
    differing = differing_settings(runs)
    rows = []
    for key, values in differing.items():
        holders: dict[str, list[str]] = {}
        for run, value in zip(runs, values, strict=True):
            holders.setdefault(str(value), []).append(run.name)
        rows += [[key, value, f"{len(names)}: {', '.join(names)}"] for value, names in holders.items()]
    same = [[key, str(value)] for key, value in flatten(runs[0].settings.model_dump()).items() if key not in differing]
    table = _table("Settings that differ between runs.", ["Setting", "Value", "Runs"], rows) if rows else ""
    return table + (
        "<details><summary>Settings that are the same in all runs</summary>"
        + _table("Described by `wn-dqn settings`.", ["Setting", "Value"], same)
        + "</details>"
    )


def _provenance(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        for entry in run.provenance or ({},):
            machine, versions = entry.get("machine", {}), entry.get("versions", {})
            rows.append(
                [
                    run.name,
                    _text(entry.get("time")),
                    shlex.join(map(str, entry.get("command", []))) or "unknown",
                    _text(entry.get("commit")),
                    ", ".join(f"{name} {number}" for name, number in versions.items()) or "unknown",
                    f"{_text(machine.get('device'))}, {_text(machine.get('cores'))} cores, "
                    f"{_text(machine.get('system'))}",
                ]
            )
    return _table("One line for each process.", ["Run", "Began", "Command", "Commit", "Versions", "Machine"], rows)


def _text(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _number(value: float | None) -> str:
    return "not published" if value is None else f"{value:,.6g}"


def _with_interval(values: Scores) -> str:
    mean, interval = scores.mean_and_interval(values)
    return f"{mean:,.1f}" + ("" if interval is None else f"\n[{interval[0]:,.1f}, {interval[1]:,.1f}]")


def _hours(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}"


def _table(caption: str, header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """An accessible table that scrolls by itself where the page is narrow; the first column names the row."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(_cell(cell) for cell in row[1:]) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    """The first line stands out from those below; numbers are set flush right."""
    first, *rest = text.split("\n")
    number = ' class="number"' if re.fullmatch(r"-?[\d,.]+%?( of \d+)?", first) else ""
    return f"<td{number}>{escape(first)}" + "".join(f"<small>{escape(line)}</small>" for line in rest) + "</td>"


def _figure(figure: Figure, alt: str) -> str:
    data = base64.b64encode(plotting.figure_bytes(figure, "svg")).decode()
    return f'<figure><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}"></figure>'
