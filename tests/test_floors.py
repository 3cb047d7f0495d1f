"""The house stands: no module imports from its own floor or from above, and every room stands in a row."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports


def test_a_module_imports_only_from_floors_below_its_own(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """The `layers` contract in pyproject.toml holds."""
    monkeypatch.chdir(pytestconfig.rootpath)
    assert lint_imports() == 0


def linted(root: Path) -> subprocess.CompletedProcess[str]:
    """import-linter, in a process of its own that finds the packages below `root` and no others."""
    program = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'agents')!r}]\n" + (
        "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    )
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def house(tmp_path: Path, pytestconfig: pytest.Config) -> Path:
    """A copy of the packages and the contract."""
    for name in ("wn_dqn", "agents"):
        shutil.copytree(pytestconfig.rootpath / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(pytestconfig.rootpath / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_new_room_needs_a_row(house: Path) -> None:
    (house / "wn_dqn" / "shed.py").write_text("")
    done = linted(house)
    assert done.returncode == 1, done.stdout
    assert "wn_dqn.shed" in done.stdout


def test_an_import_from_above_is_found(house: Path) -> None:
    with (house / "wn_dqn" / "nn" / "__init__.py").open("a") as file:
        file.write("from wn_dqn.runs import launch\n")
    done = linted(house)
    assert done.returncode == 1, done.stdout
    assert "wn_dqn.nn is not allowed to import wn_dqn.runs" in done.stdout
