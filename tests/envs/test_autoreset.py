"""Gymnasium's three autoreset modes give the same transitions from the same games, into the replay and out of it."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from counting import Counted, End, Layout, Place, action_at, counting_vector, observation
from gymnasium.vector import AutoresetMode
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wn_dqn.envs.gymnasium_env import GymnasiumEnv
from wn_dqn.envs.gymnasium_spaces import read_observation_space
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.prioritized import PrioritizedReplay
from wn_dqn.replay.transitions import TransitionBatch

CPU = torch.device("cpu")
GAMMA = 0.5
Games = list[list[tuple[int, End]]]
Stack = tuple[Place | None, ...]
"""frames by their place, the oldest first; None from before the game"""
Transition = tuple[Stack, int, float, float, Stack | None]
"""obs, action, reward, discount, next obs or None where nothing follows"""

ONE_GAME = st.tuples(st.integers(1, 4), st.sampled_from(["terminated", "truncated", "both"]))
GAMES = st.lists(st.lists(ONE_GAME, min_size=1, max_size=4), min_size=1, max_size=3)
LAYOUTS = st.sampled_from(["vector", "image", "channels first", "channels last"])
MODES = st.sampled_from(list(AutoresetMode))


class Played(NamedTuple):
    """A replay that games were played into, and what should be in it."""

    replay: ReplayBuffer
    rings: list[deque[Any]]
    """[N], the last steps as :meth:`Counted.step` gives them; None where a step was skipped"""
    stack: int
    layout: Layout

    def stack_at(self, place: Place) -> Stack:
        number, game, count = place
        return tuple((number, game, at) if at >= 1 else None for at in range(count - self.stack + 1, count + 1))

    def expected(self) -> list[Transition]:
        """Every row of n transitions, one for each step that begins one."""
        found = []
        for ring in self.rings:
            for start, first in enumerate(ring):
                total, factor = 0.0, 1.0
                for number in range(self.replay.n_steps):
                    step = ring[start + number] if start + number < len(ring) else None
                    if first is None or step is None:
                        break
                    _, _, reward, end, after = step
                    total += factor * reward
                    factor *= 0.0 if end in ("terminated", "both") else GAMMA
                    if end is not None or number == self.replay.n_steps - 1:
                        obs, following = self.stack_at(first[0]), self.stack_at(after) if factor else None
                        found.append((obs, first[1], round(total, 4), factor, following))
                        break
        return found

    def drawn(self, batch: TransitionBatch) -> list[Transition]:
        rows = zip(
            self.read(batch.obs), *(part.tolist() for part in batch[1:4]), self.read(batch.next_obs), strict=True
        )
        return [(o, a, round(r, 4), d, n if d > 0 else None) for o, a, r, d, n in rows]

    def read(self, obs: torch.Tensor) -> list[Stack]:
        """Observations [B, *obs_shape] as the model writes them."""
        channels = self.replay.spec.frame_shape[0]
        return [tuple(map(self.place, torch.split(one, channels))) for one in obs]

    def place(self, frame: torch.Tensor) -> Place | None:
        """The place that `frame` shows; it must be that frame in every number."""
        array = frame.numpy()
        if not array.any():
            return None
        raw = np.moveaxis(array, 0, 2) if self.layout == "channels last" else array
        number, game, count = (int(value) for value in raw.reshape(-1)[:3])
        expected = observation((number, game, count), self.layout)
        assert np.array_equal(raw.reshape(-1), expected.reshape(-1)), "a frame is torn"
        return number, game, count


def play(
    mode: AutoresetMode,
    games: Games,
    num_steps: int,
    capacity: int,
    n_steps: int = 1,
    stack: int = 1,
    layout: Layout = "vector",
    prioritized: bool = False,
) -> Played:
    vector = counting_vector(games, mode, layout)
    reading = read_observation_space("Counting", vector.single_observation_space)
    spec = EnvSpec("Counting", reading.frame_shape, reading.frame_dtype, stack, ("a", "b", "c"))
    env = GymnasiumEnv(vector, spec)
    shape = (spec, capacity, len(games), GAMMA, CPU, n_steps)
    replay = PrioritizedReplay(*shape, 0.5, 1e-6) if prioritized else ReplayBuffer(*shape)
    counted = [Counted(number, own) for number, own in enumerate(games, 1)]
    rings: list[deque[Any]] = [deque(maxlen=replay.capacity_per_env) for _ in games]
    played = Played(replay, rings, stack, layout)
    replay.begin(env.reset(np.arange(len(games))))
    ended = [False] * len(games)
    for _ in range(num_steps):
        newest = [obs[-1] for obs in played.read(replay.latest_observation())]
        action = np.array([0 if place is None else action_at(place) for place in newest])
        env.send(action)
        step = env.receive()
        for ring, each, over, number in zip(rings, counted, ended, range(len(games)), strict=True):
            skipped = mode is AutoresetMode.NEXT_STEP and over
            ring.append(None if skipped else each.step())
            ended[number] = not skipped and ring[-1][3] is not None
        assert step.over.tolist() == ended
        truncated = step.truncated & ~step.terminated
        replay.append(
            action,
            step.reward,
            step.terminal,
            truncated,
            step.frame,
            step.new_game,
            step.final_frame,
            step.skipped,
        )
    return played


@given(
    mode=MODES,
    games=GAMES,
    num_steps=st.integers(1, 30),
    capacity=st.integers(1, 24),
    n_steps=st.integers(1, 4),
    stack=st.integers(1, 3),
    layout=LAYOUTS,
    prioritized=st.booleans(),
)
def test_the_replay_holds_the_transitions_of_the_games(
    mode: AutoresetMode,
    games: Games,
    num_steps: int,
    capacity: int,
    n_steps: int,
    stack: int,
    layout: Layout,
    prioritized: bool,
) -> None:
    """All of them, with the observation that a truncated game ended in, and no others."""
    played = play(mode, games, num_steps, capacity, n_steps, stack, layout, prioritized)
    expected = played.expected()
    if isinstance(played.replay, PrioritizedReplay):
        assert np.count_nonzero(played.replay._tree.values) == len(expected)
    if not expected:
        with pytest.raises(ValueError, match="holds no"):
            played.replay.sample(np.random.default_rng(0), 1)
        return
    (batch,) = played.replay.sample(np.random.default_rng(0), 30 * len(expected))  # each is missed with exp(-30)
    assert set(played.drawn(batch)) == set(expected)


@given(games=GAMES, num_steps=st.integers(1, 30), n_steps=st.integers(1, 3))
def test_all_modes_give_the_same_transitions(games: Games, num_steps: int, n_steps: int) -> None:
    """Of the steps that all have played: beginning a game takes a step of its own in one of them."""
    found = []
    for mode in AutoresetMode:
        played = play(mode, games, num_steps, 40 * len(games), n_steps)
        kept = [[step for step in ring if step is not None][: num_steps // 2] for ring in played.rings]
        places = {step[0] for ring in kept for step in ring}
        expected = played.expected()
        if expected:
            (batch,) = played.replay.sample(np.random.default_rng(0), 30 * len(expected))
            found.append({row for row in played.drawn(batch) if {*row[0], *(row[4] or row[0])} <= places})
        else:
            found.append(set())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_truncation_at_the_wrap_of_the_ring(mode: AutoresetMode) -> None:
    """Whichever slot it falls into."""
    for num_steps in range(1, 25):
        played = play(mode, [[(3, "truncated")]], num_steps, capacity=5, stack=2)
        expected = played.expected()
        if expected:
            (batch,) = played.replay.sample(np.random.default_rng(0), 30 * len(expected))
            assert set(played.drawn(batch)) == set(expected)


@given(mode=MODES, games=GAMES, num_steps=st.integers(1, 30), capacity=st.integers(1, 12), prioritized=st.booleans())
def test_a_replay_that_was_put_back_draws_the_same(
    mode: AutoresetMode, games: Games, num_steps: int, capacity: int, prioritized: bool
) -> None:
    original = play(mode, games, num_steps, capacity, n_steps=2, prioritized=prioritized).replay
    shape = (original.spec, capacity, len(games), GAMMA, CPU, 2)
    copy = PrioritizedReplay(*shape, 0.5, 1e-6) if prioritized else ReplayBuffer(*shape)
    first, end = original.oldest_stored(), original.num_appended
    copy.write(first, original.read(first, end))
    copy.finish_restoring(end)
    copy.load_state_dict(original.state_dict())
    assert copy.num_transitions == original.num_transitions
    try:
        batches = [list(each.minibatches(np.random.default_rng(0), 50, 2, 0.5)) for each in (original, copy)]
    except ValueError:
        return
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None)


def test_the_final_frames_of_another_replay_are_refused() -> None:
    replay = play(AutoresetMode.SAME_STEP, [[(2, "truncated")]], 5, 10).replay
    state = replay.state_dict()
    smaller = ReplayBuffer(replay.spec, 2, 1, GAMMA, CPU)
    with pytest.raises(ValueError, match="another shape"):
        smaller.load_state_dict(state)
    with pytest.raises(ValueError, match="another shape"):
        replay.load_state_dict({**state, "final_frames": state["final_frames"][:, :2]})


def test_final_frames_leave_with_their_transitions() -> None:
    """The memory is that of the truncated transitions that are held, however many there were."""
    replay = play(AutoresetMode.SAME_STEP, [[(1, "truncated")]], 1000, 10).replay
    assert len(replay.state_dict()["final_frames"]) == 10
    assert len(replay._final._frames) == 64


def test_an_environment_that_says_nothing_of_how_a_game_ended_is_not_learned_from_there() -> None:
    """Some vector environments have no `final_obs`: a truncated transition is then not drawn."""
    vector = counting_vector([[(3, "truncated")]], AutoresetMode.SAME_STEP)
    env = GymnasiumEnv(vector, EnvSpec("Counting", (3,), "float32", 1, ("a", "b", "c")))
    env.reset(np.array([0]))
    step = vector.step

    def without_final_obs(actions: NDArray[np.int64]) -> Any:
        return *step(actions)[:4], {}

    vector.step = without_final_obs
    for count in (1, 2, 3):
        env.send(np.array([action_at((1, 1, count))]))
        outcome = env.receive()
    assert outcome.truncated.all()
    assert outcome.final_frame is None
