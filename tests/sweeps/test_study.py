"""A sweep file: the cells that it stands for, and its mistakes, each in one line before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import wn_dqn

from wn_dqn.config.files import dump_yaml, make_settings, merge, parse_assignment, read_config
from wn_dqn.config.named import config_folder
from wn_dqn.sweeps.cells import Cell
from wn_dqn.sweeps.study import base_settings, make_cells, read_study

GRID = "grid: {param: [standard, wn], seed: 0-2}\n"


def cells_of(tmp_path: Path, text: str) -> dict[str, Cell]:
    file = tmp_path / "s.yaml"
    file.write_text("base: catch-vector\n" + text)
    return {cell.name: cell for cell, _ in make_cells(read_study(file), file, Path("runs/s"))}


def test_the_grid_is_every_combination(tmp_path: Path) -> None:
    assert list(cells_of(tmp_path, GRID)) == [
        f"CatchVector-{param}-seed{seed}" for param in ("standard", "wn") for seed in range(3)
    ]


def test_cells_are_included_and_excluded(tmp_path: Path) -> None:
    names = cells_of(tmp_path, GRID + "exclude: [{param: wn, seed: [0, 2]}]\ninclude: [{game: Pong, param: bn}]\n")
    assert list(names)[3:] == ["CatchVector-wn-seed1", "Pong-bn-seed0"]


def test_other_axes_are_in_the_name_and_overrides_are_not(tmp_path: Path) -> None:
    text = """
grid: {param: [standard, wn], optimizer.epsilon: [1.0e-8, 0.5]}
overrides: [{where: {param: wn}, set: {optimizer.learning_rate: 5.0e-3}}]
"""
    cells = cells_of(tmp_path, text)
    assert list(cells)[1:3] == ["CatchVector-standard-epsilon_0.5-seed0", "CatchVector-wn-epsilon_1e-08-seed0"]
    assert "optimizer.learning_rate=0.005" in cells["CatchVector-wn-epsilon_1e-08-seed0"].command
    assert not any("learning_rate" in word for word in cells["CatchVector-standard-epsilon_0.5-seed0"].command)


def test_the_command_of_a_cell_gives_its_settings(tmp_path: Path) -> None:
    """As `train` reads them: the config, then each assignment, then the options."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "base: catch-vector\nset: {learning.total_steps: 777, network.hidden: [8]}\n"
        "grid: {param: [wn, standard], learning.loss: [mse], network.hidden: [[4, 5]], seed: [3]}\n"
        "overrides: [{where: {param: wn}, set: {optimizer.learning_rate: 1.0e-5}}]\n"
    )
    study = read_study(file)
    for cell, settings in make_cells(study, file, tmp_path):
        words = list(zip(cell.command, cell.command[1:], strict=False))
        sets = [parse_assignment(value) for option, value in words if option == "--set"]
        options = {option[2:]: value for option, value in words if option in ("--game", "--param", "--agent")}
        seed = next(int(value) for option, value in words if option == "--seed")
        read_back = read_config(_written(tmp_path / "base.yaml", dump_yaml(base_settings(study, file))))
        assert make_settings(merge([read_back, *sets, options, {"seed": seed}])) == settings


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gird: {seed: [0]}", "unknown key 'gird'; did you mean grid"),
        ("grid: {sed: [0]}", "unknown setting 'sed'; did you mean seed"),
        ("grid: {seed: 3}", "grid.seed: Input should be a valid list"),
        ("grid: {seed: []}", "grid.seed: Value should have at least 1 item"),
        ("grid: {seed: [0, 1, 0]}", "cell seed=0 is there twice: both are CatchVector-wn-seed0"),
        ("grid: {param: [wn, wm]}", "cell param=wm: invalid value 'wm' for param"),
        ("grid: {learning.batch_size: [32, -1]}", "cell learning.batch_size=-1: invalid value -1"),
        ("grid: {seed: 0-9}\nexclude: [{seed: [0,1,2,3,4,5,6,7,8,9]}]", "no cell is left"),
        ("grid: {seed: 0-999, learning.n_steps: 1-99}", "the grid has 99,000 cells; at most 10,000 are a sweep"),
        (GRID + "overrides: [{where: {param: bn}, set: {seed: 1}}]", "matches no cell"),
        (GRID + "overrides: [{where: {param: wn}, set: {learning.bath_size: 1}}]", "did you mean learning.batch_size"),
        ("include: [{game: Pomg}]", "cell game=Pomg: unknown game 'Pomg'; did you mean Pong"),
        ("stop: {metric: evaluation/mean_return, keep: 1.5, at_steps: [1]}", "stop.keep: Input should be less than 1"),
        ("stop_after: 3 days", "'3 days' is not a duration"),
        ("include: [{game: 'evil:make'}]", "this would run code from outside of wn-dqn, evil:make"),
        ("base: nothing", "not valid YAML"),
        ("- 1", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_starts(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(f"base: catch-vector\n{text}\n")
    status, out, err = wn_dqn("sweep", "run", "s.yaml")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_name_that_is_no_sweep() -> None:
    assert (
        wn_dqn("sweep", "plan", "papr")[2]
        == "wn-dqn: no sweep 'papr': neither a file nor a name; did you mean paper?\n"
    )


@pytest.mark.parametrize(("name", "count"), [("smoke", 4), ("paper", 32), ("minatar", 100)])
def test_a_sweep_that_ships_is_valid(name: str, count: int) -> None:
    file = config_folder() / "sweeps" / f"{name}.yaml"
    assert len(make_cells(read_study(file), file, Path("runs") / name)) == count
