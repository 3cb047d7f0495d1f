"""Tests a release before its publication: builds it, checks its metadata, and uses its wheel in clean environments.

    python scripts/check_release.py                       # with this Python
    python scripts/check_release.py python3.12 python3.13 # and with these, if they are installed

For each interpreter, it creates a virtual environment, and installs the wheel with the versions in constraints.txt.
Then it runs `wn-dqn train --config smoke` and `wn-dqn report` in an empty folder. Packages are downloaded. Nothing is
uploaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
FOUND_BY_NAME = ("python3.11", "python3.12", "python3.13", "python3.14")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command without the settings of this environment; exit if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def version_of(python: str) -> str:
    """The version of this interpreter, like 3.12.4. It is empty if the command does not run a Python."""
    if shutil.which(python) is None:
        return ""
    program = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=False).stdout.strip()


def build(folder: Path) -> Path:
    """Build both distributions, check their metadata, and return the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(folder.iterdir()))
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_wheel(python: str, wheel: Path, folder: Path) -> None:
    """Install the wheel into a new environment in `folder`, and train with it there."""
    folder.mkdir()
    run(python, "-m", "venv", folder / "env")
    programs = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    install = [programs / "python", "-m", "pip", "install", "--quiet"]
    run(*install, "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    run(programs / "wn-dqn", "train", "--config", "smoke", "--device", "cpu", cwd=folder)
    run(programs / "wn-dqn", "report", "runs", cwd=folder)


@click.command(help=__doc__)
@click.argument("pythons", nargs=-1)
def main(pythons: tuple[str, ...]) -> None:
    found = pythons or tuple(filter(shutil.which, FOUND_BY_NAME))
    by_version = {version_of(python): python for python in (*found, sys.executable)}
    by_version.pop("", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder / "dist")
        print(f"{wheel.name}: built, metadata checked")
        for version, python in by_version.items():
            began_s = time.monotonic()
            try_wheel(python, wheel, folder / version)
            print(f"Python {version}: installed, trained and reported in {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
