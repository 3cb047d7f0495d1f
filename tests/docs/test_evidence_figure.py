"""The numbers of the README's evidence are those that the script of its figure prints."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from load_script import load_script
from pages import ROOT

DRAW = load_script("draw_evidence")


def test_the_readme_has_the_numbers_that_the_script_prints(tmp_path: Path) -> None:
    done = CliRunner().invoke(DRAW.main, ["-o", str(tmp_path / "figure.svg")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "figure.svg").read_text(encoding="utf-8").startswith("<?xml")
    fighter, *breakout = done.output.splitlines()
    assert fighter == "Kung Fu Master: 5,557 (4,507 to 6,688) after 20,000 steps, 10 seeds; random play 449"
    assert breakout == [
        "Breakout: 1.68 in million 1, 3 seeds; predicted 1.62 to 1.96, published 1.79",
        "Breakout: 7.12 in million 2, 3 seeds; predicted 6.28 to 6.76, published 6.52",
    ]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "5,557 on Kung Fu Master (95% interval 4,507 to 6,688, ten seeds)" in readme
    assert "where random play scores 449." in readme
    assert "Breakout score 1.68 in their first million frames and 7.12 in their second" in readme
    assert "1.62 to 1.96 and 6.28 to 6.76 were predicted: the second lies above its interval." in readme
    studies = load_script("draw_studies")
    *_, improvement = studies.numbers(studies.STUDIES["minatar"])
    assert improvement == "a run of wn beats one of standard with probability 0.76 (0.63 to 0.88)"
    assert "with probability 0.76 (95% interval 0.63 to 0.88; ten seeds an arm" in readme


def test_the_table_of_quick_is_that_of_its_page() -> None:
    page = (ROOT / "docs" / "quick.md").read_text(encoding="utf-8")
    rows = (ROOT / "evidence" / "quick.csv").read_text(encoding="utf-8").splitlines()[1:]
    for row in rows:
        seed, *scores = row.split(",")
        assert f"| wn | native | {seed} | {', '.join(f'{int(score):,}' for score in scores)} |" in page
    assert len(rows) == 10
