"""Environments in Python: the loop's own, and one that gymnasium's checkers find nothing wrong with."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import PassiveEnvChecker

import wn_dqn
from wn_dqn.envs.frame_stack import FrameStack

NAMES = ["catch", "CatchVector", "SpaceInvaders", "gymnasium:CartPole-v1", "gymnasium:MinAtar/Breakout-v1"]


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_finds_nothing(name: str) -> None:
    """Warnings are errors here. Nothing is drawn of CartPole: its pictures need a package that nothing else does."""
    drawn = "CartPole" not in name
    check_env(wn_dqn.make_env(name, render_mode="rgb_array" if drawn else None), skip_render_check=not drawn)
    env = PassiveEnvChecker(wn_dqn.make_env(name, render_mode="rgb_array" if drawn else None))
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(40):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    if drawn:
        assert env.render().ndim == 3


@pytest.mark.parametrize("name", ["catch", "SpaceInvaders", "gymnasium:CartPole-v1"])
def test_one_game_shows_what_its_vector_form_shows(name: str) -> None:
    """Whole observations, rewards and ends are those of the loop, whose frames are stacked here."""
    one, many = wn_dqn.make_env(name, max_noop_frames=0), wn_dqn.make_env(name, 1, max_noop_frames=0)
    assert one.game_spec == many.spec
    obs, _ = one.reset(seed=5)
    game_seed = np.random.Generator(np.random.PCG64(np.random.SeedSequence(5))).integers(2**31)
    stack = FrameStack(many.spec, 1)
    expected = stack.begin(many.reset(np.array([game_seed])))
    np.testing.assert_array_equal(obs, expected[0])
    generator = np.random.default_rng(0)
    for _ in range(60):
        action = generator.integers(one.action_space.n)
        obs, reward, terminated, truncated, _ = one.step(action)
        many.send(np.array([action]))
        step = many.receive()
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
        if terminated or truncated:
            break
        np.testing.assert_array_equal(obs, stack.push(step.frame, step.over)[0])


def test_settings_of_the_environment_are_keyword_arguments() -> None:
    assert wn_dqn.make_env("Pong").action_space.n == 6
    assert wn_dqn.make_env("Pong", full_action_set=True).action_space.n == 18
    assert wn_dqn.make_env("Pong", 2, full_action_set=True).spec.num_actions == 18
    with pytest.raises(wn_dqn.UsageError, match=r"unknown setting 'environment\.full'; did you mean"):
        wn_dqn.make_env("Pong", full=True)
    with pytest.raises(wn_dqn.UsageError, match="unknown game 'Pomg'"):
        wn_dqn.make_env("Pomg")
    with pytest.raises(wn_dqn.UsageError, match="render_mode 'human' is not supported"):
        wn_dqn.make_env("Pong", render_mode="human")


def test_a_policy_of_someone_else_can_be_tested_on_it() -> None:
    """By gymnasium's own means: its wrappers take it."""
    env = gymnasium.wrappers.RecordEpisodeStatistics(wn_dqn.make_env("catch"))
    env.reset(seed=0)
    for _ in range(6):
        *_, info = env.step(1)
    assert info["episode"]["l"] == 6
