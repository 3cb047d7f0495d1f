"""The replay buffer against a naive model that keeps every transition whole, and against the games' own stacks."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from replay_model import (
    CPU,
    GAMMA,
    LIFE_LOST,
    PLAIN,
    TIME_LIMIT,
    Model,
    naive_n_step,
    numbers,
    transitions,
)
from stacked import Stacked

from wn_dqn.envs.atari import AtariEnv
from wn_dqn.envs.catch import SPEC, Catch
from wn_dqn.envs.rules import EnvRules
from wn_dqn.replay.buffer import ReplayBuffer


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for each other make small gathers thirty times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ReplayMachine(RuleBasedStateMachine):
    """Whatever games do, the buffer holds, shows and draws what the model holds."""

    @initialize(num_envs=st.integers(1, 4), capacity=st.integers(1, 24), seed=st.integers(0, 2**32 - 1))
    def make(self, num_envs: int, capacity: int, seed: int) -> None:
        self.model = Model(capacity, num_envs)
        self.generator = np.random.default_rng(seed)
        self.model.begin()

    @rule(events=st.lists(st.tuples(*[st.integers(PLAIN, TIME_LIMIT)] * 4), min_size=1, max_size=20))
    def play_events(self, events: list[tuple[int, ...]]) -> None:
        for row in events:
            self.model.step(list(row[: len(self.model.rings)]))
            self.agrees()

    @rule(num_steps=st.integers(1, 9))
    def play_on(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.model.step([PLAIN] * len(self.model.rings))
            self.agrees()

    @rule()
    def begin(self) -> None:
        self.model.begin()

    @rule()
    def draw_everything(self) -> None:
        held = self.model.held()
        if held:  # each is missed with probability exp(-30)
            (batch,) = self.model.buffers[0].sample(self.generator, 30 * len(held))
            assert set(transitions(batch)) == set(held)

    @invariant()
    def agrees(self) -> None:
        model, buffer = self.model, self.model.buffers[0]
        held = model.held()
        assert buffer.num_transitions == len(held)
        assert numbers(buffer.latest_observation()) == model.stacks
        if held:
            (batch,) = buffer.sample(self.generator, 4)
            assert set(transitions(batch)) <= set(held)
        else:
            with pytest.raises(ValueError, match="no transition"):
                buffer.sample(self.generator, 4)


TestReplayMachine = ReplayMachine.TestCase
TestReplayMachine.settings = settings(suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(("batch_size", "num_batches", "calls"), [(400, 20, 1), (400, 1, 20)])
def test_draws_are_uniform_over_what_is_not_cut(batch_size: int, num_batches: int, calls: int) -> None:
    """Also just after cut ones, and whether batches are drawn together or one by one."""
    model = Model(capacity=30, num_envs=3)
    model.play(np.random.default_rng(1), 57)
    held = model.held()
    assert 15 <= len(held) <= 25, "this seed should cut some transitions, not all"
    generator = np.random.default_rng(2)
    batches = [batch for _ in range(calls) for batch in model.buffers[0].sample(generator, batch_size, num_batches)]
    assert len(batches) == 20
    drawn = [transitions(batch) for batch in batches]
    assert all(a != b for a, b in itertools.pairwise(drawn))
    counts = Counter(itertools.chain(*drawn))
    assert counts.keys() == set(held)
    expected = 20 * batch_size / len(held)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 51.2, "the 99.9% quantile with 24 degrees of freedom"


def test_equal_generators_draw_equal_batches() -> None:
    model = Model(capacity=30, num_envs=3)
    model.play(np.random.default_rng(1), 57)
    a, b = ([transitions(t) for t in model.buffers[0].sample(np.random.default_rng(3), 5, 4)] for _ in range(2))
    assert a == b
    assert [len(batch) for batch in a] == [5] * 4


def test_no_batches_consume_no_randomness() -> None:
    buffer = ReplayBuffer(SPEC, 8, 2, GAMMA, CPU)
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    assert list(buffer.sample(generator, 32, 0)) == []
    assert generator.bit_generator.state == before


def test_an_empty_buffer_cannot_be_sampled() -> None:
    model = Model(capacity=2, num_envs=2)
    with pytest.raises(ValueError, match="no transition"):
        model.buffers[0].sample(np.random.default_rng(0), 1)
    model.begin()
    model.step([TIME_LIMIT, TIME_LIMIT])
    with pytest.raises(ValueError, match="no transition"):
        model.buffers[0].sample(np.random.default_rng(0), 1)


def test_batches_show_the_transitions_as_they_were_when_drawn() -> None:
    """A batch that was taken is a copy: games that go on do not change it."""
    model = Model(capacity=4, num_envs=1)
    model.play(np.random.default_rng(0), 6)
    (batch,) = model.buffers[0].sample(np.random.default_rng(0), 8)
    before = transitions(batch)
    model.play(np.random.default_rng(1), 20)
    assert transitions(batch) == before


@pytest.mark.parametrize("num_envs", [1, 8, 64])
def test_a_million_transitions_fit_in_7_3_gb(num_envs: int) -> None:
    assert ReplayBuffer.memory_bytes(SPEC, 1_000_000, num_envs) <= 7.3e9


@pytest.mark.parametrize(("capacity", "num_envs"), [(1, 1), (10, 4), (33, 8)])
def test_memory_bytes_is_what_the_arrays_occupy(capacity: int, num_envs: int) -> None:
    buffer = ReplayBuffer(SPEC, capacity, num_envs, GAMMA, CPU)
    owned = [*vars(buffer).values(), *vars(buffer.frames).values()]
    tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in owned if torch.is_tensor(t)}
    arrays = sum(array.nbytes for array in owned if isinstance(array, np.ndarray))
    constant = 8 * num_envs  # where each ring begins
    assert sum(tensors.values()) + arrays == ReplayBuffer.memory_bytes(SPEC, capacity, num_envs) + constant


def assert_same(a: ReplayBuffer, b: ReplayBuffer) -> None:
    """Both show and draw the same."""
    assert (a.num_appended, a.num_transitions) == (b.num_appended, b.num_transitions)
    assert torch.equal(a.latest_observation(), b.latest_observation())
    if a.num_transitions:
        drawn = [next(buffer.sample(np.random.default_rng(0), 64)) for buffer in (a, b)]
        assert transitions(drawn[0]) == transitions(drawn[1])


@given(
    num_envs=st.integers(1, 3),
    capacity=st.integers(1, 20),
    num_steps=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_a_buffer_put_together_again_from_any_pieces_goes_on_as_if_nothing_had_been(
    num_envs: int, capacity: int, num_steps: int, seed: int, data: st.DataObject
) -> None:
    model = Model(capacity, num_envs)
    rng = np.random.default_rng(seed)
    model.play(rng, num_steps)
    original, copy = model.buffers[0], ReplayBuffer(SPEC, capacity, num_envs, GAMMA, CPU)
    first, end = original.oldest_stored(), original.num_appended
    splits = data.draw(st.sets(st.integers(first, end)), label="splits")
    for start, stop in data.draw(st.permutations(list(itertools.pairwise(sorted({first, end} | splits))))):
        copy.write(start, original.read(start, stop))
    copy.finish_restoring(end)
    assert_same(original, copy)
    model.buffers.append(copy)
    for _ in range(3):
        model.play(rng, capacity // 2 + 1)
        assert_same(original, copy)


def play_randomly(env: Stacked, capacity: int, num_steps: int) -> int:
    """Play, holding the buffer's stacks against the environment's own; returns how many games ended."""
    buffer = ReplayBuffer(SPEC, capacity, env.num_envs, GAMMA, CPU)
    rng = np.random.default_rng(0)
    obs = env.reset(np.arange(env.num_envs))
    buffer.begin(obs[:, -1])
    ended = 0
    for _ in range(num_steps):
        assert np.array_equal(buffer.latest_observation().numpy(), obs)
        action = rng.integers(env.num_actions, size=env.num_envs)
        env.send(action)
        step = env.receive()
        over = step.terminated | step.truncated
        buffer.append(action, step.reward, step.terminal, step.truncated & ~step.terminated, step.obs[:, -1], over)
        obs = step.obs
        ended += int(over.sum())
    return ended


@pytest.mark.parametrize(
    ("rom_id", "num_envs", "max_game_frames", "num_steps"),
    [("breakout", 4, None, 350), ("space_invaders", 3, None, 500), ("breakout", 2, 100, 120)],
)
def test_atari_stacks_are_the_environments_own(
    rom_id: str, num_envs: int, max_game_frames: int | None, num_steps: int
) -> None:
    """Also where games end or are cut, and while the ring wraps around."""
    env = Stacked(AtariEnv(rom_id, num_envs, EnvRules(max_game_frames=max_game_frames), num_threads=1))
    assert play_randomly(env, capacity=50 * num_envs, num_steps=num_steps) >= num_envs


def test_catch_stacks_are_the_environments_own() -> None:
    assert play_randomly(Stacked(Catch(3)), capacity=10, num_steps=50) > 3


@given(
    num_envs=st.integers(1, 3),
    capacity=st.integers(1, 24),
    n_steps=st.integers(1, 5),
    num_steps=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_n_step_transitions_are_those_of_a_naive_model(
    num_envs: int, capacity: int, n_steps: int, num_steps: int, seed: int
) -> None:
    """All of them and no others, at every ring wrap; powers of gamma = 3/4 are exact."""
    model, rng = Model(capacity, num_envs), np.random.default_rng(seed)
    model.buffers = [ReplayBuffer(SPEC, capacity, num_envs, GAMMA, CPU, n_steps)]
    model.play(rng, num_steps)
    expected = set().union(*(naive_n_step(list(ring), n_steps) for ring in model.rings))
    if expected:
        (batch,) = model.buffers[0].sample(rng, 30 * len(expected))
        assert set(transitions(batch)) == expected
    else:
        with pytest.raises(ValueError, match=r"no .*transition.* to draw"):
            model.buffers[0].sample(rng, 1)


def test_three_steps_by_hand() -> None:
    """Rewards 0, 1, -1, 0, 1 of one game whose fourth transition is terminal; gamma is 3/4."""
    model = Model(capacity=8, num_envs=1)
    model.buffers = [ReplayBuffer(SPEC, 8, 1, GAMMA, CPU, n_steps=3)]
    model.begin()
    for event in (PLAIN, PLAIN, PLAIN, LIFE_LOST, PLAIN):
        model.step([event])
    (batch,) = model.buffers[0].sample(np.random.default_rng(0), 200)
    assert {row[0][-1]: row[2:4] for row in transitions(batch)} == {
        1: (0 + 0.75 * 1 - 0.5625 * 1, 0.421875),
        2: (1 - 0.75 * 1 + 0.5625 * 0, 0.0),
        3: (-1 + 0.75 * 0, 0.0),
        4: (0.0, 0.0),
    }
