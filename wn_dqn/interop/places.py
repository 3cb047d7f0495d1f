"""Where a trained network is: a path, or ``hf:USER/NAME`` for one on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from wn_dqn.interop.hub import download

HUB = "hf:"


def locate(place: Path) -> Path:
    """The path that `place` means. A network on the Hub is downloaded first, unless it has been before."""
    text = place.as_posix()
    return download(text.removeprefix(HUB)) if text.startswith(HUB) else place
