"""The replay buffer on disk: a run that is stopped and resumed at any moment has the replay of one that never was."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated
from numpy.typing import NDArray
from replay_model import SPEC

import wn_dqn.runs.replay_files
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.runs.checkpoint import CheckpointError, VerifiedFile
from wn_dqn.runs.replay_files import ReplayIndex, ReplayStore, read_arrays, write_arrays

CAPACITY, NUM_ENVS = 50, 2
MAGIC, OLD_MAGIC = b"wn_dqn arrays 2\n", b"wn_dqn arrays 1\n"


@pytest.fixture(scope="module", autouse=True)
def tiny_segments_in_order() -> Iterator[None]:
    """Segments of eight slots, read in the order of the index: the last test is about any other order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wn_dqn.runs.replay_files, "_SLOTS_PER_SEGMENT", 8)
        yield
    torch.set_num_threads(threads)


class Run:
    """A replay buffer and its store, filled with random play from `rng`."""

    def __init__(self, folder: Path, capacity: int = CAPACITY, num_envs: int = NUM_ENVS, seed: int = 0) -> None:
        self.folder = folder
        self.replay = ReplayBuffer(SPEC, capacity, num_envs, 0.5, torch.device("cpu"))
        self.store = ReplayStore(folder, self.replay)
        self.rng = np.random.default_rng(seed)

    def play(self, num_steps: int, begin: bool = False) -> None:
        """Random steps as the training loop makes them, from the beginning of games at first or if `begin`."""
        shape = (self.replay.num_envs,)
        for _ in range(num_steps):
            if begin or self.replay.num_appended == 0:
                begin = False
                self.replay.begin(self._frames())
            kind = self.rng.choice(4, shape, p=(0.7, 0.1, 0.1, 0.1))  # nothing, life lost, game over, time limit
            action = self.rng.integers(18, size=shape)
            reward = self.rng.integers(-1, 2, shape).astype(np.float32)
            self.replay.append(action, reward, (kind == 1) | (kind == 2), kind == 3, self._frames(), kind >= 2)
            self.store.write_behind()

    def resumed(self, index: ReplayIndex, folder: Path | None = None) -> Run:
        """The run that another process would continue from `index`."""
        run = Run(folder or self.folder, self.replay.capacity_per_env * self.replay.num_envs, self.replay.num_envs)
        run.store.load(json.loads(json.dumps(index)))
        run.rng.bit_generator.state = self.rng.bit_generator.state
        return run

    def _frames(self) -> NDArray[np.uint8]:
        return np.broadcast_to(
            self.rng.integers(1, 256, (self.replay.num_envs, 84, 1), np.uint8), (self.replay.num_envs, 84, 84)
        ).copy()


def assert_same(a: ReplayBuffer, b: ReplayBuffer) -> None:
    """Both hold, show and draw the same."""
    assert (a.num_appended, a.num_transitions) == (b.num_appended, b.num_transitions)
    if a.num_appended:
        assert torch.equal(a.latest_observation(), b.latest_observation())
    if a.num_transitions:
        drawn = [next(buffer.sample(np.random.default_rng(0), 200)) for buffer in (a, b)]
        assert all(pair == (None, None) or torch.equal(*pair) for pair in zip(*drawn, strict=True))


def refused(action: Callable[[], object]) -> bool:
    """Whether `action` raises CheckpointError, which must say why in one line."""
    try:
        action()
    except CheckpointError as error:
        message = str(error)
    else:
        return False
    assert "\n" not in message
    return True


def loads(run: Run, index: ReplayIndex) -> bool:
    """Whether another process could continue from `index`; CheckpointError is the only way not to."""
    return not refused(lambda: run.resumed(index))


