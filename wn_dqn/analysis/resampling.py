"""Statistics over seeds and games, for few runs: Agarwal et al. (2021), "Deep RL at the Edge of the Statistical
Precipice". Runs are resampled within their stratum (a game), so that the weight of every game stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)
_SEED = 0  # fixed, so that the same runs give the same interval


def mean(scores: Scores) -> Scores:
    """Mean over the last axis: [..., N] to [...]."""
    averaged: Scores = scores.mean(axis=-1)
    return averaged


def interquartile_mean(scores: Scores) -> Scores:
    """Mean over the last axis without its lowest and highest quarter: [..., N] to [...]; for N < 4, the mean."""
    count = scores.shape[-1]
    outer = count // 4
    return mean(np.sort(scores, axis=-1)[..., outer : count - outer])


AGGREGATES: dict[str, Callable[[Scores], Scores]] = {"mean": mean, "iqm": interquartile_mean}


def bootstrap_interval(strata: Sequence[Scores], aggregate: Callable[[Scores], Scores]) -> Scores:
    """The 95% percentile interval of `aggregate` over the scores of all strata; [2, T].

    `strata` has one array [runs, T] per game. Each of the T columns is a separate quantity, like a point of a curve.
    """
    draws = _draws(strata)
    interval = np.empty((2, strata[0].shape[1]))
    for column in range(interval.shape[1]):
        resampled = [scores[draw, column] for scores, draw in zip(strata, draws, strict=True)]
        interval[:, column] = np.percentile(aggregate(np.concatenate(resampled, axis=1)), _PERCENTILES)
    return interval


def probability_of_improvement(x: Sequence[Scores], y: Sequence[Scores]) -> float:
    """The probability that a run of X beats one of Y on the same game, averaged over games; a tie counts one half.

    `x` and `y` have one array [..., R] of R runs per game, for the same games in the same order.
    """
    return float(_superiority(x, y))


def improvement_interval(x: Sequence[Scores], y: Sequence[Scores]) -> Scores:
    """The 95% interval of `probability_of_improvement`, runs of both resampled within each game; [2]."""
    draws = _draws([*x, *y])
    resampled = [scores[draw] for scores, draw in zip([*x, *y], draws, strict=True)]
    interval: Scores = np.percentile(_superiority(resampled[: len(x)], resampled[len(x) :]), _PERCENTILES)
    return interval


def _superiority(x: Sequence[Scores], y: Sequence[Scores]) -> Scores:
    """The share of pairs in which a run of X beats one of Y, averaged over games: [...] from [..., runs] per game."""
    per_game = [
        ((a[..., :, None] > b[..., None, :]) + 0.5 * (a[..., :, None] == b[..., None, :])).mean(axis=(-2, -1))
        for a, b in zip(x, y, strict=True)
    ]
    return mean(np.stack(per_game, axis=-1))


def _draws(strata: Sequence[Scores]) -> list[NDArray[np.int64]]:
    """For each stratum, the indices of the runs in each resample: [RESAMPLES, runs]."""
    generator = np.random.default_rng(_SEED)
    return [generator.integers(0, len(scores), (RESAMPLES, len(scores))) for scores in strata]
