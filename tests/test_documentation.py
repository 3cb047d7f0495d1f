"""Every page of the documentation names what is there: paths, links, modules, tests."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = "docs/architecture.md"
FAULTS = "docs/resume.md"
RICH_IN_PATHS = (
    "CONTRIBUTING.md",
    ARCHITECTURE,
    FAULTS,
    "docs/agents.md",
    "docs/sweeps.md",
    "docs/what-survives-what.md",
)
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "evidence/README.md"),
    *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md") if path.name != "log.md"),  # the log keeps old names
)
# A path from the top of the repository: in backticks, in a link, in a command or in a drawing.
PATH = re.compile(r"(?<![\w./:-])(?:wn_dqn|agents|tests|scripts|configs|docs|\.github|\.ci)/[\w./-]*")
DOTTED = re.compile(r"(?<![\w./-])(?:wn_dqn|wn_dqn_agents)(?:\.\w+)+")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def named_paths(text: str) -> set[str]:
    """Paths of the repository in `text`, without the full stop that ends a sentence."""
    return {path.rstrip(".-") for path in PATH.findall(text)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_is_there(document: str) -> None:
    paths = named_paths((ROOT / document).read_text())
    assert len(paths) > 5 or document not in RICH_IN_PATHS
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_inside_the_repository_leads_somewhere(document: str) -> None:
    links = LINK.findall((ROOT / document).read_text())
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (ROOT / document).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_dotted_name_can_be_imported(document: str) -> None:
    for name in sorted(set(DOTTED.findall((ROOT / document).read_text()))):
        pkgutil.resolve_name(name)


def test_paths_are_found_wherever_they_stand() -> None:
    text = (
        "`wn_dqn/nn/`, [map](docs/map.md). Run `python scripts/x.py tests/a/b.py`; see wn_dqn/a.py. Not runs/wn_dqn/a."
    )
    assert named_paths(text) == {"wn_dqn/nn/", "docs/map.md", "scripts/x.py", "tests/a/b.py", "wn_dqn/a.py"}


def test_the_map_has_every_room_and_modules_that_are_there() -> None:
    table = (ROOT / ARCHITECTURE).read_text().split("## Rooms and floors")[1].split("\nOutside")[0]
    rooms: set[str] = set()
    for row in re.findall(r"^\| (`.+?) \|.*\| (.*?) ?\|$", table, flags=re.MULTILINE):
        in_row = re.findall(r"`([\w/.]+)`", row[0])
        rooms.update(path.strip("/") for path in in_row)
        for module in re.findall(r"`(\w+\.py)`", row[1]):
            assert any((ROOT / room / module).exists() for room in in_row), module
    packages = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("wn_dqn/*/__init__.py")}
    assert rooms == packages | {"agents/wn_dqn_agents", "wn_dqn/api.py", "wn_dqn/errors.py", "wn_dqn/seeding.py"}


def test_the_map_quotes_the_toys_as_they_are() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / ARCHITECTURE).read_text(), flags=re.DOTALL)
    toys = (ROOT / "tests" / "toys.py").read_text()
    parts = example.split("\n\n\n")
    assert len(parts) == 3
    assert [part for part in parts if part.strip() not in toys] == []


def test_every_fault_names_its_tests_and_they_exist() -> None:
    section = (ROOT / FAULTS).read_text().split("## What survives what")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for fault, _what_happens, tested_by in rows:
        files = re.findall(r"`(tests/[a-z_/]+\.py)`", tested_by)
        assert files, fault
        for name in files:
            text = (ROOT / name).read_text()
            assert "def test_" in text or "RuleBasedStateMachine" in text, name
