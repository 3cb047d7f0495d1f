"""Checkpoints: what is saved comes back, and what is damaged is refused."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import mutated
from torch import Tensor

from wn_dqn.runs.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    _digest,
    best_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)

TENSORS, STATE, MANIFEST = FILES = ("tensors.safetensors", "state.json", "manifest.json")


def every(_steps: int) -> bool:
    return True


def a_state(number: int = 0) -> dict[str, Any]:
    return {
        "steps": number,
        "agent": {"net": {"w": torch.full((2, 3), number + 0.5), "n": torch.tensor(number)}, "name": "dqn"},
        "generator": {"bit_generator": "PCG64", "state": {"state": 2**127 + number}},
        "actions": np.arange(6, dtype=np.uint8).reshape(2, 3),
    }


def assert_same(loaded: object, saved: object) -> None:
    """Equal to the last bit, arrays as tensors."""
    if isinstance(saved, Mapping):
        assert isinstance(loaded, dict)
        assert loaded.keys() == saved.keys()
        for key in saved:
            assert_same(loaded[key], saved[key])
    elif isinstance(saved, Tensor | np.ndarray):
        saved = torch.as_tensor(saved).detach()
        assert isinstance(loaded, Tensor)
        assert (loaded.dtype, loaded.shape) == (saved.dtype, saved.shape)
        assert loaded.contiguous().numpy().tobytes() == saved.contiguous().numpy().tobytes()
    else:
        assert json.dumps(loaded) == json.dumps(saved)  # NaN equals NaN, and 1 is not 1.0


def refused(path: Path) -> bool:
    """Whether `path` cannot be loaded: CheckpointError is the only way not to, and must say why in one line."""
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        message = str(error)
    else:
        return False
    assert str(path) in message
    assert "\n" not in message
    return True


def forge(path: Path, name: str, data: bytes) -> None:
    """Put `data` in the place of a file, with the size and the hash that it should have."""
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / name).write_bytes(data)
    manifest["sha256"] = _digest(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


names = st.text("abcXYZ019._- é", min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool])
shapes = st.lists(st.integers(0, 3), max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any number of axes, also transposed or channels_last."""
    shape = draw(shapes)
    values = torch.from_numpy(np.random.default_rng(draw(st.integers(0, 99))).normal(0, 50, shape))
    tensor = values.to(draw(dtypes))
    if len(shape) == 4 and draw(st.booleans()):
        return tensor.to(memory_format=torch.channels_last)
    return tensor.mT if len(shape) >= 2 and draw(st.booleans()) else tensor


arrays = tensors().filter(lambda tensor: tensor.ndim > 0).map(lambda tensor: tensor.numpy())
states = st.dictionaries(
    names,
    st.recursive(
        json_values | tensors() | arrays, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8
    ),
    max_size=4,
)


