"""Compressed frames: whatever is played, the same bits as uncompressed ones, and no memory that is never used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay_model import CPU, GAMMA, SPEC, Model
from small_runs import settings_for, train

from wn_dqn.config.files import make_settings
from wn_dqn.config.schema import Settings
from wn_dqn.envs.atari import atari_spec
from wn_dqn.errors import UsageError
from wn_dqn.replay import frame_stores
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.frame_stores import CompressedFrames, PlainFrames
from wn_dqn.replay.prioritized import PrioritizedReplay
from wn_dqn.runs import launch, replay_memory
from wn_dqn.runs.replay_memory import MemoryWatch, expected_bytes, is_compressed
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.system.hardware import GIB

ATARI = atari_spec("Space Invaders", map(str, range(6)))


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary after 16 frames, and a chunk for a few hundred."""
    monkeypatch.setattr(frame_stores, "_SAMPLE", 16)
    monkeypatch.setattr(frame_stores, "_SAMPLE_PERIOD", 1)
    monkeypatch.setattr(frame_stores, "_DICTIONARY_BYTES", 1024)
    monkeypatch.setattr(frame_stores, "_CHUNK_BYTES", 2**12)


def pictures(seed: int) -> Iterator[np.ndarray]:
    """Frames [2, 84, 84] like those of a game: most of the screen stays."""
    generator = np.random.default_rng(seed)
    still = np.repeat(generator.integers(0, 256, (84, 1), dtype=np.uint8), 84, axis=1)
    while True:
        frames = np.stack([still, still])
        for frame in frames:
            y, x = generator.integers(0, 70, 2)
            frame[y : y + 9, x : x + 9] = generator.integers(0, 256, (9, 9))
        yield frames


@given(
    num_envs=st.integers(1, 3),
    capacity=st.integers(1, 24),
    n_steps=st.integers(1, 3),
    prioritized=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_minibatches(num_envs: int, capacity: int, n_steps: int, prioritized: bool, seed: int) -> None:
    """Drawn with the same seed, of the same games, in which everything that can happen does."""
    shape = SPEC, capacity, num_envs, GAMMA, CPU, n_steps
    model = Model(capacity, num_envs)
    model.buffers = [
        PrioritizedReplay(*shape, 0.6, 1e-6, compressed=compressed)
        if prioritized
        else ReplayBuffer(*shape, compressed=compressed)
        for compressed in (False, True)
    ]
    rng, draws = np.random.default_rng(seed), [np.random.default_rng(1) for _ in model.buffers]
    for _ in range(3):
        model.play(rng, 12)
        drawn = []
        for buffer, generator in zip(model.buffers, draws, strict=True):
            try:
                batches = list(buffer.minibatches(generator, 5, 2, 0.5))
            except ValueError:  # there is nothing to draw: in neither
                batches = []
            drawn.append([buffer.latest_observation(), *(tensor for batch in batches for tensor in batch)])
        for plain, compressed in zip(*drawn, strict=True):
            assert plain is compressed is None or torch.equal(plain, compressed)
        stored = [buffer.read(buffer.oldest_stored(), buffer.num_appended)["frames"] for buffer in model.buffers]
        np.testing.assert_array_equal(*stored)


def test_chunks_are_used_again() -> None:
    """A ring that is written forty times over takes no more than when it was full for the first time."""
    store, plain = CompressedFrames(2, 50, (84, 84), np.dtype(np.uint8)), PlainFrames(2, 50, (84, 84), torch.uint8, CPU)
    used = []
    for step, frames in zip(range(2000), pictures(0), strict=False):
        store.put(step % 50, frames)
        plain.put(step % 50, torch.from_numpy(frames))
        used.append(store.used_bytes)
    assert max(used[200:]) < 0.3 * 100 * 84 * 84
    assert max(used[1000:]) <= max(used[200:1000]) + 2 * 28_224  # a chunk of four frames more, or two
    rows = np.random.default_rng(0).integers(0, 101, 64)  # the zero frame among them
    assert torch.equal(store.gather(rows), plain.gather(torch.from_numpy(rows)))
    assert store.bytes_per_frame < 1500
    assert store.missing_bytes == 0.0


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_frames_without_a_pattern(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise has no dictionary and takes a little more than it is; other types than bytes come back as they were."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 1, 30), dtype=np.uint8).astype(dtype)
    store = CompressedFrames(1, 40, (30,), np.dtype(dtype))
    for slot, frame in enumerate(frames):
        store.put(slot, frame)
    np.testing.assert_array_equal(
        store.gather(np.arange(41)).numpy(), np.concatenate([frames[:, 0], np.zeros((1, 30))])
    )


def test_compression_is_taken_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million frames take 6.6 GiB: more than half of 12 GiB, less than half of 14."""

    def with_free(gib: float, compression: str = "auto", device: str = "cpu") -> bool:
        monkeypatch.setattr(replay_memory, "available_memory_bytes", lambda: round(gib * GIB))
        return is_compressed(asking(compression), ATARI, torch.device(device))

    assert [with_free(gib) for gib in (5, 12, 14)] == [True, True, False]
    assert [with_free(100, "zstd"), with_free(5, "none"), with_free(5, "auto", "cuda")] == [True, False, False]


def asking(compression: str) -> Settings:
    return make_settings({"game": "SpaceInvaders", "replay": {"compression": compression}})


def test_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 1,000,032 slots of 400 bytes times the margin, 12 for where they are, and 8 of the transition."""
    monkeypatch.setattr(replay_memory, "sampled_frame_bytes", lambda _: 400.0)
    expected = expected_bytes(asking("zstd"), ATARI, compressed=True)
    assert expected == pytest.approx(1_000_032 * (1.5 * 400 + 12 + 8), rel=1e-3)
    assert expected_bytes(asking("none"), ATARI, compressed=False) > 7e9


def test_a_game_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random play of Breakout: a few hundred bytes of 7,056."""
    monkeypatch.setattr(replay_memory, "_SAMPLED_STEPS", 40)
    assert 50 < replay_memory.sampled_frame_bytes(make_settings({"game": "Breakout"})) < 700


def test_memory_that_ends_is_told_and_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = ReplayBuffer(SPEC, 10_000, 1, GAMMA, CPU, compressed=True)
    for frames, _ in zip(pictures(0), range(20), strict=False):
        buffer.frames.put(0, frames[:1])
    messages: list[str] = []
    stop = StopRequest()
    watch = MemoryWatch(buffer, messages.append, stop)
    for free, lines in ((100 * GIB, 0), (GIB // 1024, 1), (GIB // 1024, 1)):
        monkeypatch.setattr(replay_memory, "available_memory_bytes", lambda free=free: free)
        watch.look()
        assert len(messages) == lines
    assert "GiB more until it is full" in messages[0]
    with pytest.raises(Exception, match="memory is nearly used up"):
        stop.check()


def test_a_gpu_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "is_compressed", lambda *_: False)
    with pytest.raises(UsageError, match="is not compressed: leave out"):
        train(settings_for(replay={"compression": "zstd"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
