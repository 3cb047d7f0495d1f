"""Published scores: as the papers have them, of games that exist."""

from __future__ import annotations

import numpy as np
import pytest

from wn_dqn.analysis.published import _RANDOM_AND_HUMAN, PAPER_COLUMNS, PAPER_GAMES, human_normalized, published_scores
from wn_dqn.config.games import all_games
from wn_dqn.envs.catch import GRID

NAMES = [game.name for game in all_games().values()]


def test_human_normalized_is_0_for_random_and_1_for_human() -> None:
    """Random play is 0, a human 1, linear between; None where no human score was published."""
    for name in NAMES:
        scores = published_scores(name)
        if scores.random is None or scores.human is None:
            assert human_normalized(name, 1.0) is None
        else:
            assert human_normalized(name, scores.random) == 0
            assert human_normalized(name, scores.human) == 1
            assert human_normalized(name, (scores.random + scores.human) / 2) == pytest.approx(0.5)


def test_scores() -> None:
    """Spot checks against the papers; no score belongs to a game that does not exist."""
    papers = {game: tuple(published_scores(game).paper.values()) for game in NAMES}
    assert {game: scores for game, scores in papers.items() if scores} == {
        "Breakout": (410, 403, 401),
        "Enduro": (1250, 1448, 302),
        "Seaquest": (7188, 7375, 5286),
        "SpaceInvaders": (1779, 2179, 1975),
    }
    assert all(tuple(published_scores(game).paper) == tuple(PAPER_COLUMNS) for game in PAPER_GAMES)
    invaders = published_scores("SpaceInvaders")
    assert (invaders.random, invaders.human) == (148.0, 1668.7)
    assert human_normalized("Breakout", 401) == pytest.approx((401 - 1.7) / (30.5 - 1.7))
    assert human_normalized("Pong", 21) == pytest.approx(41.7 / 35.3)
    assert set(PAPER_GAMES) <= set(_RANDOM_AND_HUMAN) <= set(NAMES)
    assert len(_RANDOM_AND_HUMAN) == 57  # as many as in the paper's table


@pytest.mark.parametrize("name", ["MinAtar/Breakout-v1", "space_invaders", "", "no such game"])
def test_nothing_is_published_about_other_games(name: str) -> None:
    scores = published_scores(name)
    assert (scores.random, scores.human, scores.paper, human_normalized(name, 1.0)) == (None, None, {}, None)


@pytest.mark.parametrize("name", ["Catch", "CatchVector"])
def test_a_random_paddle_catches_one_ball_of_seven(name: str) -> None:
    """Followed through all of its positions: GRID - 1 steps to the left, to the right or not, each one in three."""
    paddle = np.eye(GRID)[GRID // 2]
    for _ in range(GRID - 1):
        padded = np.pad(paddle, 1)
        moved = padded[:-2] + padded[1:-1] + padded[2:]
        moved[0] += paddle[0]  # at the walls it stays
        moved[-1] += paddle[-1]
        paddle = moved / 3
    caught = (paddle / GRID).sum()
    scores = published_scores(name)
    assert scores.random == pytest.approx(caught - (1 - caught))
    assert (scores.human, scores.source, human_normalized(name, 1.0)) == (None, "exact", None)
