"""`wn-dqn report`: the page says what was run, what came out and what is missing, and a browser shows all of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import script
from command import wn_dqn
from written_runs import write_run

from wn_dqn.analysis import scores
from wn_dqn.analysis.read_runs import group_runs, read_run, read_runs
from wn_dqn.config.registry import PARAMETERIZATIONS

LENGTH = 200


def fresh(steps: int, mean: float, protocol: str = "paper", games: int = 60) -> dict[str, Any]:
    return {"checkpoint": f"step-{steps}", "steps": steps, "protocol": protocol, "games": games, "mean": mean, "std": 9}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Space Invaders as long as the paper's, both arms; an unfinished run; folders that hold none."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    generator = np.random.default_rng(0)
    for param, top in (("standard", 1700.0), ("wn", 2100.0)):
        for seed in range(2):
            curve = 148 + (top - 148) * (1 - np.exp(-np.arange(LENGTH) / 40)) + generator.normal(0, 60, LENGTH)
            best = 250_000 * (int(curve.argmax()) + 1)
            names = [f"layers/{layer}/w_norm_mean" for layer in ("conv1", "conv2", "conv3", "hidden", "output")]
            metrics = {name: generator.random(500).tolist() for name in ["train/loss", "train/mean_q", *names]}
            tests = [fresh(best, 1000.0 + seed), fresh(250_000, 1.0)] if param == "wn" else []
            write_run(folder, "SpaceInvaders", param, seed, curve.tolist(), metrics=metrics, fresh=tests)
    write_run(folder, "Pong", "wn", 0, [-20.0, -19.0], status="paused", learning__total_steps=1_000_000)
    (folder / "Bad-wn-seed0").mkdir()
    (folder / "Bad-wn-seed0" / "config.yaml").write_text("game: [")
    return folder


@pytest.fixture(scope="module")
def report(runs: Path) -> Path:
    path = runs.parent / "report.html"
    status, out, err = wn_dqn("report", str(runs), "-o", str(path), "--price-per-hour", "2")
    assert (status, out) == (0, f"{path}: 5 runs; in a browser: {path.as_uri()}\n")
    assert err.count("\n") == 1
    assert "Bad-wn-seed0/config.yaml is not valid YAML" in err
    return path


class Tables(HTMLParser):
    """The cells of each table by its caption, a list for each row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.text, self._caption, self._rows, self._open = "", "", [[""]], ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "caption":
            self._caption = ""
        elif tag == "small":
            self._rows[-1][-1] += " | "
        self._open = "caption" if tag == "caption" else tag if tag in ("td", "th") else self._open

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self._caption.split(".")[0]] = self._rows
        if tag in ("td", "th", "caption"):
            self._open = ""

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"
        if self._open == "caption":
            self._caption += data
        elif self._open:
            self._rows[-1][-1] += data


def table(report: Path, caption: str) -> list[list[str]]:
    (rows,) = [rows for name, rows in Tables(report.read_text()).tables.items() if name.startswith(caption)]
    return rows


def test_scores_are_those_of_the_tables(report: Path, runs: Path) -> None:
    header, pong, standard, wn = table(report, "Figure 6")
    assert header[3] == "Maximum over epochs (biased upward)"
    first, second = (read_run(runs / f"SpaceInvaders-wn-seed{seed}").scores for seed in range(2))
    assert wn[:3] == ["SpaceInvaders", "weight normalization", "2,179"]
    assert wn[3].startswith(f"{(first.max() + second.max()) / 2:,.1f} | [")
    assert wn[4] == "1,000.5 | [1,000.0, 1,001.0] | 120 games, paper"
    last = (first[-5:].mean() + second[-5:].mean()) / 2
    assert wn[5].startswith(f"{last:,.1f} | [")
    assert wn[6:] == [
        f"{(last - 148) / (1668.7 - 148):.1%}",
        "2",
        "50,000,000",
        "125,000 steps | epsilon 0.05 | no time limit",
    ]
    assert (standard[2], standard[4]) == ("1,779", "not run")
    assert pong == [
        *("Pong", "weight normalization", "not published", "-19.0", "not run", "-19.5", "3.4%"),
        *("1 | 0 finished", "500,000", "125,000 steps | epsilon 0.05 | no time limit"),
    ]


def test_it_says_what_is_missing(report: Path) -> None:
    text = Tables(report.read_text()).text
    for words in (
        "Pong-wn-seed0: paused at step 500,000 of 1,000,000",
        "Bad-wn-seed0/config.yaml is not valid YAML",
        "Pong, weight normalization: a single seed, so no interval",
        "Pong, standard parameterization: not run",
        "not run for 3 runs: Pong-wn-seed0, SpaceInvaders-standard-seed0, SpaceInvaders-standard-seed1",
        "of the paper's four games, Breakout, Enduro, Seaquest: not run",
        "1 of 5 runs are shorter than the paper's 50,000,000 steps",
    ):
        assert words in text


