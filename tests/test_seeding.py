"""Named random streams: repeatable, independent, and the same on every machine."""

from __future__ import annotations

import random
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch

from wn_dqn.seeding import Stream, env_seeds, numpy_generator, seed_sequence, torch_generator

STREAMS: tuple[Stream, ...] = get_args(Stream)
GOLDEN = {
    "environment": [15370, 699034, 828555],
    "exploration": [941193, 475764, 143752],
    "replay": [426585, 233168, 37758],
    "init": [182503, 114124, 557869],
    "evaluation": [750458, 611030, 775633],
    "noise": [273935, 282975, 470261],
    "curvature": [233843, 587698, 401798],
}


@pytest.mark.parametrize("key", [(), (3,), (3, 1)])
def test_equal_names_give_equal_numbers(key: tuple[int, ...]) -> None:
    for _ in range(2):  # whatever was drawn before
        np.testing.assert_array_equal(
            numpy_generator(5, "replay", *key).random(9), numpy_generator(5, "replay", *key).random(9)
        )
        assert torch.equal(
            torch.rand(9, generator=torch_generator(5, "init", *key)),
            torch.rand(9, generator=torch_generator(5, "init", *key)),
        )
        seeds = env_seeds(5, "environment", *key, num_envs=9)
        np.testing.assert_array_equal(seeds, env_seeds(5, "environment", *key, num_envs=9))


def test_seeds_streams_and_keys_all_give_other_numbers() -> None:
    names = list(product((0, 1, 2**32, 2**32 + 1, 2**63 - 1), STREAMS, ((), (0,), (1,), (0, 0), (0, 1), (1, 0))))
    sequences = {tuple(seed_sequence(seed, stream, *key).generate_state(4)) for seed, stream, key in names}
    drawn = {tuple(numpy_generator(seed, stream, *key).integers(2**60, size=2)) for seed, stream, key in names}
    initial = {torch_generator(seed, stream, *key).initial_seed() for seed, stream, key in names}
    first = {env_seeds(seed, stream, *key, num_envs=3).tobytes() for seed, stream, key in names}
    assert len(sequences) == len(drawn) == len(initial) == len(first) == len(names)


def test_streams_keep_their_numbers_for_ever() -> None:
    """Every published result depends on these: a change of any is a change of all experiments."""
    assert {stream: numpy_generator(1, stream).integers(1_000_000, size=3).tolist() for stream in STREAMS} == GOLDEN
    assert torch_generator(1, "init").initial_seed() == 5220146013781160048
    assert env_seeds(1, "environment", num_envs=3).tolist() == [820705584, 981596106, 670371964]
    assert numpy_generator(1, "evaluation", 7).integers(1_000_000) == 806899


@pytest.mark.parametrize("num_envs", [1, 1024])
def test_env_seeds_are_what_the_emulators_take(num_envs: int) -> None:
    seeds = env_seeds(0, "environment", num_envs=num_envs)
    assert seeds.shape == (num_envs,)
    assert seeds.dtype == np.int64
    assert seeds.min() >= 0
    assert seeds.max() < 2**31
    assert len(set(seeds.tolist())) == num_envs
    assert num_envs == 1 or seeds.max() > 2**30  # all of the range is used


def test_global_generators_are_neither_read_nor_advanced() -> None:
    def draw() -> list[float]:
        return [numpy_generator(0, "replay").random(), torch.rand((), generator=torch_generator(0, "init")).item()]

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    first = draw()
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert before[1][2] == after[1][2]
    np.testing.assert_array_equal(before[1][1], after[1][1])
    assert torch.equal(before[2], after[2])
    torch.rand(1), random.random()
    assert draw() == first
