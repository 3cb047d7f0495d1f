"""Published curves under ours: the numbers of the table, for the right game, and no wider than our own."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import wn_dqn
from written_runs import write_run

from wn_dqn.analysis import plotting
from wn_dqn.analysis.read_runs import group_runs, read_runs
from wn_dqn.analysis.reference import _dopamine, reference_curve
from wn_dqn.config.games import all_games, find_game


def test_the_numbers_of_the_table() -> None:
    """Breakout and Space Invaders after one and two million frames."""
    breakout = reference_curve("dopamine", find_game("Breakout"))
    assert breakout is not None
    assert breakout.steps[:2].tolist() == [250_000, 500_000]
    assert breakout.center[:2].tolist() == [1.79, 6.52]
    assert breakout.interval[:, :2].tolist() == [[1.71, 6.36], [1.90, 6.63]]
    older = reference_curve("dopamine-rmsprop", find_game("SpaceInvaders"))
    assert older is not None
    assert older.center[:2].tolist() == [167.16, 189.88]
    assert len(older.steps) == 199


def test_every_curve_is_of_a_game_that_exists() -> None:
    """60 games, each with both agents; ale-py has more games than that."""
    names = {game.rom_id.replace("_", "") for game in all_games().values()}
    games = {game for _, game in _dopamine()}
    assert len(games) == 60
    assert len(_dopamine()) == 120
    assert games <= names


def test_it_is_drawn_as_far_as_ours_go(tmp_path: Path) -> None:
    write_run(tmp_path, "Breakout", "standard", 0, [1.0, 5.0, 12.0])
    write_run(tmp_path, "Catch", "standard", 0, [-1.0, 1.0])
    groups = group_runs(read_runs([tmp_path])[0])[0]
    plain, _ = plotting.learning_curves(groups, x_axis="frames", levels="none")
    figure, notes = plotting.learning_curves(groups, x_axis="frames", levels="none", reference="dopamine")
    axes, catch = figure.axes
    assert axes.get_xlim() == plain.axes[0].get_xlim()
    ours, theirs = axes.get_lines()
    assert ours.get_xdata()[-1] == 3e6
    assert theirs.get_xdata()[:3].tolist() == [1e6, 2e6, 3e6]
    assert theirs.get_ydata()[:3].tolist() == [1.79, 6.52, 15.23]
    assert axes.get_legend().get_texts()[1].get_text() == "Dopamine's DQN (Adam, 5 runs, training games)"
    assert len(catch.get_lines()) == 1
    assert notes == ["Catch: dopamine has no such game"]


@pytest.mark.parametrize(("option", "value"), [("--metric", "held_out_max_q"), ("--x", "hours")])
def test_what_a_published_curve_cannot_stand_beside(option: str, value: str, tmp_path: Path) -> None:
    run = write_run(tmp_path, "Breakout", "standard", 0, [1.0])
    output = tmp_path / "a.png"
    status, _, err = wn_dqn("plot", str(run), "-o", str(output), "--reference", "dopamine", option, value)
    assert (status, err.count("\n"), output.exists()) == (2, 1, False)
    assert "--reference has mean_return or train/episode_return over steps, frames or epochs" in err


def test_a_report_has_it_too(tmp_path: Path) -> None:
    run = write_run(tmp_path, "Breakout", "standard", 0, [1.0, 2.0])
    page = tmp_path / "a.html"
    pages = []
    for options in ([], ["--reference", "dopamine"]):
        assert wn_dqn("report", str(run), "-o", str(page), *options)[0] == 0
        pages.append(page.read_bytes())
    assert pages[0] != pages[1]