def test_the_comparison_is_of_finished_runs(report: Path, runs: Path) -> None:
    arms = {
        param: [read_run(runs / f"SpaceInvaders-{param}-seed{seed}").scores[-5:].mean() for seed in range(2)]
        for param in ("standard", "wn")
    }
    assert table(report, "Probability that")[1:] == [["SpaceInvaders", "1.00", "[1.00, 1.00]", "2, 2"]]
    _, standard, wn = table(report, "Human-normalized scores over")
    for row, param in ((standard, "standard"), (wn, "wn")):
        expected = np.mean((np.array(arms[param]) - 148) / (1668.7 - 148))
        assert row[1].startswith(f"{expected:,.1%} | [")
        assert row[2:] == [f"{expected:,.1%}", "2", "SpaceInvaders"]


def test_time_and_cost(report: Path) -> None:
    header, *rows = table(report, "Hours of training")
    assert header[-1] == "Cost"
    assert [row[5:] for row in rows] == [["2.00", "2.00", "1", "4.00"]] + [["20.00", "2.00", "1", "4.00"]] * 4


def test_settings_that_differ(report: Path) -> None:
    rows = table(report, "Settings that differ")
    assert ["learning.total_steps", "1000000", "1: Pong-wn-seed0"] in rows
    assert [
        "optimizer.learning_rate",
        "0.0001",
        "2: SpaceInvaders-standard-seed0, SpaceInvaders-standard-seed1",
    ] in rows
    assert not any(row[0] == "replay.capacity" for row in rows)
    assert ["replay.capacity", "1000000"] in table(report, "Described by")


