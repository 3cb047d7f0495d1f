"""Catch keeps the contract of a VectorEnv, and its games are as hard as they can be counted to be."""

from __future__ import annotations

import numpy as np
import pytest
from stacked import Stacked, StackedStep

from wn_dqn.envs.catch import GRID, Catch

CELL = 84 // GRID
STAY = 1


def ball_and_paddle(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of the ball and column of the paddle in the newest frames of obs [N, 4, 84, 84]."""
    grid = obs[:, -1, ::CELL, ::CELL]
    row, column = np.divmod(grid.reshape(len(grid), -1).argmax(axis=1), GRID)
    return row, column, (grid[:, -1] == 128).argmax(axis=1)


def move_towards_ball(obs: np.ndarray) -> np.ndarray:
    _, column, paddle = ball_and_paddle(obs)
    return 1 + np.sign(column - paddle)


def act(env: Stacked, actions: np.ndarray) -> StackedStep:
    env.send(actions)
    return env.receive()


def test_first_observation() -> None:
    """7x7 cells of 12x12 pixels after three frames of zeros: a ball (255) above, the paddle (128) in the middle."""
    env = Stacked(Catch(5))
    obs = env.reset(np.arange(5))
    assert (obs.shape, obs.dtype) == ((5, 4, 84, 84), np.uint8)
    assert not obs[:, :3].any()
    row, _, paddle = ball_and_paddle(obs)
    assert (row == 0).all()
    assert (paddle == GRID // 2).all()
    frames = obs[:, 3]
    np.testing.assert_array_equal(frames, frames[:, ::CELL, ::CELL].repeat(CELL, 1).repeat(CELL, 2))
    assert ((frames == 255).sum(axis=(1, 2)) == CELL**2).all()
    assert ((frames == 128).sum(axis=(1, 2)) == CELL**2).all()
    assert ((frames > 0).sum(axis=(1, 2)) == 2 * CELL**2).all()


def test_step_types_and_length() -> None:
    """A game takes GRID - 1 steps; only its last one pays; nothing is truncated, and what is over is terminal."""
    env = Stacked(Catch(4))
    env.reset(np.arange(4))
    for t in range(1, 4 * (GRID - 1) + 1):
        step = act(env, np.full(4, STAY))
        last = t % (GRID - 1) == 0
        assert (step.obs.shape, step.obs.dtype) == ((4, 4, 84, 84), np.uint8)
        assert (step.reward.shape, step.reward.dtype) == ((4,), np.float32)
        for flags, expected in ((step.terminated, last), (step.truncated, False), (step.terminal, last)):
            assert (flags.shape, flags.dtype) == ((4,), np.bool_)
            assert (flags == expected).all()
        assert (np.abs(step.reward) == last).all()


def test_frames_follow_the_game() -> None:
    """The ball falls a row per step, the paddle moves by the action within the grid, and the stack slides."""
    env = Stacked(Catch(3))
    previous = env.reset(np.arange(3))
    for t in range(1, GRID - 1):
        step = act(env, np.array([0, 1, 2]))
        row, column, paddle = ball_and_paddle(step.obs)
        assert (row == t).all()
        np.testing.assert_array_equal(column, ball_and_paddle(previous)[1])
        np.testing.assert_array_equal(paddle, [max(3 - t, 0), 3, min(3 + t, 6)])
        np.testing.assert_array_equal(step.obs[:, :3], previous[:, 1:])
        previous = step.obs
    new = act(env, np.array([0, 1, 2])).obs
    assert not new[:, :3].any()
    row, _, paddle = ball_and_paddle(new)
    assert (row == 0).all()
    assert (paddle == GRID // 2).all()


def test_optimal_play_always_catches() -> None:
    """Moving towards the ball catches every ball: each column can be reached."""
    env = Stacked(Catch(20))
    obs, rewards, columns = env.reset(np.arange(20)), [], set()
    for _ in range(10 * (GRID - 1)):
        columns |= set(ball_and_paddle(obs)[1])
        obs, reward, over, *_ = act(env, move_towards_ball(obs))
        rewards += list(reward[over])
    assert rewards == [1.0] * 200
    assert columns == set(range(GRID))


def test_a_still_paddle_catches_one_in_seven() -> None:
    """Seven columns are equally likely and the paddle covers one: mean reward 1/7 - 6/7."""
    env = Stacked(Catch(500))
    obs, rewards = env.reset(np.arange(500)), []
    for _ in range(10 * (GRID - 1)):
        in_reach = ball_and_paddle(obs)[1] == GRID // 2
        obs, reward, over, *_ = act(env, np.full(500, STAY))
        np.testing.assert_array_equal(reward[over], np.where(in_reach[over], 1, -1))
        rewards += list(reward[over])
    assert len(rewards) == 5000
    assert np.mean(rewards) == pytest.approx(1 / 7 - 6 / 7, abs=4 * 2 * np.sqrt(1 / 7 * 6 / 7 / 5000))


def test_same_seed_same_games() -> None:
    """Row i plays the games of seed i whatever came before and whoever plays beside it; other seeds play others."""

    def columns(env: Stacked, seeds: list[int]) -> np.ndarray:
        obs, seen = env.reset(np.array(seeds)), []
        for _ in range(20):
            seen.append(ball_and_paddle(obs)[1])
            for _ in range(GRID - 1):
                obs = act(env, np.zeros(len(seeds), np.int64)).obs
        return np.stack(seen, axis=1)

    env = Stacked(Catch(3))
    one = columns(env, [1, 2, 2**31 - 1])
    act(env, np.full(3, 2))
    np.testing.assert_array_equal(columns(env, [1, 2, 2**31 - 1]), one)
    np.testing.assert_array_equal(columns(Stacked(Catch(1)), [2]), one[1:2])
    assert (one[0] != one[1]).any()


def test_observations_are_copies() -> None:
    """An observation that was handed out does not change with later steps."""
    env = Stacked(Catch(2))
    first = env.reset(np.arange(2))
    second = act(env, np.array([0, 2])).obs
    before = first.copy(), second.copy()
    act(env, np.array([0, 2]))
    np.testing.assert_array_equal((first, second), before)


@pytest.mark.parametrize("action", [-1, 3])
def test_invalid_actions_are_refused(action: int) -> None:
    """An action outside 0..2 raises ValueError and changes nothing."""
    env = Stacked(Catch(2))
    before = env.reset(np.arange(2))
    with pytest.raises(ValueError, match=r"actions must be 0\.\.2"):
        env.send(np.array([1, action]))
    after = act(env, np.array([1, 1])).obs
    np.testing.assert_array_equal(after[:, 2], before[:, 3])
