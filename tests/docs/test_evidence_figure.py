"""The numbers of the README's evidence are those that the script of its figure prints."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from load_script import load_script
from pages import ROOT

from wn_dqn.analysis.reference import reference_curve
from wn_dqn.config.games import find_game

DRAW = load_script("draw_evidence")


def test_the_readme_has_the_numbers_that_the_script_prints(tmp_path: Path) -> None:
    done = CliRunner().invoke(DRAW.main, ["-o", str(tmp_path / "figure.svg")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "figure.svg").read_text(encoding="utf-8").startswith("<?xml")
    fighter, breakout = done.output.splitlines()
    assert fighter == "Kung Fu Master: 5,557 (4,507 to 6,688) after 20,000 steps, 10 seeds; random play 449"
    assert breakout.startswith("Breakout: 1.63 in the first million frames, 3 seeds; predicted 1.62 to 1.96")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "5,557 on Kung Fu Master (95% interval 4,507 to 6,688, ten seeds)" in readme
    assert "Random play scores 449" in readme
    assert "Breakout scores 1.63 in its first million frames; the prediction was 1.62 to 1.96" in readme
    published = reference_curve("dopamine", find_game("Breakout"))
    assert published is not None
    assert sum(DRAW.read_breakout() < published.interval[0, 0]) == 2
    assert "two of\nthree seeds lie below all five published runs" in readme


def test_the_table_of_quick_is_that_of_its_page() -> None:
    page = (ROOT / "docs" / "quick.md").read_text(encoding="utf-8")
    rows = (ROOT / "evidence" / "quick.csv").read_text(encoding="utf-8").splitlines()[1:]
    for row in rows:
        seed, *scores = row.split(",")
        assert f"| wn | native | {seed} | {', '.join(f'{int(score):,}' for score in scores)} |" in page
    assert len(rows) == 10
