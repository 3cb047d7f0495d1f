"""In a notebook: parts that a cell defines, a run, and what is left of it in the next cell."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
SHORTER = {'"catch"': '"catch-vector"', "progress=": 'learning={"total_steps": 1_000}, progress='}
EXAMPLE = ROOT / "examples" / "first_run.ipynb"
CELLS = [
    """
import torch, wn_dqn

class Flat(wn_dqn.nn.QNetwork):
    def build(self, layers):
        self.add_head(layers, self.obs_shape[0], 16)
    def features(self, x):
        return x

wn_dqn.register_network("flat", Flat)
""",
    """
class Count(wn_dqn.Callback):
    steps = 0
    def on_step(self, view):
        self.steps = view.steps

count = Count()
settings = {"game": "CatchVector", "network": {"name": "flat"}, "learning": {"total_steps": 1_000}}
run = wn_dqn.train("smoke", run_dir="run", callbacks=[count], device="cpu", **settings)
""",
    'wn_dqn.register_network("flat", Flat)  # a cell may be run again',
    """
policy = run.policy()
obs, _ = policy.make_env().reset(seed=0)
print(run, count.steps, type(policy._network.agent.online) is Flat, policy.predict(obs)[1])
""",
    "run",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for a kernel that finds the package."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "agents")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run all cells, in `folder`; an error in one is raised."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


@pytest.mark.slow
def test_a_notebook_trains_and_plays(folder: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    execute(notebook, folder)
    cells = notebook.cells
    printed = "".join(output.text for output in cells[1].outputs if output.output_type == "stream")
    assert "flat is registered in this process only; others need --plugin MODULE" in printed
    assert "run is finished: 1,000 steps" in printed
    assert cells[3].outputs[0].text == "Run('run': finished) 1000 True None\n"
    assert cells[4].outputs[0].data["text/plain"] == "Run('run': finished)"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(SHORTER, id="short"),
        pytest.param({}, id="whole", marks=pytest.mark.thorough),
    ],
)
def test_the_example_runs(changes: dict[str, str], folder: Path) -> None:
    """examples/first_run.ipynb: two plots and a film."""
    notebook = nbformat.read(EXAMPLE, as_version=4)
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
    execute(notebook, folder)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 2
    assert kinds.count("image/gif") == 1
    assert next(cell.outputs for cell in notebook.cells if "result.mean" in cell.source)[0].text.endswith("30 games\n")


def test_the_example_is_a_small_file() -> None:
    assert EXAMPLE.stat().st_size < 300_000
