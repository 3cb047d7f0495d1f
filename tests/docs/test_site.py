"""The site builds without a warning, needs no other, and leaves nothing out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from load_script import load_script
from pages import ROOT
from ruamel.yaml import YAML

import wn_dqn
import wn_dqn.nn
from wn_dqn.cli.main import cli
from wn_dqn.config.files import setting_help

SITE = load_script("site", "docs")
STARTING_POINTS = {
    *("first-run", "watch", "resume", "evaluate", "api", "own-environment", "own-layer", "cluster", "contributing"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; building it takes some seconds."""
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")])}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**environment, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def pages_of(entries: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    for entry in entries:
        (value,) = entry.values()
        if isinstance(value, str):
            yield value
        else:
            yield from pages_of(value)


def test_every_page_is_in_the_navigation_once() -> None:
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = list(pages_of(YAML(typ="safe").load(configuration)["nav"]))
    assert len(listed) == len(set(listed))
    assert set(listed) == {path.name for path in ROOT.glob("docs/*.md")} | set(SITE.COPIES)


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)
    modules = {**wn_dqn._MODULES, **wn_dqn.nn._MODULES}
    assert sorted(shown) == sorted(f"{module}.{name}" for name, module in modules.items())
    assert {*wn_dqn.__all__, *wn_dqn.nn.__all__} - {"__version__", "nn"} == modules.keys()


def test_links_lead_to_pages_files_or_nowhere() -> None:
    assert SITE.site_target("docs/a.md", "../CONTRIBUTING.md") == "contributing.md"
    assert SITE.site_target("docs/a.md", "../configs/quick.yaml") == "files/configs/quick.yaml"
    assert SITE.site_target("README.md", "docs/quick.md") == "quick.md"
    assert SITE.site_target("evidence/README.md", "breakout") is None
    assert SITE.site_target("docs/a.md", "https://example.org") == "https://example.org"


def test_examples_in_help_texts_keep_their_lines() -> None:
    assert SITE.with_fences("Do.\n\n\x08\na  1\nb  2\n\nMore.") == "Do.\n\n```text\na  1\nb  2\n```\n\nMore."
    assert SITE.with_fences("\x08\na\n") == "```text\na\n```\n"


@pytest.mark.slow
def test_the_site_leaves_no_setting_and_no_option_out(site: Path) -> None:
    settings = (site / "settings.html").read_text(encoding="utf-8")
    assert [key for key, _, _ in setting_help() if f"<code>{key}</code>" not in settings] == []
    page = (site / "cli.html").read_text(encoding="utf-8")
    assert "UNSET" not in page
    commands: list[click.Command] = [cli]
    for found in commands:
        commands += found.commands.values() if isinstance(found, click.Group) else []
    options = {name for found in commands for option in found.params for name in (*option.opts, *option.secondary_opts)}
    assert [name for name in options if name.startswith("--") and f"<code>{name}</code>" not in page] == []
    headings = " ".join(re.findall(r"<h\d id=\"([\w-]+)\"", page))
    assert [found.name for found in commands[1:] if str(found.name) not in headings] == []


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe)[^>]+src=[\"']?https?://|<link[^>]+stylesheet[^>]+https?://")
    assert [page.name for page in site.glob("*.html") if loads.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_what_people_look_for_is_two_clicks_from_the_start(site: Path) -> None:
    """Train, watch, resume, evaluate, Python, an environment, a layer, a cluster, citing: one click each."""
    start = (site / "index.html").read_text(encoding="utf-8").split("<article")[1].split("</article")[0]
    linked = set(re.findall(r"href=\"([\w-]+)\.html", start))
    assert linked >= STARTING_POINTS
