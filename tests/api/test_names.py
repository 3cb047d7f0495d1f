"""The public names: imported when they are used, typed for those who read types, each with an example that runs."""

from __future__ import annotations

import ast
import doctest
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wn_dqn
import wn_dqn.nn

ROOT = Path(__file__).resolve().parents[2]


def python(program: str) -> str:
    """What a program prints that runs in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_alone_imports_nothing_but_the_standard_library() -> None:
    program = (
        "import sys, json; before = set(sys.modules); import wn_dqn; print(json.dumps([*set(sys.modules) - before]))"
    )
    imported = json.loads(python(program))
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == {"wn_dqn"}
    assert len(imported) < 20


def test_settings_and_errors_need_no_torch() -> None:
    assert python("import sys, wn_dqn; wn_dqn.Settings, wn_dqn.UsageError; print('torch' in sys.modules)") == "False\n"


@pytest.mark.parametrize("package", [wn_dqn, wn_dqn.nn])
def test_the_stub_has_the_names_that_the_package_has(package: object) -> None:
    """Each from the module that it comes from: what a type checker sees is what is imported."""
    stub = ast.parse(Path(f"{package.__file__}i").read_text())  # type: ignore[attr-defined]
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.asname: node.module for node in imports for alias in node.names}
    typed.pop("nn", None)
    assert typed == package._MODULES  # type: ignore[attr-defined]


def test_every_name_is_there() -> None:
    assert {name for name in wn_dqn.__all__ if not hasattr(wn_dqn, name)} == set()
    assert {name for name in wn_dqn.nn.__all__ if not hasattr(wn_dqn.nn, name)} == set()
    assert set(wn_dqn.__all__) <= set(dir(wn_dqn))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        wn_dqn.trian  # noqa: B018


FINDER = doctest.DocTestFinder()
EXAMPLES = [
    pytest.param(test, id=test.name)
    for name in wn_dqn.__all__
    for test in FINDER.find(getattr(wn_dqn, name), name, module=False)
    if test.examples
]


def test_every_function_and_class_has_an_example() -> None:
    with_example = {param.id.split(".")[0] for param in EXAMPLES}
    assert set(wn_dqn.__all__) - with_example == {"__version__", "nn", "UsageError", "RunError"}


@pytest.mark.usefixtures("own_rows", "small_network")
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_of_a_docstring_runs(example: doctest.DocTest, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that has the run ``runs/Catch``."""
    monkeypatch.chdir(run.parents[1])
    example.globs = {"wn_dqn": wn_dqn, "np": np, "math": math, "Path": Path}
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert "".join(report) == ""
