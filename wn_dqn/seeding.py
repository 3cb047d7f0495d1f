"""One seed, independent named streams. Nothing in this package draws from a global generator."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Stream = Literal["environment", "exploration", "replay", "init", "evaluation", "noise", "curvature"]
# A stream's number is part of every result: append, never renumber.
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
    """The seed sequence of a named stream; `key` (an epoch, say) picks a substream without any state to save."""
    return np.random.SeedSequence(seed, spawn_key=(_STREAMS[stream], *key))


def numpy_generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """A PCG64 generator of its own for a named stream."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, stream, *key)))


def torch_generator(seed: int, stream: Stream, *key: int) -> torch.Generator:
    """A CPU generator of its own for a named stream."""
    state = seed_sequence(seed, stream, *key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def env_seeds(seed: int, stream: Stream, *key: int, num_envs: int) -> NDArray[np.int64]:
    """Seeds [num_envs] in [0, 2^31) for the emulators, which take no larger ones."""
    return (seed_sequence(seed, stream, *key).generate_state(num_envs, np.uint32) >> 1).astype(np.int64)
