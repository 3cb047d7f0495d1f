"""scripts/check_release.py: which Pythons it takes, and that it stops at the first thing that fails."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from load_script import load_script

CHECK = load_script("check_release")


def test_each_version_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(CHECK, "build", lambda folder: Path("wn_dqn-0.whl"))
    monkeypatch.setattr(CHECK, "try_wheel", lambda python, wheel, folder: tried.append(folder.name))
    versions = {"python3.12": "3.12.1", "also3.12": "3.12.1", "shim": "", sys.executable: "3.11.0"}
    monkeypatch.setattr(CHECK, "version_of", versions.__getitem__)
    done = CliRunner().invoke(CHECK.main, ["python3.12", "also3.12", "shim"])
    assert (done.exit_code, tried) == (0, ["3.12.1", "3.11.0"])


def test_the_version_of_a_python_and_of_none() -> None:
    assert CHECK.version_of(sys.executable) == platform.python_version()
    assert CHECK.version_of("no-such-python") == ""


def test_a_command_that_fails_ends_it() -> None:
    with pytest.raises(click.ClickException, match="not here"):
        CHECK.run(sys.executable, "-c", "import sys; sys.exit('not here')")
