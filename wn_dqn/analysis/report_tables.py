"""The tables of the report, as rows of text. In a cell, lines after the first are remarks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wn_dqn.analysis import scores
from wn_dqn.analysis.published import PAPER_ARMS, PAPER_GAMES, human_normalized, published_scores
from wn_dqn.analysis.read_runs import Group, Run, differing_settings
from wn_dqn.analysis.resampling import (
    Scores,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    probability_of_improvement,
)
from wn_dqn.analysis.scores import LAST_EPOCHS
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.evaluation.protocols import training_protocol
from wn_dqn.runs.metrics_writer import flatten

_PAPER_STEPS = Settings.model_fields["learning"].default.total_steps


@dataclass(frozen=True)
class TextTable:
    """A table of text; the first cell of a row names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def missing_lines(groups: Sequence[Group], problems: Sequence[str]) -> list[str]:
    """Lines about everything that was not run, not finished or cannot be read."""
    runs = [run for group in groups for run in group.runs]
    lines = [
        *problems,
        *(f"{run.path}: {run.state_text}" for run in runs if not run.finished),
        *(f"{run.path}: no evaluation yet" for run in runs if not len(run.scores)),
        *_missing_arms(groups),
    ]
    untested = [run.name for run in runs if len(run.scores) and not scores.latest_reevaluations(run)]
    if untested:
        lines.append(f"fresh games of the best network: not run for {len(untested)} runs: {', '.join(untested)}")
    absent = [game for game in PAPER_GAMES if game not in {group.game.name for group in groups}]
    if absent:
        lines.append(f"of the paper's four games, {', '.join(absent)}: not run")
    short = [run for run in runs if run.settings.learning.total_steps < _PAPER_STEPS]
    if short:
        lines.append(
            f"{len(short)} of {len(runs)} runs are shorter than the paper's {_PAPER_STEPS:,} steps: their scores do "
            "not reproduce its results"
        )
    return lines


def _missing_arms(groups: Sequence[Group]) -> list[str]:
    """Lines about groups with a single seed, and about games without one of the paper's parameterizations."""
    single = [f"{g.game.name}, {g.label}: a single seed, so no interval" for g in groups if len(g.runs) == 1]
    have = {(group.game.name, group.param) for group in groups}
    return single + [
        f"{game}, {PARAMETERIZATIONS[param].label}: not run"
        for game in dict.fromkeys(group.game.name for group in groups)
        for param in PAPER_ARMS
        if (game, param) not in have
    ]


def scores_table(groups: Sequence[Group]) -> TextTable:
    """The paper's figure 6 with our columns: a row for each group."""
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
    caption = (
        "Figure 6 of Salimans & Kingma (2016), with our columns. Scores are means over seeds; in brackets, 95% "
        "intervals. Fresh games are new games of the network with the maximum. Human-normalized scores are those of "
        f"the last {LAST_EPOCHS} epochs."
    )
    return TextTable(caption, header, [_score_row(group) for group in groups])


def _score_row(group: Group) -> list[str]:
    """The scores of a group, and the length of its training."""
    settings = group.runs[0].settings
    published = published_scores(group.game.name).paper.get(group.param)
    steps = sorted({run.steps for run in group.runs})
    finished = sum(run.finished for run in group.runs)
    return [
        group.game.name,
        group.label,
        "not published" if published is None else f"{published:,.6g}",
        *_own_scores(group),
        f"{len(group.runs)}" + ("" if finished == len(group.runs) else f"\n{finished} finished"),
        f"{steps[0]:,}" if len(steps) == 1 else f"{steps[-1]:,}\nleast: {steps[0]:,}",
        "\n".join(scores.protocol_words(training_protocol(settings.environment, settings.evaluation))),
    ]


def _own_scores(group: Group) -> list[str]:
    """Maximum, fresh games, last epochs, and the last epochs relative to a human."""
    evaluated = [run for run in group.runs if len(run.scores)]
    if not evaluated:
        return ["not evaluated"] * 4
    last = np.array([scores.last_epochs(run) for run in evaluated])
    normalized = human_normalized(group.game.name, float(last.mean()))
    return [
        _with_interval(np.array([scores.maximum(run) for run in evaluated])),
        _fresh_games(group),
        _with_interval(last),
        "not published" if normalized is None else f"{normalized:,.1%}",
    ]


def _fresh_games(group: Group) -> str:
    """The best networks' mean in fresh games, with the number of games and their protocol."""
    fresh = scores.fresh_games(group)
    if fresh is None:
        return "not run"
    of = "" if len(fresh.means) == len(group.runs) else f", {len(fresh.means)} of {len(group.runs)} seeds"
    return f"{_with_interval(fresh.means)}\n{fresh.games:,} games, {fresh.protocol}{of}"


def human_normalized_table(groups: Sequence[Group]) -> TextTable:
    """A row for each label of groups whose games have published human scores: means over games and seeds."""
    rows = []
    for label in sorted({group.label for group in groups}):
        by_game = {group.game.name: _normalized(group) for group in groups if group.label == label}
        strata = {game: values for game, values in by_game.items() if len(values)}
        if strata:
            rows.append([label, *_normalized_cells(list(strata.values())), ", ".join(strata)])
    header = ["Parameterization", "IQM", "Mean", "Runs", "Games"]
    return TextTable("Human-normalized scores over all games and seeds, with 95% intervals.", header, rows)


def _normalized(group: Group) -> Scores:
    """Human-normalized scores of its finished runs [runs]; empty where no human score was published."""
    values = [human_normalized(group.game.name, score) for score in _finished_scores(group)]
    return np.array([value for value in values if value is not None])


