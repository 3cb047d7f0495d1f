"""Networks to import that are damaged, endless, or far larger once they are read: one line, and no memory."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import os
import pickle
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import wn_dqn
from safetensors.torch import save
from small_runs import OBS_SHAPE
from torch import Tensor

from wn_dqn.interop import import_weights
from wn_dqn.interop.import_weights import read_weights
from wn_dqn.nn.networks import NatureNetwork
from wn_dqn.nn.standard import PLAIN

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes, and links need a right")


def a_state() -> dict[str, Any]:
    """Of a network of 3 actions, as we name it."""
    return dict(NatureNetwork(PLAIN, OBS_SHAPE, 3).state_dict())


def with_bias(bias: Tensor) -> dict[str, Any]:
    state = {name: tensor.contiguous() for name, tensor in a_state().items()}
    return {**state, "output.bias": bias}


def pickled(state: Any, *, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def zipped(name: str, data: bytes, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def damaged(data: bytes) -> bytes:
    """The middle of it flipped."""
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0x5A for byte in data[middle : middle + 30]) + data[middle + 30 :]


def bomb() -> bytes:
    """A thousand times as large as its zip, and larger than any network may be."""
    return zipped("policy.pth", bytes(import_weights.MAX_BYTES + 1))


class Zeros:
    """A pickle that asks for ten gigabytes."""

    def __reduce__(self) -> Any:
        return bytearray, (10**10,)


def legacy_of_many_numbers() -> bytes:
    """As before torch 1.6, with a storage that says it has 2**30 numbers."""
    data = pickled({"a": torch.zeros(77_777)}, legacy=True)
    return data.replace((77_777).to_bytes(4, "little"), (2**30).to_bytes(4, "little"))


def deep_header() -> bytes:
    header = json.dumps(
        {str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(30_000)}
    ).encode()
    return len(header).to_bytes(8, "little") + header


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "sparse": ("a.pt", lambda: pickled(with_bias(torch.zeros(3).to_sparse()))),
    "meta": ("a.pt", lambda: pickled(with_bias(torch.zeros(3, device="meta")))),
    "nested": ("a.pt", lambda: pickled(with_bias(torch.nested.nested_tensor([torch.zeros(3)])))),
    "float8": ("a.pt", lambda: pickled(with_bias(torch.zeros(3).to(torch.float8_e4m3fn)))),
    "float8 in safetensors": ("a.safetensors", lambda: save(with_bias(torch.zeros(3).to(torch.float8_e4m3fn)))),
    "whole numbers": ("a.pt", lambda: pickled(with_bias(torch.zeros(3, dtype=torch.int64)))),
    "expanded": ("a.pt", lambda: pickled(with_bias(torch.zeros(1).expand(3)))),
    "expanded to 10**10": ("a.pt", lambda: pickled(with_bias(torch.zeros(1).expand(10**10)))),
    "a number without axes": ("a.pt", lambda: pickled(with_bias(torch.tensor(1.0)))),
    "no actions": ("a.pt", lambda: pickled(with_bias(torch.zeros(0)))),
    "1e300": ("a.pt", lambda: pickled(with_bias(torch.full((3,), 1e300, dtype=torch.float64)))),
    "1e300 in safetensors": ("a.safetensors", lambda: save(with_bias(torch.full((3,), 1e300, dtype=torch.float64)))),
    "a pickle of ten gigabytes": ("a.pt", lambda: zipped("archive/data.pkl", pickle.dumps(Zeros(), 2), 0)),
    "a memo of ten gigabytes": ("a.pt", lambda: zipped("archive/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.", 0)),
    "an old pickle of many numbers": ("a.pt", legacy_of_many_numbers),
    "a list in itself": ("a.pt", lambda: zipped("archive/data.pkl", b"\x80\x02]q\x00h\x00a.", 0)),
    "names that are no text": ("a.pt", lambda: pickled({5: torch.zeros(1)})),
    "a compressed archive": ("a.pt", lambda: zipped("archive/data.pkl", pickle.dumps({}, 2))),
    "a bomb": ("a.zip", bomb),
    "damaged deflate": ("a.zip", lambda: damaged(zipped("policy.pth", os.urandom(9) * 999))),
    "damaged lzma": ("a.zip", lambda: damaged(zipped("policy.pth", os.urandom(9999), zipfile.ZIP_LZMA))),
    "damaged bzip2": ("a.zip", lambda: damaged(zipped("policy.pth", os.urandom(9999), zipfile.ZIP_BZIP2))),
    "no policy": ("a.zip", lambda: zipped("x", b"")),
    "a long header": ("a.safetensors", deep_header),
    "a header without an end": ("a.safetensors", lambda: b"\xff" * 16),
    "compressed by others": ("a.pt", lambda: zlib.compress(b"x") + bz2.compress(b"x") + lzma.compress(b"x")),
}


@pytest.mark.survives(
    "a network to import that is damaged, or far larger once it is read", "one line says what is wrong"
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_network_is_one_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(import_weights, "MAX_BYTES", 2**24)  # so that what is too large is made at once
    name, content = HOSTILE[what]
    Path(name).write_bytes(content())
    status, out, err = wn_dqn("import", name, "-o", "run", "--game", "Catch")
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert name in err
    assert not Path("run").exists()


@posix_only
@pytest.mark.survives("an import of a pipe, a device or a terabyte of nothing", "one line says what is wrong")
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.zip"])
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_no_file_to_import(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "device":
        Path(name).symlink_to("/dev/zero")
    else:
        Path(name).touch()
        os.truncate(name, 2**40)
    status, _, err = wn_dqn("import", name, "-o", "run", "--game", "Catch")
    assert (status, err.count("\n")) == (2, 1)
    assert f"cannot read {name}" in err


@pytest.mark.survives("`module.` or `_orig_mod.` before all names of an imported network", "they are left out")
@pytest.mark.parametrize("legacy", [False, True], ids=["", "before torch 1.6"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_the_names_that_wrappers_put_before_all_others(prefix: str, legacy: bool, tmp_path: Path) -> None:
    state = a_state()
    data = pickled({prefix + name: tensor for name, tensor in state.items()}, legacy=legacy)
    (tmp_path / "a.pt").write_bytes(data)
    loaded = read_weights(tmp_path / "a.pt").state_dict()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickled({name: tensor.to(dtype) for name, tensor in a_state().items()}))
    assert read_weights(tmp_path / "a.pt").state_dict()["output.bias"].dtype == torch.float32
