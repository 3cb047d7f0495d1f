"""Computes the memory of a run's replay, and decides whether its frames are compressed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from wn_dqn.config.games import Game, game_of
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import make_env
from wn_dqn.envs.rules import EnvRules, training_rules
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.frame_stores import CompressedFrames
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.system.hardware import GIB, available_memory_bytes

MARGIN = 1.5
"""a compressed frame of a trained agent's games may be this many times as large as one of random play"""
_SAMPLED_STEPS = 700  # with eight games, the dictionary is trained after 512 steps
_LAST_BYTES = GIB // 4


def is_compressed(settings: Settings, spec: EnvSpec, device: torch.device) -> bool:
    """Whether the frames are compressed: by the setting, or automatically if memory is short.

    Memory is short if the uncompressed replay takes more than half of the free memory. A replay on a GPU is never
    compressed.
    """
    wanted = settings.replay.compression
    if device.type != "cpu" or wanted != "auto":
        return device.type == "cpu" and wanted == "zstd"
    available = available_memory_bytes()
    return available is not None and plain_bytes(settings, spec) > available / 2


def plain_bytes(settings: Settings, spec: EnvSpec) -> int:
    """The memory of the full replay with uncompressed frames."""
    return ReplayBuffer.memory_bytes(spec, settings.replay.capacity, settings.environment.num_envs)


def expected_bytes(settings: Settings, spec: EnvSpec, *, compressed: bool) -> int:
    """The memory of the full replay. If compressed, it is estimated from a sample of frames, with a margin."""
    plain = plain_bytes(settings, spec)
    if not compressed:
        return plain
    slots = plain // (spec.frame_bytes + 8)
    return round(plain - slots * (spec.frame_bytes - 12 - MARGIN * sampled_frame_bytes(settings)))


def sampled_frame_bytes(settings: Settings) -> float:
    """The mean size of a compressed frame in bytes, from some steps of random play."""
    return _sampled_frame_bytes(game_of(settings), training_rules(settings.environment))


@functools.cache
def _sampled_frame_bytes(game: Game, rules: EnvRules) -> float:
    num_envs = 8
    env = make_env(game, num_envs, rules)
    frames = env.reset(np.arange(num_envs))
    store = CompressedFrames(num_envs, _SAMPLED_STEPS, frames.shape[1:], frames.dtype)
    generator = np.random.default_rng(0)
    for slot in range(_SAMPLED_STEPS):
        store.put(slot, frames)
        env.send(generator.integers(0, env.spec.num_actions, num_envs))
        frames = env.receive().frame
    return store.bytes_per_frame


class MemoryWatch:
    """Monitors a compressed replay while it fills. Its frames can turn out larger than those of the sample."""

    def __init__(self, replay: ReplayBuffer, message: Callable[[str], None], stop: StopRequest) -> None:
        self._frames, self._message, self._stop = replay.frames, message, stop
        self._told = False

    def look(self) -> None:
        """Warn once if memory will not suffice for the full replay. Stop and save the run before memory is used up."""
        available = available_memory_bytes()
        if not isinstance(self._frames, CompressedFrames) or available is None:
            return
        missing = self._frames.missing_bytes
        if missing > available and not self._told:
            self._told = True
            self._message(
                f"the replay will need {missing / GIB:.1f} GiB more until it is full, {available / GIB:.1f} GiB are "
                "free; the run is saved and stops before memory ends"
            )
        if missing and available < _LAST_BYTES:
            self._stop.request("memory is nearly used up; free some, and the same command goes on", 3)