@given(state=states)
def test_any_state_comes_back(state: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        assert_same(load_checkpoint(save_checkpoint(Path(folder), 1, state, None)), state)


def test_a_known_state_comes_back(tmp_path: Path) -> None:
    """What the random states above are made of, once for all."""
    state = {
        "float": torch.tensor([[1.5, -0.0, math.inf, math.nan]]),
        "int": torch.tensor(2**62),
        "byte": torch.arange(24, dtype=torch.uint8).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "none": np.zeros((0, 3), np.uint8),
        "json": {"x": None, "big": 2**1000, "tenth": 0.1, "tiny": 5e-324, "nan": math.nan, "list": [1, [True, "é"]]},
        "empty": {},
    }
    loaded = load_checkpoint(save_checkpoint(tmp_path, 7, state, 1.0))
    assert_same(loaded, state)
    assert loaded["json"]["big"] == 2**1000
    assert math.isnan(loaded["json"]["nan"])
    loaded["byte"][:] = 0  # what was loaded is memory of its own


def test_an_array_without_axes_comes_back(tmp_path: Path) -> None:
    state = {"x": np.array(5.0)}
    assert_same(load_checkpoint(save_checkpoint(tmp_path, 1, state, None)), state)


def test_saving_takes_nothing_from_the_state(tmp_path: Path) -> None:
    state = a_state()
    save_checkpoint(tmp_path, 1, state, None)
    assert_same(json.loads(json.dumps(state, default=str)), json.loads(json.dumps(a_state(), default=str)))


def steps(folder: Path) -> list[int]:
    return [checkpoint.steps for checkpoint in list_checkpoints(folder)]


def test_checkpoints_are_listed_by_steps(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "nowhere") == []
    for number, score in [(30, None), (5, 2.5), (10**9, -1.0), (200, 7)]:
        path = save_checkpoint(tmp_path, number, a_state(number), score)
        assert load_checkpoint(path)["steps"] == number
    (tmp_path / "step-0000000100").mkdir()
    (tmp_path / "step-0000000101").write_bytes(b"")
    assert [(c.steps, c.score) for c in list_checkpoints(tmp_path)] == [(5, 2.5), (30, None), (200, 7), (10**9, -1.0)]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([], None),
        ([None, None], None),
        ([None, 1.0, 3.0, 2.0], 2),
        ([-5.0, -1.0, None], 1),
        ([-1.0, 0.0], 1),
        ([4.0, 4.0], 0),
        ([None, -7], 1),
    ],
)
def test_the_best_has_the_highest_score(scores: list[float | None], best: int | None, tmp_path: Path) -> None:
    """The earlier one of two that are equal, none if nothing was evaluated."""
    for number, score in enumerate(scores):
        save_checkpoint(tmp_path, number, {}, score)
    found = best_checkpoint(list_checkpoints(tmp_path))
    assert (found and found.steps) == best


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for number, score in [(1, 1.0), (2, 9.0), (3, 2.0), (4, None), (5, 3.0)]:
        save_checkpoint(tmp_path, number, a_state(number), score)
    prune_checkpoints(tmp_path, 2, every)
    assert steps(tmp_path) == [2, 4, 5]
    assert [load_checkpoint(c.path)["steps"] for c in list_checkpoints(tmp_path)] == [2, 4, 5]
    prune_checkpoints(tmp_path, 1, every)
    assert steps(tmp_path) == [2, 5]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_same_step_saved_again_leaves_the_first_alone(tmp_path: Path) -> None:
    """Both are there until they are pruned; then the last one stays."""
    paths = [save_checkpoint(tmp_path, 7, a_state(number), score) for number, score in [(0, None), (1, 2.0)]]
    assert [load_checkpoint(path)["steps"] for path in paths] == [0, 1]
    assert [(c.path, c.steps, c.score) for c in list_checkpoints(tmp_path)] == [(paths[0], 7, None), (paths[1], 7, 2.0)]
    prune_checkpoints(tmp_path, 1, every)
    assert [c.path for c in list_checkpoints(tmp_path)] == [paths[1]]


