"""The study of the paper's other systems: its table holds what the runs' tables hold."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from load_script import load_script

from wn_dqn.paper.pages import draw, read_arms
from wn_dqn.paper.settings import ARMS, make_paper_settings
from wn_dqn.paper.storage import PaperDirectory

STUDY = load_script("study_paper")


def write_runs(runs: Path) -> None:
    for param in ARMS["vae"]:
        for seed in STUDY.SEEDS:
            folder = PaperDirectory(runs / f"vae-{param}-{seed}")
            folder.create()
            folder.write_paper_settings(make_paper_settings("vae", param, None, seed=seed))
            bounds = [(20 * epoch, epoch, -200 + 30 * epoch + seed / 7) for epoch in (1, 2, 3)]
            for name, column in (("evaluations.csv", "bound"), ("metrics.csv", "train/loss")):
                with (folder.path / name).open("w", newline="") as file:
                    csv.writer(file).writerows([("steps", "epoch", column), *bounds])


def test_the_table_gives_the_curves_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STUDY, "ROOT", tmp_path)
    STUDY.table_of("vae").parent.mkdir(parents=True)
    write_runs(tmp_path / "runs")
    STUDY.write_table("vae", tmp_path / "runs")
    head, *rows = STUDY.table_of("vae").read_text().splitlines()
    assert head == "arm,seed,epoch,train/loss,bound"
    assert rows[0] == "standard,0,1,-170,-170"
    assert len(rows) == 2 * 5 * 3
    (whole,) = draw(read_arms([tmp_path / "runs"])).axes
    (again,) = draw(STUDY.read_table("vae")).axes
    for ours, theirs in zip(again.lines, whole.lines, strict=True):
        np.testing.assert_allclose(ours.get_xydata(), theirs.get_xydata(), rtol=1e-5)
        assert ours.get_label() == theirs.get_label()
