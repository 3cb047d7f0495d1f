"""In a notebook: parts that a cell defines, a run, and what is left of it in the next cell."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.slow
def test_a_notebook_trains_and_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "agents")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    cells = notebook.cells
    told = "".join(output.text for output in cells[1].outputs if output.output_type == "stream")
    assert "flat is registered in this process only; others need --plugin MODULE" in told
    assert "run is finished: 1,000 steps" in told
    assert cells[3].outputs[0].text == "Run('run': finished) 1000 True None\n"
    assert cells[4].outputs[0].data["text/plain"] == "Run('run': finished)"
