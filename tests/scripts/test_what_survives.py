"""The page about what survives what is that of the tests."""

from __future__ import annotations

from load_script import load_script


def test_the_page_is_current() -> None:
    script = load_script("what_survives")
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run python scripts/what_survives.py"


def test_every_row_says_what_happens_and_what_comes_of_it() -> None:
    rows = list(load_script("what_survives").rows())
    assert len({danger for danger, _, _ in rows}) == len(rows) > 30
    assert all("|" not in "".join(row) and all(row) for row in rows)
