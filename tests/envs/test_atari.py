"""The protocol's settings hold in real games of the fast environment."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from stacked import Stacked, StackedStep

from wn_dqn.envs import atari
from wn_dqn.envs.atari import AtariEnv
from wn_dqn.envs.rules import EnvRules


def play(env: Stacked, seeds: list[int], steps: int) -> tuple[np.ndarray, list[StackedStep]]:
    """The first observation and the steps of random play (the actions are the same in every call)."""
    rng = np.random.default_rng(0)
    first, outcomes = env.reset(np.array(seeds)), []
    for _ in range(steps):
        env.send(rng.integers(env.num_actions, size=env.num_envs))
        outcomes.append(env.receive())
    return first, outcomes


def stacked(outcomes: list[StackedStep], field: str) -> np.ndarray:
    """One field of all steps, [steps, N, ...]."""
    return np.stack([getattr(step, field) for step in outcomes])


def test_shapes_and_types() -> None:
    """An StackedStep holds what its documentation says."""
    first, (step,) = play(Stacked(AtariEnv("breakout", 2, EnvRules())), [1, 2], 1)
    for obs in (first, step.obs):
        assert (obs.shape, obs.dtype) == ((2, 4, 84, 84), np.uint8)
    assert not first[:, :3].any()
    assert first[:, 3].any(axis=(1, 2)).all()
    assert (step.reward.shape, step.reward.dtype) == ((2,), np.float32)
    for flags in (step.terminated, step.truncated, step.terminal):
        assert (flags.shape, flags.dtype) == ((2,), np.bool_)


def test_rewards_are_raw() -> None:
    """Space Invaders pays 5 to 30 points for an invader of the six rows, more for the ship; nothing is clipped."""
    _, outcomes = play(Stacked(AtariEnv("space_invaders", 2, EnvRules())), [1, 2], 300)
    paid = set(np.unique(stacked(outcomes, "reward")))
    assert {0, 5, 10} <= paid
    assert all(reward % 5 == 0 for reward in paid)


def test_a_lost_life_is_reported_and_does_not_end_the_game() -> None:
    """A game of Breakout has five lives: four are lost on the way, and the game ends with the fifth."""
    outcomes = {
        ends: play(Stacked(AtariEnv("breakout", 2, EnvRules(terminal_on_life_loss=ends))), [1, 2], 500)[1]
        for ends in (False, True)
    }
    over = stacked(outcomes[True], "terminated")
    np.testing.assert_array_equal(stacked(outcomes[False], "terminated"), over)
    np.testing.assert_array_equal(stacked(outcomes[False], "terminal"), over)
    lost = stacked(outcomes[True], "terminal") & ~over
    for env in range(2):
        begin = 0
        ends = np.flatnonzero(over[:, env])
        assert len(ends) >= 2
        for end in ends:
            assert lost[begin:end, env].sum() == 4
            begin = end + 1
    assert (lost & ~over).sum(axis=0).min() >= 8


def test_stacks_slide_and_start_from_zeros() -> None:
    """Each step adds one frame; a game that ended has begun anew in the same step, with zeros where it was not yet."""
    first, outcomes = play(Stacked(AtariEnv("breakout", 2, EnvRules())), [1, 2], 250)
    previous, ends = first, 0
    for step in outcomes:
        for env in range(2):
            if step.terminated[env]:
                ends += 1
                assert not step.obs[env, :3].any()
                assert step.obs[env, 3].any()
            else:
                np.testing.assert_array_equal(step.obs[env, :3], previous[env, 1:])
        previous = step.obs
    assert ends >= 2
    assert not stacked(outcomes, "truncated").any()


def test_received_arrays_are_not_overwritten() -> None:
    """What a step returned stays as it was while later steps are played."""
    env = Stacked(AtariEnv("breakout", 2, EnvRules()))
    first, (step,) = play(env, [1, 2], 1)
    kept = first.copy(), *(field.copy() for field in step)
    for _ in range(20):
        env.send(np.array([1, 2]))
        env.receive()
    for array, copy in zip((first, *step), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_time_limit_truncates() -> None:
    """40 frames after the no-ops are ten steps; the cut is not an end of the game, and a new game begins."""
    _, outcomes = play(Stacked(AtariEnv("breakout", 2, EnvRules(max_game_frames=40))), [1, 2], 30)
    truncated = stacked(outcomes, "truncated")
    np.testing.assert_array_equal(truncated, np.repeat([[step % 10 == 9] for step in range(30)], 2, axis=1))
    assert not stacked(outcomes, "terminated").any()
    assert not outcomes[9].obs[:, :3].any()
    assert outcomes[9].obs[:, 3].any()


@pytest.mark.parametrize(("max_noop_frames", "allowed"), [(30, range(31)), (3, range(4)), (0, range(1))])
def test_noops_are_uniform_up_to_the_maximum(max_noop_frames: int, allowed: range) -> None:
    """A new game begins after 0 to 30 no-op frames, both ends included, all equally likely."""
    rules = EnvRules(max_noop_frames=max_noop_frames, max_game_frames=1)  # every step begins a game
    env = AtariEnv("breakout", 4, rules)
    _, info = env._env.reset(seed=np.arange(4))
    noop_frames = list(info["episode_frame_number"])
    for _ in range(3 * len(allowed)):
        env.send(np.zeros(4, np.int64))
        *_, info = env._env.recv()
        noop_frames += list(info["episode_frame_number"])
    assert set(noop_frames) == set(allowed)  # a dozen of each is expected: none is missing by chance
    assert np.mean(noop_frames) == pytest.approx(np.mean(allowed), abs=0.1 * max_noop_frames)


def test_no_fire_is_pressed_for_the_player() -> None:
    """Breakout serves the ball on FIRE only: who never presses it never loses a life."""
    env = AtariEnv("breakout", 1, EnvRules(terminal_on_life_loss=True))
    lost = []
    for action in (0, 1):
        env.reset(np.array([1]))
        steps = []
        for _ in range(60):
            env.send(np.array([action]))
            steps.append(env.receive())
        lost.append(stacked(steps, "terminal").sum())
    assert lost[0] == 0 < lost[1]


def test_same_seeds_and_actions_play_the_same_games() -> None:
    """Frames, rewards and ends do not depend on the number of threads nor on what was played before."""
    options = {"repeat_action_probability": 0.25, "max_game_frames": 240}
    seeds = [0, 2**31 - 1, 7]
    used = Stacked(AtariEnv("space_invaders", 3, EnvRules(**options), num_threads=1))
    play(used, [4, 5, 6], 75)
    games = [
        play(env, seeds, 130)
        for env in (used, used, Stacked(AtariEnv("space_invaders", 3, EnvRules(**options), num_threads=2)))
    ]
    for first, outcomes in games[1:]:
        np.testing.assert_array_equal(first, games[0][0])
        for field in StackedStep._fields:
            np.testing.assert_array_equal(stacked(outcomes, field), stacked(games[0][1], field))
    assert stacked(games[0][1], "truncated").sum() >= 6


def test_a_seed_belongs_to_its_row() -> None:
    """Row i plays the game of seed i; different seeds play different games."""
    env = Stacked(AtariEnv("space_invaders", 2, EnvRules(repeat_action_probability=0.25)))

    def frames(seeds: list[int]) -> np.ndarray:
        obs = [env.reset(np.array(seeds))]
        for action in np.random.default_rng(0).integers(env.num_actions, size=50):
            env.send(np.full(2, action))
            obs.append(env.receive().obs)
        return np.stack(obs, axis=1)

    one, two = frames([1, 2]), frames([2, 1])
    np.testing.assert_array_equal(one, two[::-1])
    assert (one[0] != one[1]).any()


def test_sticky_actions_change_the_game() -> None:
    """With the same seeds and actions, repeating actions at random leads elsewhere."""
    rules = [EnvRules(repeat_action_probability=p, max_noop_frames=0) for p in (0.0, 0.25)]
    frames = [stacked(play(Stacked(AtariEnv("breakout", 1, each)), [1], 60)[1], "obs") for each in rules]
    assert (frames[0] != frames[1]).any()


@pytest.mark.parametrize(("full", "count"), [(False, 4), (True, 18)])
def test_invalid_actions_never_reach_the_emulator(full: bool, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action that the game does not have is refused (the emulator would hang), and the game can go on."""
    env = Stacked(AtariEnv("breakout", 2, EnvRules(full_action_set=full)))
    assert env.num_actions == count
    env.reset(np.array([1, 2]))
    with monkeypatch.context() as patch:
        patch.setattr(env.env._env, "send", lambda _: pytest.fail("an invalid action reached the emulator"))
        for action in (-1, count, 2**31):
            with pytest.raises(ValueError, match=rf"actions must be 0\.\.{count - 1}"):
                env.send(np.array([0, action]))
    env.send(np.array([0, count - 1]))
    assert env.receive().obs.any()


