"""Figures and pages about runs of the paper's other systems, from tables written by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from command import wn_dqn

from wn_dqn.errors import UsageError
from wn_dqn.paper import pages
from wn_dqn.paper.settings import make_paper_settings


def write_run(
    folder: Path, system: str, param: str, seed: int, scores: list[float], data: str | None = None, **changes: object
) -> Path:
    """A run directory with an evaluation an epoch, four minibatches each."""
    settings = make_paper_settings(system, param, data, seed=seed, **changes)
    folder.mkdir(parents=True)
    (folder / "paper.json").write_text(json.dumps(dataclasses.asdict(settings)))
    column = "error_percent" if system == "cifar10" else "bound"
    rows = [f"{4 * epoch},{epoch},{score}" for epoch, score in enumerate(scores, start=1)]
    (folder / "evaluations.csv").write_text("\n".join([f"steps,epoch,{column}", *rows, ""]))
    losses = [f"{4 * epoch},{epoch},{score / 10}" for epoch, score in enumerate(scores, start=1)]
    (folder / "metrics.csv").write_text("\n".join(["steps,epoch,train/error_percent", *losses, ""]))
    return folder


def command(*words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    return wn_dqn(*map(str, words))


def two_arms(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs" / "a", "cifar10", "wn", 0, [80, 60, 40])
    write_run(tmp_path / "runs" / "b", "cifar10", "wn", 1, [90, 70, 50, 30])
    write_run(tmp_path / "runs" / "c", "cifar10", "standard", 0, [85, 80, 75])
    return tmp_path / "runs"


def test_seeds_of_an_arm_become_a_mean_with_a_band(tmp_path: Path) -> None:
    """Up to the epoch that both seeds have reached; arms stand in the paper's order."""
    standard, wn = pages.read_arms([two_arms(tmp_path)])
    assert (standard.label, wn.label) == ("standard parameterization", "weight normalization")
    _, errors = pages.draw([standard, wn]).axes
    center = errors.lines[1]
    assert center.get_xdata().tolist() == [1, 2, 3]
    assert center.get_ydata().tolist() == [85, 65, 45]
    (band,) = errors.collections
    assert band.get_paths()[0].vertices[:, 1].min() == 40
    assert band.get_paths()[0].vertices[:, 1].max() == 90


@pytest.mark.parametrize(("seeds", "is_range"), [(4, True), (5, False)])
def test_a_band_is_the_range_of_fewer_than_five_seeds(seeds: int, is_range: bool, tmp_path: Path) -> None:
    for seed in range(seeds):
        write_run(tmp_path / str(seed), "vae", "wn", seed, [-100.0 - seed, -90.0 - seed])
    (axes,) = pages.draw(pages.read_arms([tmp_path])).axes
    (band,) = axes.collections
    edges = band.get_paths()[0].vertices[:, 1]
    assert (edges.min() == -100 - (seeds - 1), edges.max() == -90) == (is_range, is_range)


def test_the_training_error_stands_beside_the_test_error_and_titles_name_the_data(tmp_path: Path) -> None:
    training, errors = pages.draw(pages.read_arms([two_arms(tmp_path)])).axes
    np.testing.assert_allclose(training.lines[1].get_ydata(), [8.5, 6.5, 4.5])
    for axes, quantity in ((training, "training error, %"), (errors, "test error, %")):
        assert axes.get_title("left") == f"convolutional classifier on photos (embedded)\n{quantity}"


def test_the_table_has_the_last_epochs_and_the_papers_errors(tmp_path: Path) -> None:
    table = pages.final_table(pages.read_arms([two_arms(tmp_path)]))
    assert table.rows == [
        ["standard parameterization", "75.00", "1", "3", "8.43"],
        ["weight normalization", "35.00\n30.00 to 40.00", "2", "3 to 4", "8.46"],
    ]
    assert table.header == ["arm", "test error, %\nphotos (embedded)", "seeds", "epochs", "the paper\nCIFAR-10"]


def test_the_papers_best_arm_has_its_error() -> None:
    assert pages.PAPER_ERRORS["wn-mean-only-bn"] == 7.31
    assert min(pages.PAPER_ERRORS, key=lambda arm: pages.PAPER_ERRORS[arm]) == "wn-mean-only-bn"