@pytest.mark.parametrize(
    ("keep", "saves"),
    [
        pytest.param(1, 3),
        pytest.param(20, 12),
    ],
)
def test_the_newest_of_one_step_is_last(keep: int, saves: int, tmp_path: Path) -> None:
    """As when a run is stopped in the same evaluation again and again."""
    for number in range(saves):
        path = save_checkpoint(tmp_path, 7, a_state(number), None)
        prune_checkpoints(tmp_path, keep, every)
        assert list_checkpoints(tmp_path)[-1].path == path
        assert load_checkpoint(path)["steps"] == number


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, not to be changed."""
    return save_checkpoint(tmp_path_factory.mktemp("good"), 1234, a_state(), 56.5)


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    """A checkpoint to be damaged."""
    return Path(shutil.copytree(good, tmp_path / good.name))


@pytest.mark.survives("a damaged file of a checkpoint", "the checkpoint before it is used")
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused(name: str, copy: Path, tmp_path: Path) -> None:
    path = copy / name
    data = path.read_bytes()
    other = save_checkpoint(tmp_path, 99, a_state(99), None) / name
    for damage in (data[:-1], data[: len(data) // 2], b"", b"\0" * len(data), data + b"}", other.read_bytes()):
        path.write_bytes(damage)
        assert refused(copy)
    path.unlink()
    assert refused(copy)
    path.mkdir()
    assert refused(copy)
    path.rmdir()
    path.write_bytes(data)
    assert not refused(copy)


@pytest.mark.parametrize("name", [TENSORS, STATE])
def test_no_mutation_of_a_file_goes_unnoticed(name: str, copy: Path) -> None:
    path = copy / name
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(800):
        path.write_bytes(mutated(data, rng))
        assert refused(copy)
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        assert refused(copy)


def test_a_mutated_manifest_is_refused_or_changes_nothing(copy: Path) -> None:
    """Neither listing nor loading fails in any other way, and what is loaded is what was saved."""
    path = copy / MANIFEST
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(1000):
        path.write_bytes(mutated(data, rng))
        listed = list_checkpoints(copy.parent)
        if refused(copy):
            num_refused += 1
        else:
            assert_same(load_checkpoint(copy), a_state())
            assert [checkpoint.path for checkpoint in listed] == [copy]
    assert 600 < num_refused < 1000


@pytest.mark.parametrize(("old", "new"), [(b'"steps": 1234', b'"steps": 1235'), (b'"score": 56.5', b'"score": 96.5')])
def test_a_flipped_digit_in_the_manifest_is_refused(old: bytes, new: bytes, copy: Path) -> None:
    """It would make another checkpoint the newest or the best."""
    data = (copy / MANIFEST).read_bytes()
    assert data.count(old) == 1
    (copy / MANIFEST).write_bytes(data.replace(old, new))
    assert list_checkpoints(copy.parent) == []


@pytest.mark.parametrize("name", [TENSORS, STATE])
def test_mutations_with_the_right_hash_are_refused_or_loaded(name: str, copy: Path) -> None:
    """Nothing but CheckpointError, whatever an attacker writes."""
    data = (copy / name).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(600):
        forge(copy, name, mutated(data, rng))
        outcomes.add(refused(copy))
    assert outcomes == {True, False}


def tensor_file(header: object, data: bytes = b"") -> bytes:
    header_bytes = json.dumps(header).encode()
    return len(header_bytes).to_bytes(8, "little") + header_bytes + data


def one_tensor(dtype: str, shape: list[int], begin: int, end: int, data: bytes) -> bytes:
    return tensor_file({"x": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}, data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (TENSORS, b""),
        (TENSORS, b"\xff" * 8 + b"{}"),
        (TENSORS, (2**40).to_bytes(8, "little") + b"{}"),
        (TENSORS, tensor_file([])),
        (TENSORS, one_tensor("U8", [2**40], 0, 2**40, b"abcd")),
        (TENSORS, one_tensor("U8", [2**40], 0, 4, b"abcd")),
        (TENSORS, one_tensor("F32", [2**63, 2**63], 0, 4, b"abcd")),
        pytest.param(
            TENSORS,
            one_tensor("F32", [2**63, 0], 0, 0, b""),
        ),
        (TENSORS, one_tensor("F32", [-1], 0, 4, b"abcd")),
        (TENSORS, one_tensor("F4", [8], 0, 4, b"abcd")),
        (TENSORS, one_tensor("O", [1], 0, 4, b"abcd")),
        (STATE, b""),
        (STATE, b"{"),
        (STATE, b"\xff\xfe\xfd"),
        (STATE, b"[" * 100_000),
        (STATE, b'{"steps": ' + b"9" * 5000 + b"}"),
        (STATE, b'{"agent": {"net": 5}}'),
    ],
)
def test_a_file_that_lies_is_refused(name: str, data: bytes, copy: Path) -> None:
    forge(copy, name, data)
    assert refused(copy)


@pytest.mark.parametrize(
    ("names", "state"),
    [*itertools.product([[], ["agent/net/w"]], [b"[]", b"null", b'"x"']), (["agent/net/w"], b'{"agent": 5}')],
)
def test_a_state_that_is_no_mapping_is_refused(names: list[str], state: bytes, copy: Path) -> None:
    forge(copy, TENSORS, tensor_file({name: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for name in names}))
    forge(copy, STATE, state)
    assert refused(copy)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "not a wn_dqn checkpoint"),
        ([], "not a wn_dqn checkpoint"),
        ({"format": "another", "version": FORMAT_VERSION}, "not a wn_dqn checkpoint"),
        ({"format": "wn_dqn checkpoint", "version": FORMAT_VERSION + 1}, f"format version {FORMAT_VERSION + 1};"),
        ({"format": "wn_dqn checkpoint", "version": FORMAT_VERSION}, "damaged"),
        (
            {"format": "wn_dqn checkpoint", "version": FORMAT_VERSION, "steps": "1", "score": None, "files": {}},
            "damaged",
        ),
        ({"format": "wn_dqn checkpoint", "version": FORMAT_VERSION, "steps": 1, "score": None, "files": []}, "damaged"),
    ],
)
def test_other_manifests_are_refused(manifest: object, message: str, copy: Path) -> None:
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)
    assert refused(copy)
    assert list_checkpoints(copy.parent) == []


def test_a_message_says_what_is_wrong(copy: Path) -> None:
    data = (copy / TENSORS).read_bytes()
    for damage, message in [(data[:-1], "bytes instead of"), (data[:-1] + b"?", "SHA-256")]:
        (copy / TENSORS).write_bytes(damage)
        with pytest.raises(CheckpointError, match=f"{TENSORS} .*{message}"):
            load_checkpoint(copy)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            load_checkpoint(path)
        assert refused(path)


class Payload:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.trace),)


def torch_file(payload: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2), "x": payload}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", [TENSORS, STATE])
@pytest.mark.parametrize("dump", [pickle.dumps, lambda payload: pickle.dumps(payload, 0), torch_file])
def test_a_pickle_is_refused_and_not_run(
    name: str, dump: Callable[[object], bytes], copy: Path, tmp_path: Path
) -> None:
    data = dump(Payload(tmp_path / "trace"))
    forge(copy, name, data)
    assert refused(copy)
    assert not (tmp_path / "trace").exists()


def test_loading_uses_no_pickle(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was read")

    for module, attribute in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")]:
        monkeypatch.setattr(module, attribute, fail)
    assert_same(load_checkpoint(good), a_state())


class PowerCut(BaseException):
    """Nothing that runs after it counts."""


@pytest.mark.parametrize("error", [PowerCut(), OSError("the disk is full")])
def test_a_crash_at_any_moment_of_a_save_leaves_whole_checkpoints(error: BaseException, tmp_path: Path) -> None:
    """Before or after every fsync and rename; the next save works again."""
    calls = 0

    def crashing(function: Callable[..., Any], at: int) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise error
            outcome = function(*args)
            calls += 1
            if calls == at:
                raise error
            return outcome

        return wrapper

    for crash_at in range(1, 100):
        folder = tmp_path / str(crash_at)
        save_checkpoint(folder, 1, a_state(1), 1.0)
        calls = 0
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in [(os, "fsync"), (Path, "replace"), (Path, "rename")]:
                patch.setattr(owner, name, crashing(getattr(owner, name), crash_at))
            try:
                save_checkpoint(folder, 2, a_state(2), 2.0)
            except type(error):
                crashed = True
            else:
                crashed = False
        listed = list_checkpoints(folder)
        assert [c.steps for c in listed] in ([1], [1, 2])
        assert [c.path for c in listed] == sorted(folder.glob("step-*")), "what has its name is whole"
        for checkpoint in listed:
            assert_same(load_checkpoint(checkpoint.path), a_state(checkpoint.steps))
        assert_same(load_checkpoint(save_checkpoint(folder, 2, a_state(3), 2.0)), a_state(3))
        if not crashed:
            break
    assert crash_at > 2 * 2 * 3, "each of three files is synced and renamed"
