"""Independent named random streams from one seed. This package never draws from a global generator."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Stream = Literal["environment", "exploration", "replay", "init", "evaluation", "noise", "curvature"]
# Results depend on a stream's number: append streams, never renumber them.
_STREAMS: dict[Stream, int] = {
    "environment": 0,
    "exploration": 1,
    "replay": 2,
    "init": 3,
    "evaluation": 4,
    "noise": 5,
    "curvature": 6,
}


def seed_sequence(seed: int, stream: Stream, *key: int) -> np.random.SeedSequence:
    """The seed sequence of a named stream. `key`, for instance an epoch, selects a substream, so no state is saved."""
    return np.random.SeedSequence(seed, spawn_key=(_STREAMS[stream], *key))


def numpy_generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """A new PCG64 generator for a named stream."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, stream, *key)))


def torch_generator(seed: int, stream: Stream, *key: int) -> torch.Generator:
    """A new CPU generator for a named stream."""
    state = seed_sequence(seed, stream, *key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def env_seeds(seed: int, stream: Stream, *key: int, num_envs: int) -> NDArray[np.int64]:
    """Seeds [num_envs] in [0, 2^31), the range that the emulators accept."""
    return (seed_sequence(seed, stream, *key).generate_state(num_envs, np.uint32) >> 1).astype(np.int64)
