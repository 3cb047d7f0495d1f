"""Readers of official files, and the embedded data."""

from __future__ import annotations

import errno
import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from wn_dqn.errors import RunError, UsageError
from wn_dqn.paper import data
from wn_dqn.paper.data import crop_corners, load_images, mnist_5k, parse_cifar, parse_idx, photos


def idx(array: np.ndarray) -> bytes:
    """`array` of bytes as an idx file."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_an_idx_file_gives_its_array_back() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert (parse_idx(idx(array), "x") == array).all()


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:6], lambda data: b"PK" + data, lambda _: b""]
)
def test_a_damaged_idx_file_is_refused_in_one_line(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UsageError, match=r"train\.idx") as refused:
        parse_idx(change(idx(np.zeros((2, 3), np.uint8))), "train.idx")
    assert "\n" not in str(refused.value)


def test_a_cifar_batch() -> None:
    records = np.zeros((10_000, 3073), np.uint8)
    records[:, 0] = np.arange(10_000) % 10
    records[3, 1 + 1024 + 32 + 5] = 77
    images, labels = parse_cifar(records.tobytes(), "data_batch_1.bin")
    assert images[3, 1, 1, 5] == 77
    assert labels[:12].tolist() == [*range(10), 0, 1]
    records[8, 0] = 11
    with pytest.raises(UsageError, match="label 11"):
        parse_cifar(records.tobytes(), "data_batch_1.bin")
    with pytest.raises(UsageError, match="not whole"):
        parse_cifar(records.tobytes()[:-1], "data_batch_1.bin")


def test_missing_files_are_named_with_where_they_are_described(tmp_path: Path) -> None:
    for system, name in (("cifar10", "data_batch_1.bin"), ("vae", "train-images-idx3-ubyte")):
        with pytest.raises(UsageError, match=rf"{name}.*described at http"):
            load_images(system, str(tmp_path))
    with pytest.raises(UsageError, match="there is no"):
        load_images("draw", str(tmp_path / "nowhere"))


def test_a_python_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="no pickle is loaded"):
        load_images("cifar10", str(tmp_path))


def test_archives_are_verified(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((60_000, 1, 1), np.uint8))))
    with pytest.raises(UsageError, match="MD5 differs"):
        load_images("vae", str(tmp_path))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"x")
    with pytest.raises(UsageError, match="MD5 differs"):
        load_images("cifar10", str(tmp_path))


def test_mnist_5k_is_balanced_and_looks_like_digits() -> None:
    images = mnist_5k()
    assert images.train.shape == (4000, 1, 28, 28)
    assert images.test_labels.bincount().tolist() == [100] * 10
    assert 30 < images.train.float().mean() < 37  # MNIST's mean is 33.3
    assert images.train[0, 0, :2].max() == 0


def test_photos_have_ten_classes() -> None:
    images = photos()
    assert images.train.shape == (2000, 3, 32, 32)
    assert images.test_labels.bincount().tolist() == [50] * 10


def test_no_test_crop_shares_a_pixel_with_a_training_crop() -> None:
    masks = []
    for test in (False, True):
        mask = np.zeros((300, 451), bool)
        for y, x in crop_corners(300, 451, test=test):
            mask[y : y + 32, x : x + 32] = True
        assert mask.any()
        masks.append(mask)
    assert not (masks[0] & masks[1]).any()


@pytest.mark.parametrize("available", [None, 1536, 1535])
def test_inputs_are_mapped_where_they_take_more_than_a_quarter_of_the_memory(
    available: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers either way, and no file is left. 96 numbers of 4 bytes are a quarter of 1,536."""
    monkeypatch.setattr(data, "available_memory_bytes", lambda: available)
    mapped: list[object] = []
    from_file = torch.from_file
    monkeypatch.setattr(data.torch, "from_file", lambda *a, **k: (mapped.append(a), from_file(*a, **k))[1])
    x = torch.arange(96.0).view(4, 24)
    kept = data.kept_in_memory_or_mapped(torch.split(x, 3), x.shape, tmp_path)
    assert torch.equal(kept, x)
    assert torch.equal(kept[torch.tensor([3, 0])], x[[3, 0]])
    assert bool(mapped) == (available == 1535)
    assert not list(tmp_path.iterdir())


def test_no_room_for_mapped_inputs_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts() -> Iterator[torch.Tensor]:
        yield torch.zeros(1, 3)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data, "available_memory_bytes", lambda: 1)
    with pytest.raises(RunError, match=r"no room for 0\.0 GiB of images: .*No space left"):
        data.kept_in_memory_or_mapped(parts(), (2, 3), tmp_path)
    assert not list(tmp_path.iterdir())
