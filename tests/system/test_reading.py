"""The reading door: regular files of a bounded size, strict text, JSON of finite numbers, and typed values."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wn_dqn.system import reading
from wn_dqn.system.reading import UnreadableError

posix_only = pytest.mark.skipif(
    sys.platform == "win32", reason="there are no pipes with a name, and links need a right"
)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo if sys.platform != "win32" else lambda _: None,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a loop of links": lambda path: path.symlink_to(path),
    "a folder": lambda path: path.mkdir(),
    "a terabyte of nothing": sparse,
}


@posix_only
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("read", [reading.read_bytes, reading.read_text, reading.sha256])
def test_no_file_of_its_kind(kind: str, read: Callable[[Path, int], object], tmp_path: Path) -> None:
    NO_FILES[kind](tmp_path / "file")
    with pytest.raises(OSError, match=r".") as caught:
        read(tmp_path / "file", 1000)
    assert caught.value.strerror


def test_a_file_is_as_large_as_its_kind_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert reading.read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="it has more than 4 bytes"):
        reading.read_bytes(tmp_path / "file", 4)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_file_that_says_it_is_empty_and_is_not() -> None:
    with pytest.raises(OSError, match="it has more than 3 bytes"):
        reading.read_bytes(Path("/proc/self/status"), 3)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    try:
        (tmp_path / "link").symlink_to(tmp_path / "file")
    except OSError:
        pytest.skip("links need a right here")
    assert reading.read_bytes(tmp_path / "link", 5) == b"1"


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(OSError, match="no file can have such a name"):
        reading.read_bytes(Path("a\0b"), 5)


@pytest.mark.parametrize(
    "text",
    [b"NaN", b"[Infinity]", b"1e400", b"", b"[1", b"[" * 10**5, b"9" * 5000, b'"\xff"', b"[{}" + b",[]" * 10**6 + b"]"],
    ids=lambda text: ascii(text)[:20],
)
def test_no_json_of_finite_numbers(text: bytes) -> None:
    with pytest.raises(UnreadableError):
        reading.parse_json(text)


class Known(reading.Record):
    count: reading.Steps
    mean: reading.Number = 0.0
    name: reading.Text = ""


@pytest.mark.parametrize(
    "value",
    [
        *({"count": count} for count in (-1, 10**16, 1.0, "1", True, None, [1])),
        *({"count": 1, "mean": mean} for mean in (1e101, -1e308, float("nan"), float("inf"), 10**400, "1")),
        *({"count": 1, "name": name} for name in ("\ud800", "x" * 10_001, 1)),
        *([], None, "x", {}),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_typed_values(value: object) -> None:
    with pytest.raises(UnreadableError) as caught:
        reading.validated(Known, value)
    assert caught.value.strerror.isprintable()


def test_what_is_not_known_is_kept() -> None:
    assert reading.validated(Known, {"count": 1, "other": [1]}).model_dump(exclude_unset=True) == {
        "count": 1,
        "other": [1],
    }
