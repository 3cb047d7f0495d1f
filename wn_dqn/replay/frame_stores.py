"""Stores for the frames of a replay: uncompressed on the learner's device, or compressed in host memory.

Each contains N rings of slots, and one zero frame behind them. A row is the index of a slot, counted through all rings;
N * num_slots is the zero frame.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from torch import Tensor


class FrameStore(Protocol):
    """The frames of a replay."""

    def put(self, slot: int, frames: Tensor | NDArray[Any]) -> None:
        """Store the newest frames [N, *stored_shape] in `slot` of all rings."""

    def gather(self, rows: NDArray[np.int64] | Tensor) -> Tensor:
        """The frames at `rows` [k], on the replay's device: [k, *stored_shape]."""

    def read(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        """The frames at `slots` [k] of all rings: [N, k, *stored_shape]."""

    def write(self, slots: NDArray[np.int64], frames: NDArray[Any]) -> None:
        """Restore frames from `read`."""


class PlainFrames:
    """Uncompressed frames on `device`."""

    def __init__(
        self, num_envs: int, num_slots: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._device = device
        self._frames = torch.empty((num_envs * num_slots + 1, *shape), dtype=dtype, device=device)
        self._frames[-1] = 0
        self._rings = self._frames[:-1].view(num_envs, num_slots, *shape)

    def put(self, slot: int, frames: Tensor | NDArray[Any]) -> None:
        """See :class:`FrameStore`."""
        self._rings[:, slot] = torch.as_tensor(frames)

    def gather(self, rows: NDArray[np.int64] | Tensor) -> Tensor:
        """See :class:`FrameStore`."""
        return self._frames.index_select(0, torch.as_tensor(rows))

    def read(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        """See :class:`FrameStore`."""
        frames: NDArray[Any] = self._rings[:, torch.from_numpy(slots).to(self._device)].cpu().numpy()
        return frames

    def write(self, slots: NDArray[np.int64], frames: NDArray[Any]) -> None:
        """See :class:`FrameStore`."""
        self._rings[:, torch.from_numpy(slots).to(self._device)] = torch.from_numpy(frames).to(self._device)


# The dictionary is trained on every eighth of the first 4,096 frames. With consecutive frames it is a third worse.
_SAMPLE, _SAMPLE_PERIOD = 512, 8
_DICTIONARY_BYTES = 2**15
_CHUNK_BYTES = 2**20


class CompressedFrames:
    """Each frame compressed on its own by Zstandard, without loss, so that any can be read without the others.

    Frames of a game are similar. So a dictionary is trained on the first ones, and used to compress all later ones. To
    save memory, a frame has no Python object: its bytes are in a chunk, and a chunk is reused when all of its frames
    have been overwritten.

    `put` and `gather` are called by one thread, `write` and `read` by any.
    """

    def __init__(self, num_envs: int, num_slots: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype
        self._frame_bytes = int(np.prod(shape)) * dtype.itemsize
        self._chunk_bytes = max(_CHUNK_BYTES, 4 * self._frame_bytes)
        self._position = np.zeros(num_envs * num_slots, np.int64)  # chunk * _chunk_bytes + offset
        self._size = np.zeros(num_envs * num_slots, np.int32)  # 0: there is no frame
        self._first_rows = np.arange(num_envs) * num_slots
        self._chunks: dict[int, bytearray] = {}
        self._living: dict[int, int] = {}  # number of frames in each chunk
        self._spare: list[bytearray] = []
        self._next = 0  # position of the next frame
        self._sample: list[bytes | bytearray | memoryview] | None = []
        self._seen = 0
        self._codecs = [_Codec(None)]
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """The memory used now, in bytes."""
        chunks = len(self._chunks) + len(self._spare)
        return chunks * self._chunk_bytes + self._position.nbytes + self._size.nbytes

    def mean_bytes(self, start: int, stop: int) -> float:
        """The mean size in bytes of the frames in slots `start` to `stop`; NaN if there are none."""
        sizes = self._size.reshape(len(self._first_rows), -1)[:, start:stop]
        return float(sizes[sizes > 0].mean()) if sizes.any() else float("nan")

    @property
    def bytes_per_frame(self) -> float:
        """The mean size in bytes of all stored frames; NaN if there are none."""
        return self.mean_bytes(0, len(self._size))

    @property
    def missing_bytes(self) -> float:
        """The bytes that the empty slots will need, if their frames are like the stored ones; NaN if there are none."""
        return float(np.count_nonzero(self._size == 0)) * self.bytes_per_frame

    def put(self, slot: int, frames: Tensor | NDArray[Any]) -> None:
        """See :class:`FrameStore`."""
        self.write(np.array([slot]), np.asarray(frames)[:, None])

    def gather(self, rows: NDArray[np.int64] | Tensor) -> Tensor:
        """See :class:`FrameStore`."""
        return torch.from_numpy(self._gathered(np.asarray(rows), [codec.decompress for codec in self._codecs]))

    def read(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        """See :class:`FrameStore`."""
        rows = (self._first_rows[:, None] + slots).reshape(-1)
        with self._reading:
            frames = self._gathered(rows, [codec.decompress_elsewhere for codec in self._codecs])
        return frames.reshape(len(self._first_rows), len(slots), *self._shape)

    def write(self, slots: NDArray[np.int64], frames: NDArray[Any]) -> None:
        """See :class:`FrameStore`."""
        rows = (self._first_rows[:, None] + slots).reshape(-1)
        plain = np.ascontiguousarray(frames, self._dtype).reshape(len(rows), -1).view(np.uint8)
        with self._lock:
            for row, frame in zip(rows.tolist(), plain, strict=True):
                self._store(row, bytes([len(self._codecs) - 1]) + self._codecs[-1].compress(frame.data))
                if self._sample is not None:
                    self._learn(frame.tobytes())

    def _gathered(self, rows: NDArray[np.int64], decompress: Sequence[Callable[[memoryview], bytes]]) -> NDArray[Any]:
        """The frames at `rows` [k]: [k, *stored_shape]. An empty row is a zero frame."""
        found, width = np.zeros((len(rows), self._frame_bytes), np.uint8), self._frame_bytes
        into = memoryview(found.data).cast("B") if len(rows) else memoryview(b"")
        there = np.flatnonzero(rows < len(self._size))
        chunks, offsets = np.divmod(self._position[rows[there]], self._chunk_bytes)
        sizes = self._size[rows[there]].tolist()
        for index, chunk, begin, size in zip(there.tolist(), chunks.tolist(), offsets.tolist(), sizes, strict=True):
            if size:
                data = memoryview(self._chunks[chunk])[begin : begin + size]
                into[index * width : (index + 1) * width] = decompress[data[0]](data[1:])
        return found.view(self._dtype).reshape(len(rows), *self._shape)

    def _learn(self, frame: bytes) -> None:
        """Train the dictionary when there are enough frames."""
        assert self._sample is not None
        self._seen += 1
        if self._seen % _SAMPLE_PERIOD:
            return
        self._sample.append(frame)
        if len(self._sample) == _SAMPLE:
            with contextlib.suppress(zstandard.ZstdError):  # frames without repetition have no dictionary
                self._codecs.append(_Codec(zstandard.train_dictionary(_DICTIONARY_BYTES, self._sample)))
            self._sample = None

    def _store(self, row: int, data: bytes) -> None:
        self._forget(row)
        chunk, offset = divmod(self._next, self._chunk_bytes)
        if offset + len(data) > self._chunk_bytes or chunk not in self._chunks:
            chunk, offset = chunk + 1, 0
            self._chunks[chunk] = self._spare.pop() if self._spare else bytearray(self._chunk_bytes)
            self._living[chunk] = 0
            self._next = chunk * self._chunk_bytes
            self._release(chunk - 1)
        self._chunks[chunk][offset : offset + len(data)] = data
        self._living[chunk] += 1
        self._position[row], self._size[row] = self._next, len(data)
        self._next += len(data)

    def _forget(self, row: int) -> None:
        if self._size[row]:
            chunk = int(self._position[row]) // self._chunk_bytes
            self._living[chunk] -= 1
            self._release(chunk)

    def _release(self, chunk: int) -> None:
        """Free a chunk for reuse if it has no frame, unless it is the one being filled."""
        if self._living.get(chunk) == 0 and chunk != self._next // self._chunk_bytes:
            del self._living[chunk]
            freed = self._chunks.pop(chunk)
            if not self._spare:
                self._spare.append(freed)


class _Codec:
    """Compresses and decompresses with an optional dictionary. There are two decompressors, one for each thread."""

    def __init__(self, dictionary: zstandard.ZstdCompressionDict | None) -> None:
        self.compress = zstandard.ZstdCompressor(level=1, dict_data=dictionary, write_dict_id=False).compress
        self.decompress = zstandard.ZstdDecompressor(dict_data=dictionary).decompress
        self.decompress_elsewhere = zstandard.ZstdDecompressor(dict_data=dictionary).decompress
