"""The replay buffer on disk: immutable compressed segments, each written once, in the background.

A segment contains consecutive slots of all rings. Full segments are written while training continues. A checkpoint adds
only the incomplete last segment, so that its cost depends on the number of new transitions alone. Consecutive
checkpoints share segments. A segment is removed when no checkpoint needs it.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from io import FileIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypedDict  # see wn_dqn.runs.checkpoint

from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.runs.checkpoint import CheckpointError, VerifiedFile, read_verified
from wn_dqn.system import reading
from wn_dqn.system.durable import is_own_file, replacing, write_all
from wn_dqn.system.reading import Steps

_MAGIC = b"wn_dqn arrays 2\n"
_ZLIB_MAGIC = b"wn_dqn arrays 1\n"  # earlier versions: the same content, compressed by zlib
_SEGMENT = re.compile(r"(segment-\d{8}|tail-\d{10}-\d{10})\.arrays")
_SLOTS_PER_SEGMENT = 16_384  # over all rings: 115 MB of frames, a few MB compressed
_BLOCK_BYTES = 2**22
_MAX_HEADER_BYTES = 2**16


class Segment(VerifiedFile):
    """A file with the slots start..stop of all rings, counted from the first slot of the run."""

    start: Steps
    stop: Steps


class ReplayIndex(TypedDict):
    """The replay buffer's entry in a checkpoint."""

    num_appended: Steps
    segments: Annotated[list[Segment], Field(max_length=10**6)]