def files(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, time of the last change and content of every file."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Run, ReplayIndex]:
    """A run whose ring has wrapped around more than twice, with several segments and a tail."""
    run = Run(tmp_path / "replay")
    run.play(75)
    index = run.store.save()
    assert len(index["segments"]) > 3
    assert index["segments"][-1]["name"].startswith("tail-")
    return run, index


@settings(max_examples=settings().max_examples // 2)  # each is a run of its own
@given(
    num_envs=st.integers(1, 3),
    capacity=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    plan=st.lists(st.tuples(st.integers(0, 25), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8),
)
def test_a_run_resumed_at_random_moments_has_the_replay_of_one_that_never_stopped(
    num_envs: int, capacity: int, seed: int, plan: list[tuple[int, bool, bool, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        oracle = Run(Path(name, "oracle"), capacity, num_envs, seed)
        run = Run(Path(name, "run"), capacity, num_envs, seed)
        for num_steps, begin, resume, prune in plan:
            oracle.play(num_steps, begin)
            run.play(num_steps, begin)
            index = run.store.save()
            if prune:
                run.store.prune([index])
            resumed = run.resumed(index)
            assert_same(resumed.replay, oracle.replay)
            if resume:
                run.store.close()
                run = resumed
            assert_same(run.replay, oracle.replay)


def test_segments_are_written_once(tmp_path: Path) -> None:
    """Neither later saves nor a resumed run touch a segment, or share a file between different contents."""
    run = Run(tmp_path)
    seen: dict[str, tuple[int, int, bytes]] = {}
    for num_steps, resume in [(10, False), (1, False), (20, True), (30, False), (0, False), (9, True), (40, False)]:
        run.play(num_steps)
        index = run.store.save()
        if resume:
            run = run.resumed(index)
        now = files(tmp_path)
        assert now.keys() >= {segment["name"] for segment in index["segments"]}
        assert {name: now[name] for name in seen} == seen
        seen = {name: content for name, content in now.items() if name.startswith("segment-")}
    assert len(seen) > 10


def test_a_checkpoint_costs_what_is_new(saved: tuple[Run, ReplayIndex]) -> None:
    run, _ = saved
    before = files(run.folder)
    run.play(1)
    run.store.save()
    new = files(run.folder).keys() - before.keys()
    assert 1 <= len(new) <= 2, "the tail, and a segment if the step has filled one"


def test_prune_keeps_what_is_named_and_removes_the_rest(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_arrays(tmp_path / "held_out.arrays", {"obs": np.zeros(3, np.uint8)})
    indices = []
    for num_steps in (20, 13, 40, 2):
        run.play(num_steps)
        indices.append(run.store.save())
    old, _, kept, newest = indices
    run.store.prune([None, kept, newest])
    assert loads(run, kept)
    assert loads(run, newest)
    assert not loads(run, old)
    needed = {segment["name"] for index in (kept, newest) for segment in index["segments"]}
    assert {path.name for path in tmp_path.iterdir()} == needed | {"held_out.arrays"}
    run.store.prune([])
    run.play(3)
    assert loads(run, run.store.save()), "prune takes nothing that the run itself still needs"


def damage(how: str, path: Path, foreign: Path) -> None:
    data = bytearray(path.read_bytes())
    match how:
        case "truncated":
            path.write_bytes(data[:-1])
        case "flipped":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "longer":
            path.write_bytes(data + b"\0")
        case "emptied":
            path.write_bytes(b"")
        case "deleted":
            path.unlink()
        case "a folder":
            path.unlink()
            path.mkdir()
        case "foreign":
            path.write_bytes(foreign.read_bytes())


@pytest.mark.parametrize("how", ["truncated", "flipped", "longer", "emptied", "deleted", "a folder", "foreign"])
def test_one_damaged_file_is_refused(how: str, saved: tuple[Run, ReplayIndex], tmp_path: Path) -> None:
    run, index = saved
    other = Run(tmp_path / "other", seed=1)
    other.play(75)
    other.store.save()
    for number in range(len(index["segments"])):
        path = run.folder / index["segments"][number]["name"]
        data = path.read_bytes()
        damage(how, path, other.folder / path.name)
        assert not loads(run, index)
        if path.is_dir():
            path.rmdir()
        path.write_bytes(data)
    assert loads(run, index)


def test_the_message_says_what_is_wrong(saved: tuple[Run, ReplayIndex]) -> None:
    run, index = saved
    path = run.folder / index["segments"][0]["name"]
    data = path.read_bytes()
    for damage, message in [(data[:-1], "bytes instead of"), (data[:-1] + b"?", "SHA-256")]:
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=f"{path.name} .*{message}"):
            run.resumed(index)


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("num_steps", [0, 60])
def test_an_older_checkpoint_can_be_loaded_after_a_newer_one(num_steps: int, damaged: bool, tmp_path: Path) -> None:
    """As when the newest turns out to be damaged: nothing of it stays. The older one may be of an empty buffer."""
    run, oracle = Run(tmp_path / "run"), Run(tmp_path / "oracle")
    run.play(num_steps)
    oracle.play(num_steps)
    older = run.store.save()
    run.play(90)
    newer = run.store.save()
    if damaged:
        (run.folder / newer["segments"][-1]["name"]).write_bytes(b"")
    again = Run(run.folder)
    assert refused(lambda: again.store.load(newer)) == damaged
    again.store.load(older)
    again.rng.bit_generator.state = oracle.rng.bit_generator.state
    for more_steps in (0, 5, 70):
        again.play(more_steps)
        oracle.play(more_steps)
        assert_same(again.replay, oracle.replay)
    assert_same(again.resumed(again.store.save()).replay, oracle.replay)


def test_the_replay_of_more_or_fewer_games_is_refused(saved: tuple[Run, ReplayIndex]) -> None:
    run, index = saved
    for num_envs in (1, 4):
        other = Run(run.folder, CAPACITY, num_envs)
        assert refused(lambda store=other.store: store.load(index))


BEYOND = pytest.param(10**30, 10**30 + 4)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (4, 3), (0, 10**9), (0, 10**30), (-(10**9), 0), BEYOND])
def test_a_segment_that_does_not_fit_is_refused(start: int, stop: int, saved: tuple[Run, ReplayIndex]) -> None:
    run, index = saved
    index["segments"][0].update(start=start, stop=stop)
    assert not loads(run, index)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.arrays",
        "sub/inside.arrays",
        "./inside.arrays",
        "/etc/passwd",
        "..",
        ".",
        "",
        pytest.param("a\0b"),
        pytest.param("\ud800"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    """Even where a good file is."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    arrays = {"x": np.arange(5)}
    for path in (tmp_path / "outside.arrays", folder / "sub" / "inside.arrays", folder / "inside.arrays"):
        file = write_arrays(path, arrays)
    assert read_arrays(folder, file, {"x": np.zeros(5, int)})["x"].tolist() == [0, 1, 2, 3, 4]
    assert refused(lambda: read_arrays(folder, {**file, "name": name}, {"x": np.zeros(5, int)}))


ARRAYS: dict[str, NDArray[Any]] = {
    "frames": np.arange(600, dtype=np.uint8).reshape(2, 3, 100),
    "reward": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "cut": np.array([[True, False, True]] * 2),
}


def blank() -> dict[str, NDArray[Any]]:
    return {name: np.zeros_like(array) for name, array in ARRAYS.items()}


def forged(folder: Path, data: bytes, name: str = "forged.arrays") -> VerifiedFile:
    """`data` as a file with the size and the hash that it should have."""
    (folder / name).write_bytes(data)
    return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def array_file(header: Any, body: bytes, *, old: bool = False) -> bytes:
    """As it is written, or as versions before wrote it."""
    header_bytes = header if isinstance(header, bytes) else json.dumps(header).encode()
    beginning = len(header_bytes).to_bytes(4, "little") + header_bytes
    return OLD_MAGIC + beginning + zlib.compress(body) if old else MAGIC + beginning + zstandard.compress(body)


HEADER = {name: [array.dtype.str, list(array.shape)] for name, array in ARRAYS.items()}
BODY = b"".join(array.tobytes() for array in ARRAYS.values())


def test_arrays_survive_the_round_trip(tmp_path: Path) -> None:
    """Also arrays that are not contiguous; the format is the one written down here."""
    file = write_arrays(tmp_path / "good.arrays", {**ARRAYS, "frames": ARRAYS["frames"].repeat(2, axis=2)[:, :, ::2]})
    made = [
        forged(tmp_path, array_file(HEADER, BODY, old=True), "old.arrays"),
        forged(tmp_path, array_file(HEADER, BODY)),
    ]
    for described in (file, *made):
        read = read_arrays(tmp_path, described, blank())
        assert all(np.array_equal(read[name], array) for name, array in ARRAYS.items())


def test_an_array_may_be_empty(tmp_path: Path) -> None:
    file = write_arrays(tmp_path / "empty.arrays", {"x": np.zeros((2, 0), np.int64)})
    assert read_arrays(tmp_path, file, {"x": np.ones((2, 0), np.int64)})["x"].shape == (2, 0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(array_file({**HEADER, "frames": ["|u1", [2**40, 2**20]]}, BODY), id="huge"),
        pytest.param(array_file({**HEADER, "frames": ["|u1", [2, 3, 99]]}, BODY), id="smaller"),
        pytest.param(array_file({**HEADER, "frames": ["|O", [2, 3, 100]]}, BODY), id="objects"),
        pytest.param(array_file({**HEADER, "more": ["|u1", [1]]}, BODY), id="one array more"),
        pytest.param(array_file({"frames": HEADER["frames"]}, BODY), id="arrays missing"),
        pytest.param(array_file([], BODY), id="not a mapping"),
        pytest.param(array_file(b"{", BODY), id="not JSON"),
        pytest.param(array_file(b"\xff\xfe\xfd", BODY), id="not text"),
        pytest.param(array_file(HEADER, BODY[:-1]), id="too short"),
        pytest.param(array_file(HEADER, b""), id="empty"),
        pytest.param(array_file(HEADER, BODY)[:-700], id="cut off"),
        pytest.param(MAGIC, id="magic only"),
        pytest.param(MAGIC + (2**32 - 1).to_bytes(4, "little") + b"{}", id="endless header"),
        pytest.param(array_file(HEADER, BODY[:-1], old=True), id="too short, old"),
        pytest.param(array_file(HEADER, BODY, old=True)[:-700], id="cut off, old"),
        pytest.param(array_file(HEADER, BODY).replace(b"arrays 2", b"arrays 1"), id="zstd for zlib"),
        pytest.param(array_file(HEADER, BODY, old=True).replace(b"arrays 1", b"arrays 2"), id="zlib for zstd"),
        pytest.param(array_file(HEADER, BODY).replace(b"arrays 2", b"arrays 3"), id="another version"),
        pytest.param(
            array_file(b"[" * 60_000, BODY),
            id="deep header",
        ),
    ],
)
def test_a_file_that_lies_is_refused_in_bounded_memory(data: bytes, tmp_path: Path) -> None:
    """Its hash is right, as an attacker would make it."""
    file = forged(tmp_path, data)
    tracemalloc.start()
    try:
        assert refused(lambda: read_arrays(tmp_path, file, blank()))
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("old", [False, True])
def test_a_zip_bomb_takes_no_memory(old: bool, tmp_path: Path) -> None:
    """A hundred kilobytes that would be a hundred megabytes: what was asked for is read, no more."""
    file = forged(tmp_path, array_file(HEADER, BODY + bytes(10**8), old=old))
    tracemalloc.start()
    try:
        read = read_arrays(tmp_path, file, blank())
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert np.array_equal(read["frames"], ARRAYS["frames"])


@pytest.mark.parametrize("old", [False, True])
def test_random_mutations_with_the_right_hash_are_refused_or_read(old: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = array_file(HEADER, BODY, old=old)
    num_refused = 0
    for _ in range(300):
        file, into = forged(tmp_path, mutated(good, rng)), blank()
        num_refused += refused(lambda file=file, into=into: read_arrays(tmp_path, file, into))
        assert all(into[name].shape == array.shape for name, array in ARRAYS.items())
    assert 100 < num_refused < 300


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether the disk is full from now on."""
    full = False
    really = os.fsync

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(descriptor)

    def set_full(now: bool) -> None:
        nonlocal full
        full = now

    monkeypatch.setattr(os, "fsync", fsync)
    return set_full


@pytest.mark.parametrize("more_steps", [0, 3, 24, 40])
def test_a_segment_that_could_not_be_written_is_written_by_the_next_save(
    more_steps: int, tmp_path: Path, full_disk: Callable[[bool], None]
) -> None:
    """Even when part of it is overwritten by then; until it can be, save raises OSError."""
    run = Run(tmp_path)
    run.play(10)
    good = run.store.save()
    full_disk(True)
    run.play(9)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            run.store.save()
    run.play(more_steps)
    full_disk(False)
    index = run.store.save()
    assert_same(run.resumed(index).replay, run.replay)
    run.play(7)
    assert_same(run.resumed(run.store.save()).replay, run.replay)
    if more_steps == 0:
        assert loads(run, good)


def test_what_a_failed_write_leaves_is_pruned(tmp_path: Path, full_disk: Callable[[bool], None]) -> None:
    """On a full disk above all."""
    run = Run(tmp_path)
    run.play(10)
    run.store.save()
    full_disk(True)
    run.play(1)
    with pytest.raises(OSError, match="No space"):
        run.store.save()
    full_disk(False)
    run.play(1)
    index = run.store.save()
    run.store.prune([index])
    assert {path.name for path in tmp_path.iterdir()} == {segment["name"] for segment in index["segments"]}


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_crash_while_writing_leaves_the_old_file(
    owner: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise OSError("power cut")

    file = write_arrays(tmp_path / "x.arrays", {"x": np.arange(5)})
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(OSError, match="power cut"):
            write_arrays(tmp_path / "x.arrays", {"x": np.arange(5) + 1})
    assert read_arrays(tmp_path, file, {"x": np.zeros(5, int)})["x"].tolist() == [0, 1, 2, 3, 4]


class LazyFuture(Future[Any]):
    """Does its work when somebody insists on the outcome, and not before."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            self.set_result(self._work())
        return super().exception(timeout)

    def result(self, timeout: float | None = None) -> Any:
        self.exception()
        return super().result(timeout)


class LazyPool:
    """The slowest writer there can be."""

    def __init__(self, **_: Any) -> None: ...

    def submit(self, function: Callable[..., Any], *args: Any) -> LazyFuture:
        return LazyFuture(lambda: function(*args))


def test_a_slow_writer_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No slot is overwritten before it is in a file."""
    run = Run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(wn_dqn.runs.replay_files, "ThreadPoolExecutor", LazyPool)
        patch.setattr(wn_dqn.runs.replay_files, "wait", lambda futures: [future.exception() for future in futures])
        run.store = ReplayStore(tmp_path, run.replay)
        for num_steps, begin in [(30, False), (40, True), (33, True), (1, True), (1, True), (31, False)]:
            run.play(num_steps, begin)
        index = run.store.save()
    assert_same(run.resumed(index).replay, run.replay)


def test_the_order_in_which_segments_are_read_does_not_matter(
    saved: tuple[Run, ReplayIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read by two threads: whoever comes last must not undo what the other one read."""
    monkeypatch.setattr(wn_dqn.runs.replay_files, "ThreadPoolExecutor", ThreadPoolExecutor)
    run, _ = saved
    run.play(3)
    index = run.store.save()
    rng = np.random.default_rng(0)
    for _ in range(30):
        segments = [index["segments"][k] for k in rng.permutation(len(index["segments"]))]
        assert_same(run.resumed({**index, "segments": segments}).replay, run.replay)
