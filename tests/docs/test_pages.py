"""Every command and every Python block of the pages works: run, in the order of its page and in one folder."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from command import wn_dqn as command
from pages import PAGES, ROOT, Block, blocks, words

from wn_dqn.cli.main import cli

RUN_ELSEWHERE = {"README.md", "api.md", "architecture.md", "parameterizations.md"}
"""pages whose blocks other tests run or compare; those of the README follow below"""
LONG = {"agents.md", "cluster.md", "compare.md", "environments.md", "hub.md", "sweeps.md"}
"""pages that train many runs, or play many games"""
ENDLESS = {"agents.md", "environments.md"}
"""pages with the protocols of papers, which take days: their trainings are short even where all tests run"""
SHORT = "1000"
"""agent steps of a short training"""
SHORTER = ("--steps", SHORT, "--set", "evaluation.steps=400", "--set", "evaluation.num_envs=2")
RUN = [
    pytest.param(page, id=page.name, marks=[pytest.mark.slow, *([pytest.mark.thorough] if page.name in LONG else [])])
    for page in PAGES
    if page.name not in RUN_ELSEWHERE and any(block.kind in ("sh", "python") for block in blocks(page))
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_rows: None) -> Path:
    """An empty folder, which is the current one and on Python's path; trainings are short unless all tests run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WN_DQN_DEVICE", "cpu")
    if os.environ.get("WN_DQN_TESTS") != "all":
        monkeypatch.setenv("WN_DQN_STEPS", SHORT)
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run_line(line: str, training: Sequence[str] = ()) -> None:
    """Run a command of a page, a training with more options; a line that ends in `|| true` may also be stopped."""
    if not line.startswith("wn-dqn"):
        subprocess.run(["sh", "-c", line], check=True, timeout=60)
        return
    given = [name for word in words(line)[1:] for name in (sorted(glob.glob(word)) if "*" in word else [word])]
    status, _, err = command(*given, *(training if given[0] == "train" else ()))
    assert status in ((0, 3) if line.endswith("|| true") else (0,)), f"{line}: {err}"


def run_blocks(page: Path, found: list[Block], training: Sequence[str] = ()) -> None:
    namespace: dict[str, object] = {}
    for block in found:
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            exec(compile(block.text, page.name, "exec"), namespace)
        elif block.kind == "sh":
            for line in block.lines():
                run_line(line, training)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run_in_their_order(page: Path) -> None:
    run_blocks(page, blocks(page), SHORTER if page.name in ENDLESS else ())


@pytest.mark.slow
def test_the_readme_runs(folder: Path) -> None:
    """Its Python, which has twelve lines, and the three commands that test an installation."""
    page = ROOT / "README.md"
    (example,) = (block for block in blocks(page) if block.kind == "python")
    assert sum(map(bool, example.text.splitlines())) == 12
    run_blocks(page, [example])
    assert (folder / "first.gif").read_bytes().startswith(b"GIF8")
    tests = re.findall(r"^\| `(wn-dqn [^`]+)` \| [\d.]+ s", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(tests) == 3
    for line in tests:
        run_line(line)


COMMANDS = [
    pytest.param(line, id=f"{page.name}-{number}")
    for page in PAGES
    for block in blocks(page)
    for number, line in enumerate(block.lines())
    if line.startswith("wn-dqn ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_that_a_page_shows_exists(line: str) -> None:
    given = words(line.split(" | ")[0])[1:]
    found: click.Command = cli
    context = click.Context(cli, info_name="wn-dqn")
    while isinstance(found, click.Group):
        name = given.pop(0)
        assert name in found.commands, name
        found = found.commands[name]
        context = click.Context(found, info_name=name, parent=context)
    found.make_parser(context).parse_args(given)  # raises for an option that is not there


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 60
    assert Block("console", "$ wn-dqn doctor  # here\nwn-dqn printed this\n").lines() == ["wn-dqn doctor  # here"]
    with pytest.raises(click.NoSuchOption):
        test_every_command_and_option_that_a_page_shows_exists("wn-dqn train --colour red")
