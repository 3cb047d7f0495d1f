"""The reference environment, the fast one and gymnasium's own preprocessing show the same game, pixel by pixel."""

from __future__ import annotations

from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest
from ale_py.env import AtariEnv as GymnasiumAtariEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from stacked import Stacked, StackedGame

from wn_dqn.config.games import all_games
from wn_dqn.envs.atari import AtariEnv
from wn_dqn.envs.atari_reference import ReferenceEnv
from wn_dqn.envs.rules import EnvRules

ALL_ROMS = sorted(
    spec.kwargs["game"] for spec in gymnasium.registry.values() if spec.id.startswith("ALE/") and spec.kwargs
)

# The paper's four, the odd ones (no NOOP, screens of 230 and 250 lines, two players on one screen), and a few more.
TEN_ROMS = {
    *("breakout", "enduro", "seaquest", "space_invaders"),
    *("backgammon", "journey_escape", "air_raid", "surround", "pong", "montezuma_revenge"),
}


class Watched:
    """Passes every call through to the emulators of an AtariEnv, and keeps the `info` that AtariEnv drops."""

    def __init__(self, env: AtariEnv) -> None:
        self._ale = env._env.ale
        self.info: dict[str, Any] = {}
        env._env.ale = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ale, name)

    def reset(self, *args: Any) -> tuple[Any, ...]:
        *outcome, self.info = self._ale.reset(*args)
        return (*outcome, self.info)

    def recv(self) -> tuple[Any, ...]:
        *outcome, self.info = self._ale.recv()
        return (*outcome, self.info)


