"""Video files: WebM and MP4 through OpenCV's FFmpeg, GIF through Pillow. Frames are RGB, uint8 [height, width, 3]."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wn_dqn.errors import RunError, UsageError
from wn_dqn.system import output_file
from wn_dqn.system.durable import replacing_by_name

Frame = NDArray[np.uint8]

FRAMES_PER_S = 60
"""the console's frame rate"""
GIF_PERIOD_FRAMES = 3
"""a GIF keeps every third frame: its unit of time is 1/100 s, and at 20 frames per second each takes 5 units"""
# The first encoder that opens is used. All browsers play WebM. In MP4 they play avc1 (H.264), which OpenCV's wheels do
# not contain, and vp09 (VP9), but not mp4v.
_CODECS = {".webm": ("VP80", "VP90"), ".mp4": ("avc1", "vp09", "mp4v"), ".gif": ()}


def find_encoder(path: Path) -> str | None:
    """The codec for the extension of `path`; None for GIF, which needs none.

    Raises UsageError if the format is unknown, if no encoder for it opens here, or if the folder is not writable.
    """
    suffix = path.suffix.lower()
    if suffix not in _CODECS:
        raise UsageError(f"{path} is not a known video format; valid: {', '.join(_CODECS)}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write {path}: {'it is' if path.is_dir() else 'its parent is not'} a writable folder")
    output_file.require_ours(path, suffix.removeprefix("."))
    if suffix == ".gif":
        return None
    with tempfile.TemporaryDirectory() as folder:
        for codec in _CODECS[suffix]:
            writer = _open_writer(Path(folder) / f"probe{suffix}", codec, (64, 64))
            opened = writer.isOpened()
            writer.release()
            if opened:
                return codec
    raise UsageError(f"OpenCV has no encoder for {suffix} here (tried {', '.join(_CODECS[suffix])}); write a .gif")


def write_video(path: Path, frames: Iterable[Frame]) -> int:
    """Write `frames` to `path` at 60 per second and check the file. Returns the number of frames.

    The file is built under a temporary name, so that `path` is either the old file or the complete new one. Raises
    UsageError as `find_encoder` does, before the first frame is requested. Raises RunError if the file does not contain
    all frames.
    """
    codec = find_encoder(path)
    with replacing_by_name(path) as temporary:
        if codec is None:
            with temporary.open("wb") as file:
                written = write_gif(file, counted := _Counted(frames))
            _check_gif(temporary, written)
            return counted.count
        total = _encode(temporary, codec, frames)
        with temporary.open("ab") as file:
            file.write(_mark(path.suffix.lower()))
        _check_video(temporary, total)
    return total


def _mark(suffix: str) -> bytes:
    """The mark at the end of our own videos: an element of WebM, or a box of MP4, that players skip."""
    text = output_file.MARK.encode()
    if suffix == ".webm":
        return bytes([0xEC, 0x80 | len(text)]) + text  # EBML's Void
    return (8 + len(text)).to_bytes(4, "big") + b"free" + text


def write_gif(file: BinaryIO | BytesIO, frames: Iterable[Frame]) -> int:
    """Write every third of `frames` (60 per second) as a looping GIF. Returns the number of frames written."""
    kept = _Counted(itertools.islice(frames, 0, None, GIF_PERIOD_FRAMES))
    pictures = (
        Image.fromarray(frame).quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for frame in kept
    )
    first = next(pictures, None)
    if first is None:
        raise RunError("a video needs at least one frame")
    first.save(
        file, "GIF", save_all=True, append_images=pictures, duration=_GIF_DURATION_MS, loop=0, comment=output_file.MARK
    )
    return kept.count


_GIF_DURATION_MS = 1000 * GIF_PERIOD_FRAMES // FRAMES_PER_S


class _Counted:
    """An iterable, counted while it is read."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = frames
        self.count = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.count += 1
            yield frame


def _open_writer(path: Path, codec: str, size: tuple[int, int]) -> cv2.VideoWriter:
    with _silent_stderr():  # the caller reports errors; FFmpeg also prints harmless ones
        return cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FRAMES_PER_S, size)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Suppress the output of C libraries on standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _encode(path: Path, codec: str, frames: Iterable[Frame]) -> int:
    writer, written = None, 0
    for frame in frames:
        height, width, _ = frame.shape
        if writer is None:
            writer = _open_writer(path, codec, (width, height))
            if not writer.isOpened():
                raise RunError(f"the {codec} encoder takes no frames of {width}x{height}")
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        written += 1
    if writer is None:
        raise RunError("a video needs at least one frame")
    writer.release()
    return written


def _check_video(path: Path, expected: int) -> None:
    capture = cv2.VideoCapture(str(path))
    decoded = 0
    while capture.read()[0]:
        decoded += 1
    capture.release()
    if decoded != expected:
        raise RunError(f"of {expected:,} frames written only {decoded:,} can be read back; is the disk full?")


def _check_gif(path: Path, expected: int) -> None:
    """Check the GIF's duration. Equal consecutive frames are stored as one longer frame, so counting would not do."""
    duration_ms = 0
    with Image.open(path) as gif:
        for index in range(getattr(gif, "n_frames", 1)):
            gif.seek(index)
            gif.load()
            duration_ms += gif.info.get("duration", _GIF_DURATION_MS)
    if duration_ms != expected * _GIF_DURATION_MS:
        raise RunError(f"the GIF lasts {duration_ms} ms instead of {expected * _GIF_DURATION_MS}; is the disk full?")