def test_the_page_needs_nothing_else(report: Path) -> None:
    page = report.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)|@import|url\(|<script""", page)
    assert page.count("data:image/svg+xml") == 5  # curves; one figure for Pong, three for Space Invaders


@pytest.mark.slow
@pytest.mark.skipif(script.find_browser() is None, reason="no chromium with a chromedriver on this machine")
def test_a_browser_shows_all_of_it(report: Path, runs: Path, tmp_path: Path) -> None:
    """On a screen and on a telephone: all figures are drawn, nothing hangs over the edge or fails to load."""
    svg = tmp_path / "curves.svg"
    assert wn_dqn("plot", str(runs), "-o", str(svg))[0] == 0
    with script.chromium(1300, 900) as driver:
        driver.get(report.as_uri())
        for width in (1300, 400):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            images = driver.execute_script(
                "return [...document.images].map(i => i.complete && i.naturalWidth > 100 && i.alt.length > 10)"
            )
            assert images == [True] * 5
            (tmp_path / f"report-{width}.png").write_bytes(driver.get_screenshot_as_png())
        loaded = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name.slice(0, 5))")
        assert set(loaded) <= {"data:"}
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        driver.get(svg.as_uri())
        assert driver.execute_script("return document.documentElement.nodeName") == "svg"
        assert driver.execute_script("return document.querySelectorAll('path').length") > 20
        assert script.cv2.imdecode(np.frombuffer(driver.get_screenshot_as_png(), np.uint8), 1).std() > 5


@pytest.mark.parametrize("content", [b"<html>mine</html>", b"steps,mean_return\n"])
def test_only_a_report_is_overwritten(tmp_path: Path, content: bytes) -> None:
    write_run(tmp_path / "runs", "Pong", "wn", 0, [1.0])
    path = tmp_path / "mine.html"
    path.write_bytes(content)
    status, _, err = wn_dqn("report", str(tmp_path / "runs"), "-o", str(path))
    assert (status, path.read_bytes()) == (2, content)
    assert "choose another name" in err


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, "Pong", "wn", 0, [], status="running")
    path = tmp_path / "report.html"
    pages = []
    for _ in range(2):  # the second one overwrites the first
        status, _, err = wn_dqn("report", str(tmp_path), "-o", str(path))
        assert (status, err) == (0, "")
        pages.append(path.read_text())
    assert pages[0] == pages[1]
    text = Tables(pages[0]).text
    assert "no evaluation yet" in text
    assert "running at step 0" in text
    assert "not computed" in text
    status, _, err = wn_dqn("report", str(tmp_path / "absent"), "-o", str(path))
    assert (status, err) == (2, f"wn-dqn: {tmp_path / 'absent'} is not a run directory: there is none\n")


def test_names_from_a_run_are_not_taken_for_html(tmp_path: Path) -> None:
    write_run(tmp_path / "<b>&", "Pong", "wn", 0, [1.0])
    assert wn_dqn("report", str(tmp_path / "<b>&"), "-o", str(tmp_path / "a.html"))[0] == 0
    page = (tmp_path / "a.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page


@pytest.mark.survives("any parameterization on the games of the paper", "it has a report")
@pytest.mark.parametrize("param", [*list(PARAMETERIZATIONS)[:6], list(PARAMETERIZATIONS)[-1]])
def test_every_parameterization_has_a_report_on_the_papers_games(tmp_path: Path, param: str) -> None:
    """Those that the paper has not: no score of it is invented."""
    write_run(tmp_path, "Breakout", param, 0, [1.0, 2.0])
    write_run(tmp_path / "double", "Breakout", param, 0, [3.0], agent="double-dqn")
    path = tmp_path / "report.html"
    status, _, err = wn_dqn("report", str(tmp_path), str(tmp_path / "double"), "-o", str(path))
    assert (status, err) == (0, "")
    label = PARAMETERIZATIONS[param].label
    published = {"standard": "410", "wn": "403"}.get(param, "not published")
    rows = [row[:4] for row in table(path, "Figure 6")[1:]]
    assert rows == [
        ["Breakout", f"{label}, agent double-dqn", published, "3.0"],
        ["Breakout", f"{label}, agent dqn", published, "2.0"],
    ]
    text = Tables(path.read_text()).text
    assert f"DQN (Mnih et al., 2015), Double DQN (van Hasselt et al., 2016); {label}: 2 runs" in text


@pytest.mark.survives(
    "a name that is markup, mathematics or an escape sequence, in a report",
    "it is shown as it is written",
)
def test_names_that_mean_something_elsewhere_are_only_names(tmp_path: Path) -> None:
    """To TeX, to rich and to a terminal: in the name of the folder, of the game and of a column."""
    name = "$\\frac{$ [/b] \x1b[31m {{ 1 }} *a* \udcff"
    run = write_run(tmp_path / name, "Pong", "wn", 0, [1.0], metrics={f"train/{name[:-1]}": [1.0, 2.0]})
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("game: Pong", 'game: "$\\\\frac{$ [/b] \\e[31m <i>"'))
    for command, output in (("report", "a.html"), ("plot", "a.svg")):
        status, _, err = wn_dqn(command, str(tmp_path / name), "-o", str(tmp_path / output))
        assert (status, err) == (0, "")
        assert "\x1b" not in (tmp_path / output).read_text()
    ElementTree.parse(tmp_path / "a.svg")
    page = (tmp_path / "a.html").read_text()
    assert "[/b] \\x1b[31m {{ 1 }} *a* \\udcff" in Tables(page).text
    assert "<i>" not in page


def test_fresh_games_are_those_of_the_best_network(tmp_path: Path) -> None:
    """The last test under the protocol that most seeds have, whatever other checkpoints were tested."""
    tests = [fresh(500_000, 7.0), fresh(500_000, 8.0), fresh(250_000, 99.0)]
    write_run(tmp_path, "Pong", "wn", 0, [1.0, 2.0], fresh=[*tests, fresh(500_000, 5.0, "nature", 30)])
    write_run(tmp_path, "Pong", "wn", 1, [3.0, 2.0], fresh=[fresh(250_000, 6.0, "nature", 30)])
    (group,) = group_runs(read_runs([tmp_path])[0])[0]
    found = scores.fresh_games(group)
    assert found is not None
    assert (found.protocol, found.means.tolist(), found.games) == ("nature", [5, 6], 60)
    (group,) = group_runs(read_runs([tmp_path / "Pong-wn-seed0"])[0])[0]
    found = scores.fresh_games(group)
    assert found is not None
    assert (found.protocol, found.means.tolist()) == ("paper", [8])


@pytest.mark.survives("a clock that was put back, or no dates", "times and costs are unknown, never negative")
def test_no_time_is_invented(tmp_path: Path) -> None:
    path = write_run(tmp_path, "Pong", "wn", 0, [1.0])
    assert scores.wall_clock_hours(read_run(path)) == 2
    status = (path / "status.json").read_text()
    (path / "status.json").write_text(status.replace("2026", "2025"))
    assert scores.wall_clock_hours(read_run(path)) is None, "the clock was put back: no cost is negative"
    (path / "status.json").write_text(status)
    (path / "provenance.json").unlink()
    assert scores.wall_clock_hours(read_run(path)) is None
    assert scores.training_hours(SimpleNamespace(metrics={}, evaluations={})) is None