@pytest.mark.parametrize("rom_id", ["pong", "enduro"])
def test_no_lives_left_is_not_game_over(rom_id: str) -> None:
    """Games without lives report zero of them from the start; they neither end nor lose one."""
    env = AtariEnv(rom_id, 1, EnvRules(terminal_on_life_loss=True))
    _, info = env._env.reset(seed=np.array([1]))
    assert info["lives"] == [0]
    _, outcomes = play(Stacked(env), [1], 60)
    for field in ("terminated", "truncated", "terminal"):
        assert not stacked(outcomes, field).any()


@pytest.mark.parametrize(
    ("waits", "reported"),
    [
        ([5.0] * 11, True),
        ([5.0] * 10 + [6.0] * 10, False),  # that step came, and the next one is waited for
        ([None, 5.0, 5.0, None, 5.0, 5.0], False),  # stopped by Ctrl-Z for an hour: one look, not an hour's
    ],
)
def test_only_a_step_that_is_waited_for_again_and_again_hangs(
    waits: list[float | None], reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`waits`: since when `receive` waits, at each look of the watchdog; then the environment is gone."""
    looks = iter([*(SimpleNamespace(waiting_since_s=since_s) for since_s in waits), None])
    monkeypatch.setattr(atari, "threading", SimpleNamespace(Event=lambda: SimpleNamespace(wait=lambda _: False)))
    heard: list[bool] = []
    atari._watch(lambda: next(looks), lambda: heard.append(True))  # type: ignore[arg-type]
    assert heard == [True] * reported
