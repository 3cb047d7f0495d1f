"""How to look at what a command has written."""

from __future__ import annotations

from pathlib import Path

from wn_dqn.runs.story import pasteable


def written(path: Path, what: str) -> str:
    """One line: the file, what is in it, and its address for a browser, which shows pages, pictures and videos."""
    return f"{pasteable(path)}: {what}; in a browser: {path.resolve().as_uri()}"
