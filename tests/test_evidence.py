"""The numbers of evidence/README.md follow from the tables beside it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from load_script import load_script

from wn_dqn.analysis import resampling
from wn_dqn.analysis.reference import reference_curve
from wn_dqn.config.games import find_game
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.paper.settings import ARMS, make_paper_settings

EVIDENCE = Path(__file__).parents[1] / "evidence"
PAGE = (EVIDENCE / "README.md").read_text(encoding="utf-8")
T4 = 2.776445  # the 97.5 % quantile of Student's t with 4 degrees of freedom, from a table
T2 = 4.302653  # the same with 2
RANGE_OF_FIVE = 2.326  # the expected range of five normal numbers, in standard deviations, from a table


@pytest.mark.parametrize("million", [1, 2])
def test_the_prediction_for_breakout(million: int) -> None:
    curve = reference_curve("dopamine", find_game("Breakout"))
    assert curve is not None
    mean, (low, high) = curve.center[million - 1], curve.interval[:, million - 1]
    half = T4 * (high - low) / RANGE_OF_FIVE * math.sqrt(1 / 3 + 1 / 5)
    assert (
        f"| {million} million | {mean:.2f} [{low:.2f}, {high:.2f}] | {mean - half:.2f} to {mean + half:.2f} |" in PAGE
    )


def training_scores(folder: Path) -> list[tuple[float, int]]:
    """The mean training score of each million frames, and the games in it."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["steps"]) for row in rows] == [250_000 * million for million in range(1, len(rows) + 1)]
    return [(float(row["train/episode_return"]), int(float(row["train/games"]))) for row in rows]


def test_the_runs_of_breakout() -> None:
    """Both millions of each seed, and their means; and the first million of the runs that were stopped."""
    seeds = [training_scores(EVIDENCE / "breakout" / f"seed{seed}") for seed in range(3)]
    for seed, rows in enumerate(seeds):
        cells = " | ".join(f"{score:.3f} | {games:,}" for score, games in rows)
        assert f"| {seed} | {cells} |" in PAGE
    first, second = (np.mean([rows[million][0] for rows in seeds]) for million in (0, 1))
    assert f"| mean | {first:.3f} | | {second:.3f} | |" in PAGE
    seconds = [rows[1][0] for rows in seeds]
    half = T2 * np.std(seconds, ddof=1) / math.sqrt(3)
    assert f"million is {np.std(seconds, ddof=1):.2f}, and" in PAGE
    assert f"{second - half:.1f} to {second + half:.1f}. Why" in PAGE
    stopped = [training_scores(EVIDENCE / "breakout" / "stopped" / f"seed{seed}") for seed in range(3)]
    scores = [score for ((score, _games),) in stopped]
    assert f"{scores[0]:.3f}, {scores[1]:.3f} and {scores[2]:.3f}, mean {np.mean(scores):.3f}" in PAGE


LEARNING = (EVIDENCE.parent / "docs" / "parameterizations.md").read_text(encoding="utf-8")
PARTS = {
    "wn-double-dqn": "`wn`, Double DQN",
    "wn-c51": "`wn`, C51",
    "wn-double-c51": "`wn`, Double C51",
    "wn-dueling_True": "`wn`, dueling heads",
    "wn-priority_exponent_0.6": "`wn`, prioritized replay",
    "wn-n_steps_3": "`wn`, 3-step returns",
    "wn-noisy_True": "`wn`, noisy layers",
    "wn-double-c51-dueling_True-noisy_True-priority_exponent_0.5-n_steps_3": "`wn`, all of Rainbow",
}


def last_scores(name: str, game: str) -> dict[str, list[float]]:
    """Of each arm, in the order of its seeds."""
    scores: dict[str, list[float]] = {}
    with (EVIDENCE / "learning" / f"{name}.csv").open(encoding="utf-8") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: int(row["seed"])):
            scores.setdefault(row["arm"].removeprefix(f"{game}-"), []).append(float(row["last"]))
    return scores


def test_every_arm_learns_and_the_page_says_how_well() -> None:
    catch, breakout = last_scores("catch", "Catch"), last_scores("minatar", "MinAtar-Breakout-v0")
    assert catch.keys() == breakout.keys() == {*PARAMETERIZATIONS, *PARTS}
    for arm in catch:
        assert min(catch[arm]) > 0.7
        assert min(breakout[arm]) > 3 * 0.625
        cells = [", ".join(f"{score:.2f}" for score in scores) for scores in (catch[arm], breakout[arm])]
        row = [PARTS.get(arm, f"`{arm}`"), *cells, f"{np.mean(breakout[arm]):.2f}"]
        assert f"| {' | '.join(row)} |" in LEARNING


