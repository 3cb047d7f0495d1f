"""docs/api.md is run as it stands: a stranger's path, from the first training to an own environment on film."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command import wn_dqn as command

import wn_dqn

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), flags=re.DOTALL)
FILES = {text.splitlines()[0].removeprefix("# "): text for _, text in BLOCKS if re.match(r"# \w+\.py\n", text)}
LONGEST = {"Corridor": 15, "Halved": 15, "Small": 15, "Enough": 5}


def run_line(line: str) -> str:
    """The output of a command of the page."""
    words = shlex.split(line)
    if words[0] == "wn-dqn":
        status, out, err = command(*words[1:], "--device", "cpu")
        assert status == 0, err
        return out
    assert words[0] == "python"
    path = os.pathsep.join([str(ROOT), str(ROOT / "agents")])
    done = subprocess.run(
        [sys.executable, *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("own_rows")
def test_every_example_runs_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in FILES:
        monkeypatch.setitem(sys.modules, name.removesuffix(".py"), None)  # type: ignore[arg-type]
        del sys.modules[name.removesuffix(".py")]
    namespace: dict[str, object] = {}
    out: dict[str, str] = {}
    for kind, text in BLOCKS:
        name = text.splitlines()[0].removeprefix("# ")
        if name in FILES:
            Path(name).write_text(text)
        elif kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(text, "docs/api.md", "exec"), namespace)
            out[text] = printed.getvalue()
        else:
            out |= {line: run_line(line) for line in text.splitlines()}
    assert "paused\n" in out.values()
    assert out["python train.py"] == "finished 1000\n"
    corridor = wn_dqn.Run("runs/corridor")
    assert (corridor.status, corridor.steps) == ("finished", 2000)
    assert (corridor.settings.plugins, corridor.settings.game) == (["my_parts"], "corridor:Corridor")
    for film in ("game.gif", "corridor.gif"):
        assert Path(film).read_bytes().startswith(b"GIF8")


def test_parts_of_ones_own_are_short() -> None:
    """Lines of code, without docstrings and empty ones."""
    found = {}
    for _, text in BLOCKS:
        with contextlib.suppress(SyntaxError):
            classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
            for node in classes:
                if ast.get_docstring(node):
                    node.body = node.body[1:]
                found[node.name] = len(ast.unparse(node).replace("\n\n", "\n").splitlines())
    assert found.keys() == LONGEST.keys()
    assert [name for name, lines in found.items() if lines > LONGEST[name]] == []


def test_only_what_runs_is_shown() -> None:
    assert len(BLOCKS) > 8
    assert list(FILES) == ["corridor.py", "my_parts.py", "train.py"]
    fences = re.findall(r"^```(\w*)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE)
    assert set(fences) == {"python", "sh", ""}
