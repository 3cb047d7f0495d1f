"""Environments from outside: what fits, what does not and why, worker processes, pictures."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from toy_envs import Walk

from wn_dqn.config.files import make_settings
from wn_dqn.config.games import OutsideGame, game_of
from wn_dqn.envs import gymnasium_env
from wn_dqn.envs.factory import make_env, single_game, spec_of
from wn_dqn.envs.gymnasium_env import GymnasiumEnv
from wn_dqn.envs.gymnasium_game import draw
from wn_dqn.envs.gymnasium_spaces import read_action_space, read_observation_space
from wn_dqn.envs.rules import EnvRules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import EnvironmentFailure
from wn_dqn.errors import UsageError

RULES = EnvRules()


def game(name: str, **environment: Any) -> OutsideGame:
    found = game_of(make_settings({"game": name, "environment": environment}))
    assert isinstance(found, OutsideGame)
    return found


@pytest.mark.parametrize(
    ("space", "frame_shape", "frame_dtype"),
    [
        (spaces.Box(-1, 1, (5,), np.float32), (5,), "float32"),
        (spaces.Box(-1, 1, (5,), np.float64), (5,), "float32"),
        (spaces.Box(0, 255, (5,), np.uint8), (5,), "uint8"),
        (spaces.Box(0, 1, (5,), np.bool_), (5,), "bool"),
        (spaces.Box(0, 255, (210, 160), np.uint8), (1, 210, 160), "uint8"),
        (spaces.Box(0, 255, (210, 160, 3), np.uint8), (3, 210, 160), "uint8"),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), (4, 84, 84), "uint8"),
        (spaces.Box(0, 1, (10, 10, 4), np.bool_), (4, 10, 10), "bool"),
        (spaces.Box(0, 1, (4, 10, 10), np.bool_), (4, 10, 10), "bool"),
        (spaces.Box(0, 1, (7, 7, 7), np.bool_), (7, 7, 7), "bool"),
    ],
)
def test_observations_become_frames(space: spaces.Box, frame_shape: tuple[int, ...], frame_dtype: str) -> None:
    reading = read_observation_space("it", space)
    assert (reading.frame_shape, reading.frame_dtype) == (frame_shape, frame_dtype)
    obs = np.stack([space.sample(), space.sample()])
    frames = reading.frames(obs)
    assert frames.shape == (2, *frame_shape)
    assert frames.dtype == frame_dtype
    channels_last = (len(space.shape) == 3 and space.shape != frame_shape) or space.shape == (7, 7, 7)
    expected = np.moveaxis(obs, 3, 1) if channels_last else obs.reshape(frames.shape)
    assert np.array_equal(frames, expected.astype(frame_dtype))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (100, 100))}),
        spaces.Discrete(5),
        spaces.MultiBinary(4),
        spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))),
        spaces.Text(5),
        spaces.Box(0, 1, (3, 3), np.float32),
        spaces.Box(0, 10, (3,), np.int64),
        spaces.Box(0, 10, (), np.float32),
        spaces.Box(0, 10, (2, 2, 2, 2), np.uint8),
        spaces.Box(0, 1, (0,), np.float32),
    ],
)
def test_a_space_that_does_not_fit_is_named_with_what_does(space: spaces.Space[Any]) -> None:
    with pytest.raises(UsageError, match="which no network here takes; what fits: Box of uint8") as caught:
        read_observation_space("it", space)
    assert type(space).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 1, (2,)), spaces.MultiDiscrete([2, 3]), spaces.Dict({"a": spaces.Discrete(2)})]
)
def test_actions_that_do_not_fit_are_named(space: spaces.Space[Any]) -> None:
    with pytest.raises(UsageError, match="it has the action space"):
        read_action_space("it", space)


def test_discrete_actions_may_start_anywhere() -> None:
    assert read_action_space("it", spaces.Discrete(3, start=-1)) == (3, -1)
    spec = spec_of(game("toy_envs:Bits"), RULES)
    assert spec.action_names == ("-1", "0", "1")
    env = make_env(game("toy_envs:Bits"), 1, RULES)
    frame = env.reset(np.array([0])).copy()
    env.send(np.array([0]))
    moved = env.receive().frame
    assert frame[0, 1, 5].tolist() == [False, False, True, False, False]
    assert moved[0, 1, 5].tolist() == [False, True, False, False, False]
    with pytest.raises(ValueError, match=r"actions must be 0\.\.2"):
        env.send(np.array([-1]))


def test_the_spec_of_environments_from_outside() -> None:
    cart = spec_of(game("gymnasium:CartPole-v1"), RULES)
    assert cart == EnvSpec("gymnasium:CartPole-v1", (4,), "float32", 1, ("0", "1"))
    assert (cart.frames_per_step, cart.clip_rewards) == (1, False)
    breakout = spec_of(game("gymnasium:MinAtar/Breakout-v1", stack=3), RULES)
    assert (breakout.frame_shape, breakout.frame_dtype, breakout.obs_shape) == ((4, 10, 10), "bool", (12, 10, 10))
    assert spec_of(game("toy_envs:walks"), RULES).frame_shape == (3,)


def test_arguments_and_time_limits_reach_the_environment() -> None:
    for environment, rules, steps in (
        ({}, RULES, 7),
        ({"args": {"limit": 3}}, RULES, 3),
        ({}, EnvRules(max_game_frames=2), 2),
    ):
        env = make_env(game("toy_envs:Walk", **environment), 1, rules)
        env.reset(np.array([1]))
        for count in range(1, steps + 1):
            env.send(np.array([count % 2]))
            assert env.receive().truncated.tolist() == [count == steps]


def test_worker_processes_play_the_same_games() -> None:
    one, other = (make_env(game("toy_envs:Walk", vectorization=kind), 2, RULES) for kind in ("sync", "async"))
    assert np.array_equal(one.reset(np.array([5, 6])), other.reset(np.array([5, 6])))
    for count in range(16):
        steps = []
        for env in (one, other):
            env.send(np.array([count % 2, count % 3 == 0]).astype(np.int64))
            steps.append(env.receive())
        for a, b in zip(steps[0][:5], steps[1][:5], strict=True):
            assert np.array_equal(a, b)
        truncated = steps[0].truncated & ~steps[0].terminated
        if truncated.any():
            finals = [step.final_frame[truncated] for step in steps if step.final_frame is not None]
            assert np.array_equal(*finals)
    assert isinstance(other, GymnasiumEnv)
    other.close()


@pytest.mark.parametrize("how", ["it is killed", "it ends itself"])
def test_a_worker_that_dies_is_one_line(how: str) -> None:
    name = "toy_envs:Walk" if how == "it is killed" else "hostile_envs:Hostile"
    env = make_env(game(name, vectorization="async", args={} if how == "it is killed" else {"wrong": "exit"}), 2, RULES)
    assert isinstance(env, GymnasiumEnv)
    env.reset(np.array([5, 6]))
    if how == "it is killed":
        os.kill(env._vector.processes[1].pid, signal.SIGKILL)
        env._vector.processes[1].join()
    env.send(np.array([0, 1]))
    with pytest.raises(EnvironmentFailure, match=r"a worker process of .* has died"):
        env.receive()
    assert not any(process.is_alive() for process in env._vector.processes)


def test_a_reset_that_hangs_in_a_worker_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env(game("hostile_envs:Hostile", vectorization="async", args={"wrong": "hang in reset"}), 1, RULES)
    monkeypatch.setattr(gymnasium_env, "HANG_TIMEOUT_S", 0.2)
    with pytest.raises(EnvironmentFailure, match=r"has not answered a reset for 0\.2 s in its worker process"):
        env.reset(np.array([1]))


def test_an_error_in_a_worker_is_the_same_line() -> None:
    env = make_env(game("hostile_envs:Hostile", vectorization="async", args={"wrong": "error in step"}), 1, RULES)
    env.reset(np.array([1]))
    env.send(np.array([0]))
    with pytest.raises(EnvironmentFailure, match=r"raised KeyError in step at hostile_envs\.py:\d+: 'of a step'"):
        env.receive()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gymnasium:CartPoll-v1", "did you mean CartPole-v1"),
        ("gymnasium:Nothing/AtAll-v0", "Nothing"),
        ("gymnasium:CartPole-v99", "CartPole"),
        ("toy_envs:Wlak", "has no class or function Wlak; did you mean Walk"),
        ("toy_envs:NUMBER", "has no class or function NUMBER"),
        ("toy_envs:too_few", r"function \(num_envs, rules\) .* for 2 it returned a SyncVectorEnv of 3 games"),
        ("toy_envs:nothing", "for 2 it returned a NoneType"),
        ("no_such_module:make", "there is no module no_such_module"),
        ("gymnasium:no_such_module:Thing-v0", "there is no module no_such_module"),
        ("gymnasium:Pendulum-v1", "has the action space Box"),
        ("gymnasium:FrozenLake-v1", r"has the observation space Discrete\(16\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Using the latest versioned environment")
def test_what_cannot_be_made_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_env(game(name), 2, RULES)
    assert "\n" not in str(caught.value)


def test_a_wrong_argument_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"toy_envs:Walk raised TypeError in its constructor .*colour"):
        spec_of(game("toy_envs:Walk", args={"colour": 1}), RULES)
    with pytest.raises(UsageError, match=r"CartPole-v1 raised TypeError in its constructor .*colour"):
        spec_of(game("gymnasium:CartPole-v1", args={"colour": 1}), RULES)


def test_without_the_package_minatar_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(gymnasium, "registry", {})
    monkeypatch.setitem(sys.modules, "minatar.gym", None)
    with pytest.raises(UsageError, match=r"pip install 'wn-dqn\[minatar\]'"):
        spec_of(game("gymnasium:MinAtar/Breakout-v1"), RULES)


def test_a_module_of_the_current_folder_has_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lying_here.py").write_text(
        "import gymnasium\nfrom toy_envs import Walk\ngymnasium.register('Lying-v0', Walk)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert spec_of(game("lying_here:Walk"), RULES).frame_shape == (3,)
    assert spec_of(game("gymnasium:lying_here:Lying-v0"), RULES).frame_shape == (3,)


def test_a_game_to_be_watched_plays_as_the_many_do() -> None:
    single, env = single_game(game("toy_envs:Walk"), RULES), make_env(game("toy_envs:Walk"), 1, RULES)
    assert np.array_equal(single.reset(seed=3), env.reset(np.array([3]))[0])
    for count in range(7):
        env.send(np.array([count % 2]))
        step, one = env.receive(), single.step(count % 2)
        assert (one.reward, one.terminated, one.truncated) == (
            pytest.approx(step.reward[0]),
            step.terminated[0],
            step.truncated[0],
        )
        if step.over[0]:
            break
        assert np.array_equal(one.frame, step.frame[0])
    with pytest.raises(ValueError, match=r"actions must be 0\.\.1"):
        single.step(2)


def test_a_step_is_shown_as_long_as_the_environment_says() -> None:
    single = single_game(game("toy_envs:Walk"), RULES)
    single.reset(seed=1)
    assert single.rgb_frames.shape == (1, 40, 60, 3)
    single.step(0)
    assert single.rgb_frames.shape == (3, 40, 60, 3), "20 steps a second at 60 frames"
    assert single.rgb_frames.max() == 255


def test_bits_are_drawn_as_coloured_cells() -> None:
    single = single_game(game("toy_envs:Bits"), RULES)
    frame = single.reset(seed=1)
    picture = single.rgb_frames[0]
    assert picture.shape == (6, 5, 3)
    colours = {tuple(picture[cell]) for cell in np.ndindex(6, 5)}
    assert len(colours) == 3, "the ground and two channels"
    ground = picture[1, 1].tolist()
    assert ((picture != ground).any(axis=2) == frame.any(axis=0)).all()


def test_bytes_are_drawn_as_they_are() -> None:
    rng = np.random.default_rng(0)
    gray, colour = rng.integers(0, 256, (1, 3, 4), np.uint8), rng.integers(0, 256, (3, 3, 4), np.uint8)
    assert np.array_equal(draw(gray), np.stack([gray[0]] * 3, axis=2))
    assert np.array_equal(draw(colour), colour.transpose(1, 2, 0))


def test_an_environment_without_a_picture_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="several games at once, and shows no picture"):
        single_game(game("toy_envs:walks"), RULES)
    monkeypatch.setattr(Walk, "metadata", {"render_modes": ["human"]})
    with pytest.raises(UsageError, match="has no picture: its render_modes are without rgb_array"):
        single_game(game("toy_envs:Walk"), RULES)


def test_a_picture_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    single = single_game(game("toy_envs:Walk"), RULES)
    monkeypatch.setattr(Walk, "render", lambda self: None)
    with pytest.raises(UsageError, match=r"drew no picture: render\(\) gave NoneType"):
        single.reset(seed=1)
    monkeypatch.setattr(Walk, "render", lambda self: 1 / 0)
    with pytest.raises(UsageError, match="cannot draw its picture: division by zero"):
        single.reset(seed=1)


def test_the_reset_with_a_seed_makes_an_environment_anew() -> None:
    """Some keep something from game to game that no seed resets."""
    env = make_env(game("toy_envs:Keeping"), 1, RULES)
    seen = []
    for _ in range(2):
        frames = [env.reset(np.array([1])).copy()]
        for _ in range(5):
            env.send(np.array([1]))
            frames.append(env.receive().frame.copy())
        seen.append(np.concatenate(frames))
    assert np.array_equal(*seen)


def test_repeats_is_in_the_spec() -> None:
    walk = game("toy_envs:Walk", repeats=False)
    assert not spec_of(walk, RULES).repeats
    assert not make_env(walk, 1, RULES).spec.repeats
    assert make_env(dataclasses.replace(walk, repeats=True), 1, RULES).spec.repeats
