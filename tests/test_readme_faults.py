"""The README's table "What survives what" tells of tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_fault_names_its_tests_and_they_exist() -> None:
    section = (ROOT / "README.md").read_text().split("## What survives what")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for fault, _what_happens, held_by in rows:
        files = re.findall(r"`(tests/[a-z_/]+\.py)`", held_by)
        assert files, fault
        for name in files:
            text = (ROOT / name).read_text()
            assert "def test_" in text or "RuleBasedStateMachine" in text, name