def gray(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def small(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA)


def play_side_by_side(
    rom_id: str, *, seed: int, sticky: float, steps: int, games: int = 0, max_game_frames: int | None = None
) -> tuple[int, int, int]:
    """Random play in both for so many steps or games, the same outcomes asserted.

    Returns the numbers of frames compared and games ended, and the largest difference of a pixel.
    """
    options = {"repeat_action_probability": sticky, "max_game_frames": max_game_frames}
    rules = EnvRules(**options, max_noop_frames=30, terminal_on_life_loss=True)
    fast, reference = Stacked(AtariEnv(rom_id, 1, rules)), StackedGame(ReferenceEnv(rom_id, rules))
    assert reference.num_actions == fast.num_actions
    watched = Watched(fast.env)
    reference.reset(seed)
    preamble = reference._ale.getEpisodeFrameNumber()  # frames of a few games' own start sequence

    def difference(obs: np.ndarray, fast_obs: np.ndarray) -> int:
        assert obs.shape == (4, 84, 84)
        assert obs.dtype == fast_obs.dtype == np.uint8
        return int(np.abs(obs.astype(int) - fast_obs[0]).max())

    def noop_frames() -> int:
        return int(watched.info["episode_frame_number"][0]) - preamble

    fast_obs = fast.reset(np.array([seed]))
    largest = difference(reference.reset(seed, noop_frames()), fast_obs)
    lives, ends, frames = watched.info["lives"][0], 0, 1
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        action = int(rng.integers(fast.num_actions))
        fast.send(np.array([action]))
        step = fast.receive()
        obs, reward, terminated, truncated, new_lives = reference.step(action)
        over = terminated or truncated
        expected = (reward, terminated, truncated, terminated or (new_lives < lives and not over))
        assert (step.reward[0], step.terminated[0], step.truncated[0], step.terminal[0]) == expected
        if over:
            ends += 1
            obs = reference.reset(None, noop_frames())  # goes on with the same emulator's randomness
            new_lives = watched.info["lives"][0]
        assert watched.info["lives"][0] == new_lives
        largest = max(largest, difference(obs, step.obs))
        lives = new_lives
        frames += 1
        if over and ends == games:
            break
    return frames, ends, largest


@pytest.mark.parametrize(
    ("rom_id", "sticky", "steps", "games"),
    [
        ("breakout", 0.0, 1500, 2),
        ("space_invaders", 0.0, 1500, 1),
        ("seaquest", 0.25, 1500, 2),
        ("enduro", 0.25, 400, 0),
        ("backgammon", 0.0, 40, 0),  # has no NOOP among its actions
        pytest.param("enduro", 0.0, 5000, 1, marks=pytest.mark.thorough),  # a game lasts three minutes at least
    ],
)
def test_equals_the_fast_environment(rom_id: str, sticky: float, steps: int, games: int) -> None:
    """Frames, rewards, lives and ends agree over whole games with no-ops; the largest pixel difference is zero."""
    _, ends, largest = play_side_by_side(rom_id, seed=3, sticky=sticky, steps=steps, games=games)
    assert (ends, largest) == (games, 0)


def test_time_limit_equals_the_fast_environment() -> None:
    """The limit cuts in the middle of a step, too, and the no-ops do not count."""
    frames, ends, largest = play_side_by_side("breakout", seed=1, sticky=0.0, steps=40, max_game_frames=30)
    assert (frames, ends, largest) == (41, 5, 0)  # a game is seven steps of four frames and one of two


@pytest.mark.parametrize(
    "rom_id",
    [rom_id if rom_id in TEN_ROMS else pytest.param(rom_id, marks=pytest.mark.thorough) for rom_id in ALL_ROMS],
)
def test_every_game_equals_the_fast_environment(rom_id: str) -> None:
    """Every game that gymnasium registers can be made, reset and played, and shows the same in both environments."""
    assert rom_id in all_games()
    frames, _, largest = play_side_by_side(rom_id, seed=2, sticky=0.0, steps=12)
    assert (frames, largest) == (13, 0)


@pytest.mark.parametrize(("rom_id", "sticky"), [("breakout", 0.0), ("space_invaders", 0.25), ("seaquest", 0.25)])
def test_equals_gymnasiums_preprocessing(rom_id: str, sticky: float) -> None:
    """AtariPreprocessing with FrameStackObservation agrees, sticky actions included, up to a game's last frame."""
    raw = GymnasiumAtariEnv(rom_id, frameskip=1, repeat_action_probability=sticky)
    theirs = FrameStackObservation(AtariPreprocessing(raw, noop_max=0), 4, padding_type="zero")
    reference = StackedGame(ReferenceEnv(rom_id, EnvRules(repeat_action_probability=sticky)))
    their_obs, info = theirs.reset(seed=6)
    obs = reference.reset(int(info["seeds"][1]))
    rng = np.random.default_rng(0)
    for _ in range(250):
        np.testing.assert_array_equal(obs, their_obs)
        action = int(rng.integers(reference.num_actions))
        their_obs, *their_outcome, info = theirs.step(action)
        obs, *outcome = reference.step(action)
        assert outcome == [*their_outcome, info["lives"]]
        if outcome[1]:
            break


def test_rgb_frames_are_what_the_observation_was_made_of() -> None:
    """Four RGB frames per step; the last two as gray, their maximum, resized, are the newest frame: in this order."""
    env = StackedGame(ReferenceEnv("seaquest", EnvRules()))
    obs = env.reset(0)
    assert env.rgb_frames.shape == (1, 210, 160, 3)
    assert not obs[:3].any()
    np.testing.assert_array_equal(small(gray(env.rgb_frames[0])), obs[3])
    other_orders = np.zeros(3, np.int64)
    rng = np.random.default_rng(0)
    for _ in range(60):
        previous, (obs, *_) = obs, env.step(int(rng.integers(env.num_actions)))
        assert env.rgb_frames.shape == (4, 210, 160, 3)
        assert env.rgb_frames.dtype == np.uint8
        np.testing.assert_array_equal(obs[:3], previous[1:])
        third, fourth = env.rgb_frames[-2:]
        np.testing.assert_array_equal(small(np.maximum(gray(third), gray(fourth))), obs[3])
        assert (small(gray(fourth)) <= obs[3]).all()
        maximum_first = small(gray(np.maximum(third, fourth)))
        resized_first = np.maximum(small(gray(third)), small(gray(fourth)))
        other_orders += [(frame != obs[3]).any() for frame in (maximum_first, resized_first, small(gray(fourth)))]
    assert other_orders.all()  # each of them would have differed somewhere


def test_a_cut_step_has_fewer_rgb_frames() -> None:
    """A game that ends within a step shows only the frames that were played, and the next begins with one."""
    env = StackedGame(ReferenceEnv("pong", EnvRules(max_game_frames=6)))
    env.reset(0)
    assert env.step(0)[2:4] == (False, False)
    obs, _, terminated, truncated, _ = env.step(0)
    assert (terminated, truncated) == (False, True)
    assert len(env.rgb_frames) == 2
    np.testing.assert_array_equal(obs[3], small(np.maximum(*map(gray, env.rgb_frames))))
    env.reset()
    assert len(env.rgb_frames) == 1
    assert env.step(0)[3] is False


def test_observations_are_copies() -> None:
    """An observation that was handed out does not change with later steps."""
    env = StackedGame(ReferenceEnv("pong", EnvRules()))
    obs = env.reset(0)
    before = obs.copy()
    env.step(0)
    np.testing.assert_array_equal(obs, before)


@pytest.mark.parametrize(("full", "count"), [(False, 4), (True, 18)])
def test_invalid_actions_are_refused(full: bool, count: int) -> None:
    """An action that the game does not have raises ValueError (as an index, -1 would be the last action)."""
    env = StackedGame(ReferenceEnv("breakout", EnvRules(full_action_set=full)))
    env.reset(0)
    for action in (-1, count):
        with pytest.raises(ValueError, match=rf"0\.\.{count - 1}, got \[{action}\]"):
            env.step(action)
    env.step(count - 1)
