"""The README is short, and every page is written in short sentences."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import PAGES, ROOT, longest_but_a_tenth, sentences


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_short(page: Path) -> None:
    assert longest_but_a_tenth(page.read_text(encoding="utf-8")) <= 28


def test_what_counts_as_a_sentence() -> None:
    text = "# Not this\n\nOne two. [Three four](a.md)\nfive!\n\n- six\n- seven\n\n| a | b c |\n|---|---|\n\n"
    text += "```\nnot\n```\n"
    assert sentences(text) == ["One two.", "Three four five!", "six", "seven", "a", "b c"]
    assert longest_but_a_tenth(text) == 3


def test_pictures_are_small() -> None:
    pictures = [path for path in (ROOT / "docs").iterdir() if path.suffix in (".gif", ".png", ".svg")]
    assert len(pictures) > 3
    assert [path.name for path in pictures if path.stat().st_size > 1_500_000] == []