def test_a_page_says_that_embedded_data_is_not_the_papers(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    status, out, err = command("report", two_arms(tmp_path), "-o", page)
    assert (status, err) == (0, "")
    assert "page.html: 3 runs" in out
    text = page.read_text(encoding="utf-8")
    assert "The two columns cannot be compared: ours is of photos (embedded), the paper's of CIFAR-10." in text
    assert "<title>wn_dqn: convolutional classifier on photos (embedded)</title>" in text


def test_a_page_of_official_data_compares(tmp_path: Path) -> None:
    arms = pages.read_arms([write_run(tmp_path / "run", "cifar10", "wn", 0, [9, 8], data="/data/cifar")])
    page = pages.make_page(arms).decode()
    assert "cannot be compared" not in page
    assert "convolutional classifier on CIFAR-10" in page


def test_a_page_of_bounds_has_the_pictures_of_each_arm(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "draw", "wn", 3, [-200, -150])
    (run / "glimpses.png").write_bytes(b"\x89PNG picture")
    page = pages.make_page(pages.read_arms([tmp_path])).decode()
    assert "DRAW on mnist-5k (embedded)" in page
    assert "glimpses: weight normalization, seed 3" in page
    assert "-150.00" in page
    assert "CIFAR-10" not in page


def test_other_settings_make_another_arm(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "vae", "wn", 0, [-120])
    write_run(tmp_path / "b", "vae", "wn", 0, [-110], width=16)
    assert [arm.label for arm in pages.read_arms([tmp_path])] == [
        "weight normalization",
        "weight normalization, width: 8 -> 16",
    ]


def test_the_live_page_is_of_the_agent_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "vae", "vae", "wn", 0, [-120])
    status, out, err = command("report", tmp_path, "--live")
    assert (status, out) == (2, "")
    assert err == "wn-dqn: --live shows runs of the agent; for these, leave it out, or use TensorBoard\n"


@pytest.mark.parametrize("name", ["plot", "report"])
def test_what_cannot_be_shown_is_one_line(name: str, tmp_path: Path) -> None:
    output = tmp_path / {"plot": "x.png", "report": "x.html"}[name]
    vae = write_run(tmp_path / "vae", "vae", "wn", 0, [-120])
    draw = write_run(tmp_path / "draw", "draw", "wn", 0, [-120])
    empty = write_run(tmp_path / "empty", "draw", "wn", 0, [])
    damaged = write_run(tmp_path / "damaged", "draw", "wn", 0, [-120])
    (damaged / "paper.json").write_text("{")
    agent = tmp_path / "agent"
    agent.mkdir()
    both = write_run(tmp_path / "both" / "vae", "vae", "wn", 0, [-120]).parent
    (both / "agent").mkdir()
    (both / "agent" / "config.yaml").write_text("game: Pong")
    for runs, message in (
        ([vae, draw], "cannot be compared: draw on mnist-5k (embedded), vae on mnist-5k (embedded)"),
        ([empty], "no run has an evaluation yet"),
        ([damaged], "paper.json cannot be read: it is not JSON"),
        ([vae, agent], "cannot be shown together"),
        ([both], "cannot be shown together"),
    ):
        status, _, err = command(name, *runs, "-o", output)
        assert status == 2
        assert message in err
        assert err.count("\n") == 1
    assert not output.exists()


def test_options_for_the_agents_runs_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "vae", "wn", 0, [-120])
    status, _, err = command("plot", run, "-o", tmp_path / "x.png", "--smooth", 3)
    assert status == 2
    assert "--smooth is for runs of the agent" in err


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n of somebody else" + bytes(100))
    run = write_run(tmp_path / "run", "vae", "wn", 0, [-120])
    assert command("plot", run, "-o", tmp_path / "x.png")[0] == 2


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "vae", "wn", 0, [-120])
    (arm,) = pages.read_arms([run, tmp_path, run])
    assert len(arm.runs) == 1


def test_no_paths_hold_no_runs_of_these_systems(tmp_path: Path) -> None:
    assert not pages.has_paper_runs([tmp_path])
    with pytest.raises(UsageError, match="no run has an evaluation yet"):
        pages.read_arms([tmp_path])
