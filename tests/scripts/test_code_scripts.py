"""The scripts that look at the code: what they count in a small tree, and that this repository satisfies them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

REPOSITORY = Path(__file__).parents[2]


def load(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def measure_code() -> Iterator[ModuleType]:
    yield from load("measure_code")


@pytest.fixture(scope="module")
def show_rooms() -> Iterator[ModuleType]:
    yield from load("show_rooms")


MODULES = {
    "wn_dqn/__init__.py": '"""A package."""',
    "wn_dqn/config/__init__.py": "",
    "wn_dqn/config/registry.py": '''
"""Names."""
PARAMETERIZATIONS: dict[str, int] = {"plain": 1, "odd": 2}
''',
    "wn_dqn/nn/__init__.py": '"""Layers."""',
    "wn_dqn/nn/statistics.py": '''
"""The odd one and the plain one."""
Scores = NDArray[float]

def mean(scores: Scores) -> float:
    """The mean of [T, N]."""
    return 0.0

def worst(scores: Scores | None) -> float:
    """The worst."""
    return 0.0

def _hidden(settings: Settings) -> None:
    names = ["odd", "even"]
    print(names)
    print(names)

class Layer:
    def build(self, settings: "schema.Settings", *, other: int) -> None: ...
''',
    "agents/wn_dqn_agents/registry.py": '"""Agents."""\nAGENT = "plain"\n',
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_metrics_of_a_small_tree(measure_code: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_code, "FRAME_WAY", ("wn_dqn/nn/statistics.py",))
    metrics = {metric.name: metric for metric in measure_code.measure(tree)}
    values = {name: round(metric.value, 3) for name, metric in metrics.items()}
    assert values == {
        "signatures that take the whole settings": 2,
        "files that name a parameterization": 3,
        "lines of a function, median": 3,
        "lines of a function, 90th percentile": 3.7,  # of 1, 3, 3, 4: 0.9 * 3 = 2.7 places after the first
        "lines of a function, longest": 4,
        "docstrings": round(7 / 10, 3),  # without config, Layer and Layer.build
        "shapes or units where arrays pass": 0.5,
        "modules that share their name": 2,
        "modules named like the standard library's": 1,
        "folders at the top of wn_dqn": 2,
        "files at the top of wn_dqn": 1,
        "files on a frame's way to the update": 1,
    }
    assert metrics["shapes or units where arrays pass"].where == ["wn_dqn/nn/statistics.py:9 worst"]
    assert metrics["files that name a parameterization"].where[1] == "wn_dqn/nn/statistics.py: 14 odd"


def test_the_command_says_where_and_whether(
    measure_code: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_code, "FRAME_WAY", ("wn_dqn/gone.py",))
    result = CliRunner().invoke(measure_code.main, [str(tree)])
    assert (result.exit_code, result.stderr) == (1, "Error: FRAME_WAY names what is not there: wn_dqn/gone.py\n")
    monkeypatch.setattr(measure_code, "FRAME_WAY", ())
    result = CliRunner().invoke(measure_code.main, [str(tree), "--where"])
    assert result.exit_code == 0
    assert "  wn_dqn/nn/statistics.py:13 _hidden\n" in result.stdout
    assert CliRunner().invoke(measure_code.main, [str(tree), "--check"]).exit_code == 1


def test_this_repository_can_be_measured(measure_code: ModuleType) -> None:
    """Every file on a frame's way is there, and the registry is a literal."""
    result = CliRunner().invoke(measure_code.main, [str(REPOSITORY)])
    assert result.exit_code == 0, result.output
    assert "90th percentile" in result.stdout


def rooms(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        path = folder / "house" / name.replace("__", "/")
        path.mkdir(parents=True)
        (path / "__init__.py").write_text("")
        (path / "code.py").write_text(text)
    (folder / "house" / "__init__.py").write_text("")
    (folder / "house" / "ground.py").write_text("import os\n")
    return folder / "house"


def test_rooms_are_shown_from_the_top(show_rooms: ModuleType, tmp_path: Path) -> None:
    house = rooms(
        tmp_path,
        attic="from house.hall import code\nimport house.ground\n",
        hall="def f():\n    from ..ground import os\n    from house.hall.code import g\n",
    )
    result = CliRunner().invoke(show_rooms.main, [str(house)])
    assert (result.exit_code, result.output) == (0, "attic   ground, hall\nhall    ground\nground  -\n")


def test_two_rooms_that_import_each_other_fail(show_rooms: ModuleType, tmp_path: Path) -> None:
    house = rooms(
        tmp_path,
        attic="from house import hall\n",
        hall="if TYPE_CHECKING:\n    from house.attic.code import x\n",
        cellar="import house.hall.code\n",
    )
    result = CliRunner().invoke(show_rooms.main, [str(house)])
    assert result.exit_code == 1
    assert result.stderr in ("a circle: attic -> hall -> attic\n", "a circle: hall -> attic -> hall\n")


@pytest.mark.parametrize("folder", ["wn_dqn", "agents/wn_dqn_agents", *sorted(
    path.parent.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "wn_dqn").glob("*/__init__.py")
)])  # fmt: skip
def test_no_two_rooms_of_this_repository_import_each_other(show_rooms: ModuleType, folder: str) -> None:
    """Nor any two modules of a room."""
    result = CliRunner().invoke(show_rooms.main, [str(REPOSITORY / folder)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("script", ["measure_code", "show_rooms"])
def test_help(script: str, request: pytest.FixtureRequest) -> None:
    result = CliRunner().invoke(request.getfixturevalue(script).main, ["--help"])
    assert result.exit_code == 0
    assert f"python scripts/{script}.py" in result.output