def _normalized_cells(strata: Sequence[Scores]) -> list[str]:
    """Interquartile mean, mean and number of the scores of several games, [runs] each."""
    everything = np.concatenate(strata)
    low, high = bootstrap_interval([values[:, None] for values in strata], interquartile_mean)[:, 0]
    interval = f"\n[{low:,.1%}, {high:,.1%}]" if any(len(values) > 1 for values in strata) else ""
    return [f"{interquartile_mean(everything):,.1%}{interval}", f"{everything.mean():,.1%}", f"{len(everything)}"]


def improvement_table(groups: Sequence[Group]) -> TextTable:
    """The probability that the paper's parameterization beats its baseline: a row for each game, and one for all."""
    baseline, proposed = PAPER_ARMS
    rows, x, y = [], [], []
    for group, other in _pairs(groups, proposed, baseline):
        x.append(_finished_scores(group))
        y.append(_finished_scores(other))
        name = group.game.name + (f", {group.variant}" if group.variant else "")
        rows.append([name, *_improvement_cells(x[-1:], y[-1:])])
    if len(rows) > 1:
        rows.append(["all", *_improvement_cells(x, y)])
    header = ["Game", "Probability of improvement", "95% interval", f"Runs: {proposed}, {baseline}"]
    return TextTable("Probability that a run with weight normalization beats a standard one.", header, rows)


def _pairs(groups: Sequence[Group], param: str, other_param: str) -> list[tuple[Group, Group]]:
    """Pairs of groups that differ only in their parameterization, if both have finished runs."""
    finished = [group for group in groups if len(_finished_scores(group))]
    return [
        (group, other)
        for group in finished
        for other in finished
        if (group.param, other.param) == (param, other_param)
        and (group.game, group.variant) == (other.game, other.variant)
    ]


def _improvement_cells(x: Sequence[Scores], y: Sequence[Scores]) -> list[str]:
    """The probability that X beats Y, its interval, and the numbers of runs; x and y hold [runs] for each game."""
    low, high = improvement_interval(x, y)
    several = any(len(runs) > 1 for runs in [*x, *y])
    return [
        f"{probability_of_improvement(x, y):.2f}",
        f"[{low:.2f}, {high:.2f}]" if several else "none: single seeds",
        f"{sum(map(len, x))}, {sum(map(len, y))}",
    ]


def _finished_scores(group: Group) -> Scores:
    """The mean of the last epochs of each finished run: [runs]."""
    return np.array([scores.last_epochs(run) for run in group.runs if run.finished and len(run.scores)])


def runs_table(runs: Sequence[Run], price_per_hour: float | None) -> TextTable:
    """The progress and the duration of each run, and its cost if there is a price."""
    header = ["Run", "Parameterization", "Seed", "Steps", "Status", "Hours of training", "Hours in all", "Processes"]
    caption = (
        "Hours of training are without evaluations. Hours in all are the time from the first start to the last status "
        "of the run, including pauses between its processes."
    )
    if price_per_hour is not None:
        header.append("Cost")
        known = [hours for run in runs if (hours := scores.wall_clock_hours(run)) is not None]
        caption += f" Cost: hours in all at {price_per_hour:g} per hour; together {sum(known) * price_per_hour:,.2f}."
    return TextTable(caption, header, [_run_row(run, price_per_hour) for run in runs])


def _run_row(run: Run, price_per_hour: float | None) -> list[str]:
    wall_hours = scores.wall_clock_hours(run)
    return [
        str(run.path),
        run.settings.param,
        f"{run.settings.seed}",
        f"{run.steps:,}",
        run.state_text,
        _hours(scores.training_hours(run)),
        _hours(wall_hours),
        f"{len(run.provenance)}",
        *([] if price_per_hour is None else [_hours(None if wall_hours is None else wall_hours * price_per_hour)]),
    ]


def settings_tables(runs: Sequence[Run]) -> tuple[TextTable, TextTable]:
    """The settings that differ between runs, with the runs that have each value, and those that are the same."""
    differing = differing_settings(runs)
    rows = []
    for key, values in differing.items():
        holders: dict[str, list[str]] = {}
        for run, value in zip(runs, values, strict=True):
            holders.setdefault(str(value), []).append(run.name)
        rows += [[key, value, f"{len(names)}: {', '.join(names)}"] for value, names in holders.items()]
    same = [[key, str(value)] for key, value in flatten(runs[0].settings.model_dump()).items() if key not in differing]
    return (
        TextTable("Settings that differ between runs.", ["Setting", "Value", "Runs"], rows),
        TextTable("Described by `wn-dqn settings`.", ["Setting", "Value"], same),
    )


def provenance_table(runs: Sequence[Run]) -> TextTable:
    """When, how and where each process worked on a run."""
    rows = [[run.name, *_process_cells(entry)] for run in runs for entry in run.provenance or ({},)]
    header = ["Run", "Began", "Command", "Commit", "Versions", "Machine"]
    return TextTable("One line for each process.", header, rows)


def _process_cells(entry: Mapping[str, Any]) -> list[str]:
    """The cells for an entry of provenance.json; missing values are "unknown"."""
    machine, versions = entry.get("machine", {}), entry.get("versions", {})
    return [
        _text(entry.get("time")),
        shlex.join(map(str, entry.get("command", []))) or "unknown",
        _text(entry.get("commit")),
        ", ".join(f"{name} {number}" for name, number in versions.items()) or "unknown",
        f"{_text(machine.get('device'))}, {_text(machine.get('cores'))} cores, {_text(machine.get('system'))}",
    ]


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)


def _with_interval(values: Scores) -> str:
    """The mean over seeds and, if there are several, its 95% interval."""
    mean, interval = scores.mean_and_interval(values)
    return f"{mean:,.1f}" + ("" if interval is None else f"\n[{interval[0]:,.1f}, {interval[1]:,.1f}]")


def _hours(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}"