class ReplayStore:
    """The segments of one run's replay buffer, in one folder."""

    def __init__(self, folder: Path, replay: ReplayBuffer) -> None:
        folder.mkdir(exist_ok=True)  # not its parents: a run that was moved must not be recreated at its old place
        self._folder = folder
        self._replay = replay
        # At most a quarter of the ring, so that a segment is on disk long before its slots are overwritten.
        self._length = max(1, min(_SLOTS_PER_SEGMENT // replay.num_envs, replay.num_slots // 4))
        self._segments: dict[int, Future[Segment]] = {}  # by number: segment k starts at slot k * length
        self._next = 0
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="replay-store")

    def write_behind(self) -> None:
        """Start writing the segments that have become full. Call it after every step; it does not block."""
        complete_slots = self._replay.num_appended - 1
        while complete_slots >= (self._next + 1) * self._length:
            start, stop = self._next * self._length, (self._next + 1) * self._length
            self._segments[self._next] = self._writer.submit(self._write, f"segment-{self._next:08d}", start, stop)
            self._next += 1
        next_overwritten = self._replay.num_appended - self._replay.num_slots
        for number in [k for k in self._segments if k * self._length <= next_overwritten]:
            wait([self._segments[number]])
            if (number + 1) * self._length <= self._replay.oldest_stored():
                del self._segments[number]

    def save(self) -> ReplayIndex:
        """Write the slots that are in no segment yet, and wait for all writes. Returns the checkpoint's entry.

        Failed segments are tried again. Raises OSError if one still cannot be written.
        """
        self.write_behind()
        num_appended = self._replay.num_appended
        for number, future in self._segments.items():
            if future.exception() is not None:
                start = max(number * self._length, self._replay.oldest_stored())
                self._segments[number] = _done(self._write(f"segment-{number:08d}", start, (number + 1) * self._length))
        segments = [future.result() for future in self._segments.values()]
        start = self._next * self._length
        if num_appended > start:
            segments.append(self._write(f"tail-{start:010d}-{num_appended:010d}", start, num_appended))
        return {"num_appended": num_appended, "segments": segments}

    def load(self, index: ReplayIndex) -> None:
        """Fill the replay buffer. Raises CheckpointError if a byte has changed or a slot is missing."""
        missing = max(index["num_appended"] - self._replay.num_slots, 0)
        for segment in sorted(index["segments"], key=lambda segment: segment["start"]):
            if segment["start"] <= missing:
                missing = max(missing, segment["stop"])
        if missing < index["num_appended"]:
            raise CheckpointError(f"no segment has slot {missing} of the replay buffer")
        with ThreadPoolExecutor(max_workers=2) as pool:
            num_appended = index["num_appended"]
            for future in [pool.submit(self._load, segment, num_appended) for segment in index["segments"]]:
                future.result()
        self._replay.finish_restoring(num_appended)
        self._next = max(num_appended - 1, 0) // self._length
        self._segments = {}
        for segment in index["segments"]:
            if segment["name"].startswith("segment-"):
                self._segments[segment["start"] // self._length] = _done(segment)

    def prune(self, indices: Iterable[ReplayIndex | None]) -> None:
        """Remove the files that neither this run nor any of the checkpoints' `indices` needs."""
        needed = {segment["name"] for index in indices if index for segment in index["segments"]}
        needed |= {f"segment-{number:08d}.arrays" for number in self._segments}
        for path in self._folder.glob("*.arrays"):
            if path.name not in needed and is_own_file(path, _SEGMENT):
                path.unlink()

    def close(self) -> None:
        """Wait for pending writes."""
        self._writer.shutdown(wait=True)

    def _write(self, stem: str, start: int, stop: int) -> Segment:
        file = write_arrays(self._folder / f"{stem}.arrays", self._replay.read(start, stop))
        return {**file, "start": start, "stop": stop}

    def _load(self, segment: Segment, num_appended: int) -> None:
        first, length = segment["start"], segment["stop"] - segment["start"]
        if first < 0 or not 0 < length <= self._replay.num_slots or segment["stop"] > num_appended:
            raise CheckpointError(f"segment {segment['name']} does not fit the replay buffer")
        like = {
            name: np.empty((array.shape[0], length, *array.shape[2:]), array.dtype)
            for name, array in self._replay.read(0, 0).items()
        }
        arrays = read_arrays(self._folder, segment, like)
        flags = [array.view(np.uint8) for array in arrays.values() if array.dtype == np.bool_]
        fit = (arrays["action"] < self._replay.spec.num_actions).all() and np.isfinite(arrays["reward"]).all()
        if not (fit and all((flag <= 1).all() for flag in flags)):
            raise CheckpointError(f"segment {segment['name']} contains values that no game has")
        # Overwritten slots share their place in the ring with newer slots of another segment, and are skipped.
        stale = max(num_appended - self._replay.num_slots - first, 0)
        self._replay.write(first + stale, {name: array[:, stale:] for name, array in arrays.items()})


def _done(segment: Segment) -> Future[Segment]:
    future: Future[Segment] = Future()
    future.set_result(segment)
    return future


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> VerifiedFile:
    """Write `arrays` compressed and durably: under a temporary name, fsynced, then renamed. The folder must exist."""
    with replacing(path) as file:
        num_bytes, digest = _write_compressed(file, arrays)
    return {"name": path.name, "bytes": num_bytes, "sha256": digest}


def _write_compressed(file: FileIO, arrays: Mapping[str, NDArray[Any]]) -> tuple[int, str]:
    """Write `arrays` to `file`. Returns the size and the SHA-256 of the written bytes."""
    header = json.dumps({name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}).encode()
    digest = hashlib.sha256()

    def write(data: bytes) -> None:
        digest.update(data)
        write_all(file, data)

    write(_MAGIC + len(header).to_bytes(4, "little") + header)
    compress = zstandard.ZstdCompressor(level=1).compressobj()
    for array in filter(np.size, arrays.values()):
        raw = memoryview(np.ascontiguousarray(array).data).cast("B")
        for start in range(0, len(raw), _BLOCK_BYTES):
            write(compress.compress(raw[start : start + _BLOCK_BYTES]))
    write(compress.flush())
    return file.tell(), digest.hexdigest()


def read_arrays(folder: Path, file: VerifiedFile, into: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Fill the arrays `into` from a file of :func:`write_arrays`, and return them.

    Raises CheckpointError unless the file is intact and has arrays of exactly these names, shapes and dtypes.
    """
    num_bytes = sum(array.nbytes for array in into.values())
    limit = num_bytes + num_bytes // 100 + 2 * _MAX_HEADER_BYTES  # incompressible data grows a little
    data = read_verified(folder, file, limit)
    header_start = len(_MAGIC) + 4
    header_length = int.from_bytes(data[len(_MAGIC) : header_start], "little")
    expected = {name: [array.dtype.str, list(array.shape)] for name, array in into.items()}
    try:
        if not data.startswith((_MAGIC, _ZLIB_MAGIC)) or header_length > _MAX_HEADER_BYTES:
            raise ValueError("it is not a file of arrays")
        if reading.parse_json(data[header_start : header_start + header_length]) != expected:
            raise ValueError("its arrays have other shapes than this run's")
        compressed = memoryview(data)[header_start + header_length :]
        reader = _zstd_reader(compressed) if data.startswith(_MAGIC) else _Zlib(compressed)
        for array in filter(np.size, into.values()):
            raw = memoryview(array.data).cast("B")
            filled = 0
            while filled < len(raw):
                block = reader.readinto(raw[filled : filled + _BLOCK_BYTES])
                if not block:
                    raise ValueError("it ends too early")
                filled += block
    except (OSError, ValueError, zlib.error, zstandard.ZstdError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder / file['name']} cannot be read: {reason}") from None
    return into


def _zstd_reader(data: memoryview) -> zstandard.ZstdDecompressionReader:
    """A reader of zstd data. The window is limited to 8 MiB, so that a forged file cannot exhaust the memory."""
    return zstandard.ZstdDecompressor(max_window_size=2**23).stream_reader(data)


class _Zlib:
    """A reader of zlib data."""

    def __init__(self, data: memoryview) -> None:
        self._decompress, self._rest = zlib.decompressobj(), data

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` from its start. Returns the number of bytes."""
        block = self._decompress.decompress(self._rest, len(buffer))
        self._rest = memoryview(self._decompress.unconsumed_tail)
        buffer[: len(block)] = block
        return len(block)
