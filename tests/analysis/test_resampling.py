"""Statistics over seeds and games, against rliable and against sums done by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wn_dqn.analysis.resampling import (
    Scores,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    mean,
    probability_of_improvement,
)

library = pytest.importorskip("rliable.library", reason="rliable needs arch<8, which Python 3.14 does not have")
metrics = pytest.importorskip("rliable.metrics")
SHAPES = [(3, 1), (5, 4), (10, 26)]


def scores(runs: int, games: int, seed: int) -> Scores:
    """[runs, games], with ties."""
    return np.random.default_rng(seed).normal(seed, 3.0, (runs, games)).round(1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_interquartile_mean_is_rliables(values: list[float]) -> None:
    ours = interquartile_mean(np.array(values))
    np.testing.assert_allclose(ours, metrics.aggregate_iqm(np.array([values])), rtol=1e-9, atol=1e-6)


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 6.0])) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([0.0, 3.0, 9.0])) == 4


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 9))
def test_probability_of_improvement_is_rliables(runs_x: int, runs_y: int, games: int, seed: int) -> None:
    x, y = scores(runs_x, games, seed), scores(runs_y, games, seed + 1)
    np.testing.assert_allclose(
        probability_of_improvement(list(x.T), list(y.T)), metrics.probability_of_improvement(x, y), atol=1e-12
    )


def test_probability_of_improvement_by_hand() -> None:
    assert probability_of_improvement([np.array([1.0, 5.0])], [np.array([1.0, 3.0, 9.0])]) == (0.5 + 2) / 6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("ours", "theirs"), [(interquartile_mean, metrics.aggregate_iqm), (mean, np.mean)])
def test_bootstrap_interval_is_rliables(shape: tuple[int, int], ours, theirs) -> None:
    """Both are samples of the same distribution: bounds differ by the noise of 2,000 resamples."""
    table = scores(*shape, seed=1)
    np.random.seed(0)  # noqa: NPY002  # rliable draws from numpy's global generator
    _, intervals = library.get_interval_estimates({"x": table}, lambda x: np.array([theirs(x)]), reps=2000)
    interval = bootstrap_interval([column[:, None] for column in table.T], ours)
    width = np.diff(intervals["x"], axis=0).item()
    np.testing.assert_allclose(interval, intervals["x"], atol=0.08 * width)


def test_bootstrap_interval_of_a_few_runs_is_that_of_all_their_resamples() -> None:
    """Of 4 runs there are 256 resamples; each column of a curve is a quantity of its own."""
    table = scores(4, 3, seed=2)
    resamples = np.array([table[list(chosen)].mean(axis=0) for chosen in itertools.product(range(4), repeat=4)])
    exact = np.percentile(resamples, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(bootstrap_interval([table], mean), exact, atol=0.08 * np.ptp(exact, axis=0).max())


def test_games_are_resampled_apart() -> None:
    """The mean would vary if runs of one game could take the place of the other's."""
    low, high = bootstrap_interval([np.full((3, 1), 0.0), np.full((3, 1), 1000.0)], mean)[:, 0]
    assert (low, high) == (500, 500)


def test_improvement_interval_is_rliables() -> None:
    x, y = scores(5, 3, seed=2), scores(4, 3, seed=1)
    np.random.seed(0)  # noqa: NPY002
    _, intervals = library.get_interval_estimates(
        {"x, y": [x, y]}, lambda a, b: np.array([metrics.probability_of_improvement(a, b)]), reps=500
    )
    np.testing.assert_allclose(improvement_interval(list(x.T), list(y.T)), intervals["x, y"][:, 0], atol=0.05)


def test_the_same_runs_give_the_same_interval() -> None:
    table = scores(5, 1, seed=3)
    np.testing.assert_array_equal(bootstrap_interval([table], mean), bootstrap_interval([table], mean))
