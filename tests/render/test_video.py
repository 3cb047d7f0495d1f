"""Video files: what is written can be read back by somebody else, whole, at the right speed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wn_dqn.errors import RunError, UsageError
from wn_dqn.render import video
from wn_dqn.render.video import Frame, write_video


def moving_square(count: int) -> Iterator[Frame]:
    """A red square that moves a pixel per frame over dark blue."""
    for i in range(count):
        frame = np.full((96, 128, 3), (0, 0, 80), np.uint8)
        frame[32:64, i : i + 32] = (220, 0, 0)
        yield frame


@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
def test_opencv_decodes_every_frame(tmp_path: Path, suffix: str) -> None:
    """In order, in the right colours (red is not blue), 60 a second."""
    path = tmp_path / f"game{suffix}"
    assert write_video(path, moving_square(50)) == 50
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 60
    decoded = []
    while (read := capture.read())[0]:
        decoded.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    for frame, expected in zip(decoded, moving_square(50), strict=True):
        assert np.abs(frame.astype(int) - expected).mean() < 8
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_pillow_decodes_the_gif(tmp_path: Path) -> None:
    """Every third frame for a twentieth of a second; equal ones in a row are one that stays longer."""
    path = tmp_path / "game.gif"
    still = [np.zeros((96, 128, 3), np.uint8)] * 6
    assert write_video(path, [*moving_square(30), *still]) == 36
    with Image.open(path) as gif:
        frames, durations_ms = [], []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB")))
            durations_ms.append(gif.info["duration"])
        assert gif.info["loop"] == 0
    assert durations_ms == [50] * 10 + [100]
    np.testing.assert_array_equal(frames[:10], list(moving_square(30))[::3])


@pytest.mark.parametrize("suffix", [".webm", ".gif"])
def test_a_video_that_was_not_finished_leaves_the_old_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"game{suffix}"
    write_video(path, moving_square(5))
    before = path.read_bytes()

    def breaks_off() -> Iterator[Frame]:
        yield from moving_square(7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, breaks_off())
    with pytest.raises(RunError, match="at least one frame"):
        write_video(path, [])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(path.name, before)]


def test_a_file_that_lacks_frames_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = video._encode
    monkeypatch.setattr(video, "_encode", lambda *args: encode(*args) + 1)
    with pytest.raises(RunError, match="of 6 frames written only 5 can be read back"):
        write_video(tmp_path / "game.webm", moving_square(5))
    monkeypatch.setattr(video, "write_gif", lambda file, frames, gif=video.write_gif: gif(file, frames) + 1)
    with pytest.raises(RunError, match="the GIF lasts 100 ms instead of 150"):
        write_video(tmp_path / "game.gif", moving_square(5))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_before_the_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def game() -> Iterator[Frame]:
        raise AssertionError("the game has begun")
        yield

    for name, message in (
        ("game.avi", "game.avi is not a known video format; valid: .webm, .mp4, .gif"),
        ("none/game.webm", "its parent is not a writable folder"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            write_video(tmp_path / name, game())
    monkeypatch.setattr(video, "_CODECS", {".webm": ("NONE", "NADA")})
    with pytest.raises(UsageError, match=re.escape("no encoder for .webm here (tried NONE, NADA); write a .gif")):
        write_video(tmp_path / "game.webm", game())


def test_encoders_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """FFmpeg warns of codecs that work, and complains of those that are only tried."""
    write_video(tmp_path / "game.webm", moving_square(2))
    write_video(tmp_path / "game.mp4", moving_square(2))
    assert capfd.readouterr() == ("", "")
