"""Tells the user how to open a file that a command has written."""

from __future__ import annotations

from pathlib import Path

from wn_dqn.runs.story import pasteable


def written(path: Path, what: str) -> str:
    """One line with the file, its content, and its address for a browser, which shows pages, images and videos."""
    return f"{pasteable(path)}: {what}; in a browser: {path.resolve().as_uri()}"
