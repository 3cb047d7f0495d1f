"""Prioritized replay against numbers worked out by hand, and against a naive list of priorities."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from replay_model import CPU, GAMMA, LIFE_LOST, PLAIN, TIME_LIMIT, Model, naive_n_step, transitions

from wn_dqn.config.files import make_settings
from wn_dqn.envs.catch import SPEC
from wn_dqn.errors import RunError
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.prioritized import PrioritizedReplay
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn.runs.parts import make_sampler


def minibatch(replay: ReplayBuffer, size: int, beta: float = 1.0, seed: int = 0) -> TransitionBatch:
    (batch,) = replay.minibatches(np.random.default_rng(seed), size, 1, beta)
    return batch


def newest_frames(batch: TransitionBatch) -> list[int]:
    """The number of the newest frame of each observation, which says which transition it is."""
    return [row[0][-1] for row in transitions(batch)]


def four_transitions() -> tuple[Model, PrioritizedReplay]:
    """Transitions 1 to 4 of one game: |TD error| + 0.25 is 1, 4, 9, 16, alpha is 1/2."""
    model, replay = (
        Model(capacity=10, num_envs=1),
        PrioritizedReplay(SPEC, 10, 1, GAMMA, CPU, 1, exponent=0.5, epsilon=0.25),
    )
    model.buffers = [replay]
    model.begin()
    for _ in range(4):
        model.step([PLAIN])
    assert newest_frames(minibatch(replay, 4)) == [1, 2, 3, 4]  # one from each quarter, and all are equal
    replay.update_priorities(torch.tensor([0.75, -3.75, 8.75, -15.75]))
    return model, replay


@pytest.mark.parametrize(
    ("beta", "weights"), [(1.0, [1, 1 / 2, 1 / 3, 1 / 4]), (0.5, [1, 2**-0.5, 3**-0.5, 1 / 2]), (0.0, [1, 1, 1, 1])]
)
def test_probabilities_and_weights_by_hand(beta: float, weights: list[float]) -> None:
    """p^alpha is 1, 2, 3, 4: of ten equal ranges of the sum the transitions have 1, 2, 3, 4."""
    _, replay = four_transitions()
    batch = minibatch(replay, 10, beta)
    assert newest_frames(batch) == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert batch.weight is not None
    assert batch.weight.dtype == torch.float32
    expected = [weight for i, weight in enumerate(weights, start=1) for _ in range(i)]
    assert batch.weight.tolist() == pytest.approx(expected, rel=1e-6)
    assert replay.metrics() == {"replay/max_priority": 16.0, "replay/evenness": pytest.approx(100 / (4 * 30))}


def test_a_new_transition_has_the_largest_priority_so_far() -> None:
    """p^alpha is then 1, 2, 3, 4, 4; also when the largest is no longer there."""
    model, replay = four_transitions()
    model.step([LIFE_LOST])
    assert Counter(newest_frames(minibatch(replay, 14))) == {1: 1, 2: 2, 3: 3, 4: 4, 5: 4}
    replay.update_priorities(torch.zeros(14))  # p = 0.25: p^alpha = 1/2
    model.step([PLAIN])
    assert Counter(newest_frames(minibatch(replay, 13))) == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 8}


def test_weights_are_relative_to_the_largest_of_their_minibatch() -> None:
    """Without the transitions that are drawn least, the others count more."""
    _, replay = four_transitions()
    seeds = [seed for seed in range(50) if newest_frames(minibatch(replay, 2, seed=seed)) == [3, 4]]
    assert seeds
    batch = minibatch(replay, 2, seed=seeds[0])
    assert batch.weight is not None
    assert batch.weight.tolist() == pytest.approx([1.0, 3 / 4])


def test_draws_have_the_probabilities() -> None:
    _, replay = four_transitions()
    generator = np.random.default_rng(0)
    batches = list(replay.minibatches(generator, 3, 2000, 1.0))
    counts = Counter(number for batch in batches for number in newest_frames(batch))
    assert all(len(newest_frames(batch)) == 3 for batch in batches)
    chi_square = sum((counts[i] - 600 * i) ** 2 / (600 * i) for i in (1, 2, 3, 4))
    assert chi_square < 16.3, "the 99.9% quantile with 3 degrees of freedom; stratified, they spread less"
    first = Counter(newest_frames(batch)[0] for batch in batches)
    assert first.keys() == {1, 2, 3}, "the first third of the sum"


def test_a_minibatch_sees_the_priorities_that_the_one_before_has_left() -> None:
    _, replay = four_transitions()
    seen = []
    for batch in replay.minibatches(np.random.default_rng(0), 10, 2, 1.0):
        seen.append(newest_frames(batch))
        replay.update_priorities(torch.zeros(10))
    assert Counter(seen[0]) == {1: 1, 2: 2, 3: 3, 4: 4}
    assert min(Counter(seen[1]).values()) >= 2, "four equal priorities: each has two and a half ranges"


class Priorities:
    """The naive model: the priority of each transition that can be drawn, by the number of its newest frame."""

    def __init__(self, model: Model, n_steps: int, epsilon: float) -> None:
        self.model, self.n_steps, self.epsilon = model, n_steps, epsilon
        self.of: dict[int, float] = {}
        self.largest = 1.0

    def catch_up(self) -> None:
        rows = set().union(*(naive_n_step(list(ring), self.n_steps) for ring in self.model.rings))
        self.of = {row[0][-1]: self.of.get(row[0][-1], self.largest) for row in rows}

    def update(self, numbers: list[int], td_error: torch.Tensor) -> None:
        for number, error in zip(numbers, td_error.tolist(), strict=True):
            self.of[number] = abs(error) + self.epsilon
            self.largest = max(self.largest, self.of[number])


def stored(replay: PrioritizedReplay) -> dict[int, float]:
    """p^alpha of what can be drawn, by the number of the newest frame."""
    values, slots = replay.state_dict()["values"], range(replay.oldest_stored(), replay.num_appended)
    frames = replay.read(slots.start, slots.stop)["frames"][:, :, 0, :4].copy().view(np.uint32)[..., 0]
    in_order = values[:, np.array(slots) % replay.num_slots]
    assert np.count_nonzero(in_order) == np.count_nonzero(values)
    return dict(zip(frames[in_order > 0.0].tolist(), in_order[in_order > 0.0].tolist(), strict=True))


@given(
    num_envs=st.integers(1, 3),
    capacity=st.integers(1, 24),
    n_steps=st.integers(1, 5),
    beta=st.floats(0, 1),
    num_turns=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_priorities_are_those_of_a_naive_model(
    num_envs: int, capacity: int, n_steps: int, beta: float, num_turns: int, seed: int
) -> None:
    """Of just the transitions that can be drawn, at every ring wrap, whenever TD errors arrive; and a copy goes on."""
    model, rng = Model(capacity, num_envs), np.random.default_rng(seed)
    replay = PrioritizedReplay(SPEC, capacity, num_envs, GAMMA, CPU, n_steps, exponent=0.6, epsilon=0.01)
    model.buffers = [replay]
    model.begin()
    naive = Priorities(model, n_steps, 0.01)
    for _ in range(num_turns):
        model.play(rng, int(rng.integers(1, 4)))
        naive.catch_up()
        assert stored(replay) == pytest.approx({number: p**0.6 for number, p in naive.of.items()}, rel=1e-12)
        if not naive.of:
            with pytest.raises(ValueError, match=r"no .*transition.* to draw"):
                minibatch(replay, 1)
            continue
        rows = set().union(*(naive_n_step(list(ring), n_steps) for ring in model.rings))
        for batch in replay.minibatches(rng, 5, int(rng.integers(0, 3)), beta):
            assert set(transitions(batch)) <= rows
            drawn = np.array([naive.of[number] for number in newest_frames(batch)])
            probability = drawn**0.6 / sum(p**0.6 for p in naive.of.values())
            weight = (len(naive.of) * probability) ** -beta
            assert batch.weight is not None
            assert batch.weight.tolist() == pytest.approx((weight / weight.max()).tolist(), rel=1e-6)
            td_error = torch.from_numpy(rng.normal(size=5) * 3)
            replay.update_priorities(td_error)
            naive.update(newest_frames(batch), td_error)
    copy = PrioritizedReplay(SPEC, capacity, num_envs, GAMMA, CPU, n_steps, exponent=0.6, epsilon=0.01)
    state = replay.state_dict()
    copy.write(replay.oldest_stored(), replay.read(replay.oldest_stored(), replay.num_appended))
    copy.finish_restoring(replay.num_appended)
    copy.load_state_dict(state | {"values": torch.from_numpy(state["values"].copy())})
    model.buffers.append(copy)
    model.play(rng, capacity)
    assert stored(copy) == stored(replay)
    if stored(copy):
        assert transitions(minibatch(copy, 20)) == transitions(minibatch(replay, 20))


def test_an_update_before_the_slot_is_overwritten_counts_for_what_was_drawn() -> None:
    """TD errors that arrive late do not fall to the transition that has taken the place."""
    model, replay = (
        Model(capacity=1, num_envs=1),
        PrioritizedReplay(SPEC, 1, 1, GAMMA, CPU, 1, exponent=1.0, epsilon=0.5),
    )
    model.buffers = [replay]
    model.begin()
    for _ in range(20):
        model.step([PLAIN])
        minibatch(replay, 1)
        replay.update_priorities(torch.tensor([0.125]))
    model.step([TIME_LIMIT])
    model.step([PLAIN])
    assert list(stored(replay).values()) == [1.0], "new, and 1 is the largest so far"


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_a_td_error_that_is_not_finite_ends_the_run(error: float) -> None:
    _, replay = four_transitions()
    minibatch(replay, 2)
    replay.update_priorities(torch.tensor([0.5, error]))
    with pytest.raises(RunError, match="a TD error is NaN or infinite"):
        minibatch(replay, 2)


def test_the_priorities_of_another_buffer_are_refused() -> None:
    _, replay = four_transitions()
    with pytest.raises(ValueError, match="another shape"):
        replay.load_state_dict({"values": torch.zeros(2, 14), "max_priority": 1.0})


@pytest.mark.parametrize("n_steps", [1, 3])
def test_without_an_exponent_the_replay_is_the_uniform_one(n_steps: int) -> None:
    """The same minibatches from the same random numbers, without weights, and nothing to save or to tell."""
    data: dict[str, Any] = {"game": "Catch", "learning": {"n_steps": n_steps}}
    sections = ({"capacity": 50_000, "priority_exponent": exponent} for exponent in (0.0, 0.5))
    uniform, prioritized = (
        make_sampler(make_settings({**data, "replay": section}), SPEC, CPU).replay for section in sections
    )
    assert type(uniform) is ReplayBuffer
    assert type(prioritized) is PrioritizedReplay
    assert prioritized.n_steps == n_steps
    small = Model(capacity=20, num_envs=2)
    small.buffers = [ReplayBuffer(SPEC, 20, 2, GAMMA, CPU, n_steps)]
    small.play(np.random.default_rng(0), 30)
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    drawn, sampled = small.buffers[0].minibatches(one, 6, 3, 0.5), small.buffers[0].sample(other, 6, 3)
    for batch, expected in zip(drawn, sampled, strict=True):
        assert batch.weight is None
        assert transitions(batch) == transitions(expected)
        small.buffers[0].update_priorities(torch.ones(6))
    assert one.bit_generator.state == other.bit_generator.state
    assert small.buffers[0].state_dict() == small.buffers[0].metrics() == {}
