"""Successive halving: who stops early, and that nobody counts them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from wn_dqn.analysis.read_runs import read_runs
from wn_dqn.config.files import make_settings
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.sweeps.cells import Cell, Sweep, is_over, mark_stopped_early, standing
from wn_dqn.sweeps.child import Ending, is_done, reached
from wn_dqn.sweeps.driver import drive, unfinished
from wn_dqn.sweeps.halving import stop_losers
from wn_dqn.sweeps.parts import Halving, Resources
from wn_dqn.sweeps.stopping import Stopping

HALVING = Halving(metric="evaluation/mean_return", keep=0.5, at_steps=[10, 20])


def make(folder: Path, game: str, rate: int, seed: int) -> Cell:
    name = f"{game}-{rate}-{seed}"
    words = ("train", "--game", game, "--seed", str(seed), "--set", f"x={rate}", "--run-dir", str(folder / name))
    return Cell(name, words, folder / name, 30)


def play(cell: Cell, until_steps: int, score: Callable[[Cell], float]) -> None:
    """What a run leaves that was stopped there, or has finished."""
    cell.folder.mkdir(exist_ok=True)
    rows = [f"{steps},{score(cell)},1" for steps in range(10, until_steps + 1, 10)]
    (cell.folder / "evaluations.csv").write_text("\n".join(["steps,mean_return,games", *rows, ""]))
    status = {"status": "finished" if until_steps == 30 else "paused", "steps": until_steps}
    (cell.folder / "status.json").write_text(json.dumps(status))


def rate_of(cell: Cell) -> float:
    """The score of a cell: its rate, and a little chance in which the seeds differ more than neighbours do."""
    _, rate, seed = cell.name.split("-")
    return float(rate) + (1.4 if seed == "0" else -1.4)


class Instantly:
    """An executor that trains in no time, and remembers whom."""

    def __init__(self, stop_at: int | None = -1) -> None:
        self.trained: list[tuple[int | None, list[str]]] = []
        self._stop_at = stop_at

    def __call__(
        self, cells: Sequence[Cell], until_steps: int | None, stop: Stopping, on_ended: Callable[[Cell, Ending], None]
    ) -> None:
        self.trained.append((until_steps, [cell.name for cell in cells]))
        if until_steps == self._stop_at:
            stop.reason = "the test"
            return
        for cell in cells:
            play(cell, until_steps or 30, rate_of)
            on_ended(cell, "done")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Four rates, two seeds."""
    cells = [make(tmp_path, "Pong", rate, seed) for rate in (1, 2, 3, 4) for seed in (0, 1)]
    return Sweep(tmp_path, tuple(cells), Resources(), HALVING)


def names(*rates: int) -> list[str]:
    return [f"Pong-{rate}-{seed}" for rate in rates for seed in (0, 1)]


def test_half_of_the_settings_go_on_with_all_of_their_seeds(sweep: Sweep) -> None:
    executor, messages = Instantly(), list[str]()
    drive(sweep, sweep.cells, executor, Stopping(), messages.append)
    assert executor.trained == [(10, names(1, 2, 3, 4)), (20, names(3, 4)), (None, names(4))]
    states = {cell.name: standing(cell) for cell in sweep.cells}
    assert [each.state for each in states.values()] == ["stopped early"] * 6 + ["finished"] * 2
    assert states["Pong-3-1"].reason == "place 2 of 2 at step 20: mean_return 3; 1 went on"
    assert states["Pong-1-0"].reason == "place 4 of 4 at step 10: mean_return 1; 2 went on"
    assert "stopped early: Pong-3-0, Pong-3-1: place 2 of 2 at step 20: mean_return 3; 1 went on" in messages


@pytest.mark.parametrize("stop_at", [20, -1])
def test_a_driver_that_begins_again_decides_the_same(stop_at: int, sweep: Sweep) -> None:
    drive(sweep, sweep.cells, Instantly(stop_at), Stopping(), lambda _: None)
    executor = Instantly()
    drive(sweep, unfinished(sweep.cells), executor, Stopping(), lambda _: None)
    finished = [cell.name for cell in sweep.cells if standing(cell).state == "finished"]
    assert finished == names(4)
    assert executor.trained[0] == (10, [])


def test_games_are_compared_apart(tmp_path: Path) -> None:
    """One that gives small scores only is not all lost."""
    cells = [make(tmp_path, game, rate, 0) for game, rate in (("Pong", 1), ("Pong", 2), ("Qbert", 100), ("Qbert", 200))]
    for cell in cells:
        play(cell, 10, rate_of)
    stop_losers(cells, HALVING, 10)
    assert [standing(cell).state for cell in cells] == ["stopped early", "waiting"] * 2


def test_a_cell_that_was_never_evaluated_is_not_compared(sweep: Sweep) -> None:
    for cell in sweep.cells[2:]:
        play(cell, 10, rate_of)
    stop_losers(sweep.cells, HALVING, 10)
    assert [standing(cell).state for cell in sweep.cells] == ["waiting"] * 2 + ["stopped early"] * 2 + ["waiting"] * 4


def test_an_evaluation_after_the_step_counts_as_one_there(sweep: Sweep) -> None:
    play(sweep.cells[0], 20, rate_of)
    assert reached(sweep.cells[0], 15)
    assert is_done(sweep.cells[0], 15)
    assert not reached(sweep.cells[0], 21)
    assert not is_over(sweep.cells[0])


def test_runs_that_stopped_early_are_in_no_comparison(tmp_path: Path) -> None:
    """A folder is read without them, and says so. One that is named is read."""
    for name in ("winner", "loser"):
        RunDirectory(tmp_path / name).create()
        RunDirectory(tmp_path / name).write_settings(make_settings({"game": "Catch"}).model_dump())
    loser = Cell("loser", (), tmp_path / "loser", 30)
    mark_stopped_early(loser, "place 2 of 2 at step 10", 10)
    runs, problems = read_runs([tmp_path])
    assert [run.name for run in runs] == ["winner"]
    assert len(problems) == 1
    assert "loser lost a comparison of its sweep and stopped early: left out" in problems[0]
    assert [run.name for run in read_runs([tmp_path / "loser"])[0]] == ["loser"]