def test_one_game_at_a_time() -> None:
    """Rows of 50,000 steps; the mean score of all games in them."""
    means, last = [], []
    for seed in range(3):
        with (EVIDENCE / "breakout" / "one-game" / f"seed{seed}" / "metrics.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["steps"]) for row in rows] == [50_000, 100_000, 150_000, 200_000]
        scores, games = ([float(row[name]) for row in rows] for name in ("train/episode_return", "train/games"))
        means.append(float(np.average(scores, weights=games)))
        last.append(scores[-1])
    assert f"{means[0]:.3f}, {means[1]:.3f} and {means[2]:.3f}, mean {np.mean(means):.3f}" in PAGE
    assert f"{np.mean(last):.3f} in the last quarter" in " ".join(PAGE.split())


@pytest.mark.parametrize(("name", "first", "last"), [("precision", 200, 204), ("minatar", 100, 109)])
def test_the_numbers_of_a_study(name: str, first: int, last: int) -> None:
    """What the script prints stands on the page, and every arm has the seeds of its study file."""
    script = load_script("draw_studies")
    study = script.STUDIES[name]
    for line in script.numbers(study):
        assert line in PAGE
    for panel in study.panels:
        assert f"seed: {first}-{last}" in (EVIDENCE / f"{panel.table}.yaml").read_text(encoding="utf-8")
        for arm in panel.arms:
            assert script.read_seeds(panel.table, arm) == list(range(first, last + 1))


def minatar_curves(name: str) -> dict[str, dict[int, list[float]]]:
    """Of each arm and seed, the score of every evaluation."""
    curves: dict[str, dict[int, list[float]]] = {}
    with (EVIDENCE / f"minatar-{name}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curve = curves.setdefault(row["arm"], {}).setdefault(int(row["seed"]), [])
            curve.append(float(row["score"]))
            assert int(row["steps"]) == 20_000 * len(curve)
    assert {len(curve) for seeds in curves.values() for curve in seeds.values()} == {5}
    return curves


@pytest.mark.parametrize("arm", ["standard", "wn"])
def test_the_search_of_rates(arm: str) -> None:
    """The mean of the last two evaluations over the three seeds, and the best rate is the question's."""
    curves = minatar_curves("search")
    means = []
    for rate in ("0.0001", "0.0003", "0.001", "0.003"):
        seeds = curves[f"MinAtar-Breakout-v0-{arm}-learning_rate_{rate}"]
        assert list(seeds) == [40, 41, 42]
        means.append(float(np.mean([curve[-2:] for curve in seeds.values()])))
    assert f"| `{arm}` | {' | '.join(f'{value:.2f}' for value in means)} |" in PAGE
    assert max(means) == means[-1]
    assert "learning_rate: 3e-3" in (EVIDENCE / "minatar-question.yaml").read_text(encoding="utf-8")


MEASURES = {"cifar10": "error_percent", "vae": "bound", "vae-cifar10": "bits_per_dim", "draw": "bound"}


@pytest.mark.parametrize("system", list(ARMS))
def test_the_papers_other_systems(system: str) -> None:
    """After the last epoch, of five seeds; their mean, and its interval."""
    page = (EVIDENCE.parent / "docs" / "paper-systems.md").read_text(encoding="utf-8")
    last: dict[str, dict[int, tuple[int, float]]] = {}
    with (EVIDENCE / "paper" / f"{system}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            seeds = last.setdefault(row["arm"], {})
            epoch, score = int(row["epoch"]), float(row[MEASURES[system]])
            assert epoch == seeds.get(int(row["seed"]), (0, 0.0))[0] + 1
            seeds[int(row["seed"])] = epoch, score
    assert list(last) == list(ARMS[system])
    epochs = make_paper_settings(system, "wn", None).epochs
    for arm, seeds in last.items():
        assert list(seeds) == list(range(5))
        assert {epoch for epoch, _ in seeds.values()} == {epochs}
        scores = [score for _, score in seeds.values()]
        digits = 3 if system == "vae-cifar10" else 1
        cells = [f"{value:.{digits}f}" for value in (*scores, float(np.mean(scores)))]
        assert f"| `{arm}` | {' | '.join(cells)} |" in page
        low, high = resampling.bootstrap_interval([np.array(scores)[:, None]], resampling.mean)[:, 0]
        assert f"{low:.{digits}f} to {high:.{digits}f}" in " ".join(page.split())
