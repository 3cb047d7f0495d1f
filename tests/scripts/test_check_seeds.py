"""The count of seeds that end well: its rules by hand, and a whole table of runs that are there already."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from load_script import load_script
from small_runs import settings_for, train

from wn_dqn.config.files import dump_yaml

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("check_seeds")


@pytest.mark.parametrize(
    ("scores", "well"),
    [
        ([1.0, 9.0, 6.0], True),
        ([1.0, 2.9], False),  # below the bar
        ([1.0, 9.0, 4.4], False),  # less than half of the best
        ([7.0, 9.0, 6.0], False),  # below the first
    ],
)
def test_what_ending_well_means(script: ModuleType, scores: list[float], well: bool) -> None:
    assert script.ended_well(scores, 3.0) is well


def test_seeds_are_ranges_and_numbers(script: ModuleType) -> None:
    assert script.numbers("0-2,7") == [0, 1, 2, 7]


@pytest.mark.parametrize("well", [True, False])
def test_a_table_and_a_verdict(well: bool, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1 if fewer than nine of ten ended well."""
    config, runs = tmp_path / "c.yaml", tmp_path / "runs"
    config.write_text(dump_yaml(settings_for().model_dump()))
    trained: list[str] = []

    def train_here(cell: script.Cell, config: str, changes: tuple[str, ...], output: Path, threads: int) -> None:  # type: ignore[name-defined]
        assert changes == (() if well else ("agent=c51",))
        trained.append(cell.folder)
        assert train(settings_for(seed=cell.seed), output / cell.folder) == 0

    monkeypatch.setattr(script, "train", train_here)
    monkeypatch.setattr(script, "ended_well", lambda scores, bar: well and len(scores) == 3 and bar == 0.25)
    command = ["--config", str(config), "--seeds", "3-4", "-o", str(runs)]
    refused = CliRunner().invoke(script.main, command)
    assert (refused.exit_code, "--bar" in refused.output, trained) == (1, True, [])  # random play scores below 0
    changed = [] if well else ["--set", "agent=c51"]
    done = CliRunner().invoke(script.main, [*command, *changed, "--bar", "0.25"])
    assert trained == ["wn-native-seed3", "wn-native-seed4"]
    assert done.exit_code == (0 if well else 1)
    assert f"wn, native: {2 * well} of 2 ended well" in done.output
    assert "| wn | native | 4 | " in done.output
