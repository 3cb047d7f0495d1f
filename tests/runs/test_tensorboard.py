"""TensorBoard, in a browser: what a person finds who opens the folder of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import script
from command import wn_dqn
from small_runs import SMALL_NETWORK, network_of

LAYERS = ("conv1", "conv2", "conv3", "hidden", "output")
RUNS = ("Catch-wn-seed0", "Catch-standard-seed0")
CHARTS = """
return [...document.querySelectorAll('card-view')].filter(card => card.querySelector('line-chart canvas')).map(card => {
    const chart = card.querySelector('line-chart canvas').getBoundingClientRect();
    const tag = card.querySelector('tb-truncated-path').title;
    return [tag, ...[chart.left, chart.top, chart.right, chart.bottom].map(Math.round)];
});
"""
CARD_TITLES = "return [...document.querySelectorAll('card-view tb-truncated-path')].map(path => path.title);"
SECTIONS = """
const found = (node, tag) => [...node.querySelectorAll('*')].flatMap(
    child => [...(child.matches(tag) ? [child] : []), ...(child.shadowRoot ? found(child.shadowRoot, tag) : [])]);
return found(document, 'tf-category-paginated-view').map(view => view.category.name);
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(script.find_browser() is None, reason="no chromium with a chromedriver on this machine"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run of Catch of each parameterization."""
    folder = tmp_path_factory.mktemp("runs")
    settings = [
        "learning={total_steps: 256, start_steps: 32, batch_size: 8, target_period_steps: 16}",
        "evaluation={epoch_steps: 64, steps: 48, held_out_states: 8}",
        "network.init_batch_size=16",
        "replay.capacity=64",
        "output.log_period_steps=16",
    ]
    command = ["train", "--game", "Catch", "--device", "cpu"]
    command += [word for setting in settings for word in ("--set", setting)]
    for name, param, rate in zip(RUNS, ("wn", "standard"), (3e-4, 1e-4), strict=True):
        chosen = ["--param", param, "--set", f"optimizer.learning_rate={rate}", "--run-dir", str(folder / name)]
        with network_of(SMALL_NETWORK):
            status, _, err = wn_dqn(*command, *chosen)
        assert status == 0, err
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Iterator[tuple[Any, str]]:
    """A browser, and the address of a TensorBoard that shows the runs."""
    with script.chromium() as driver, script.tensorboard(runs) as address:
        yield driver, address


def wait_for_words(driver: Any, *words: str) -> None:
    for word in words:
        squeezed = "".join(word.split()).lower()
        script.wait_until(driver, lambda driver, w=squeezed: w in script.page_text(driver).lower(), word)


def test_scalars_are_listed_with_their_curves(page: tuple[Any, str]) -> None:
    driver, address = page
    tags = ["train/loss", "Score/mean_return", "layers/conv1/g_mean", "layers/output/v_norm_mean"]
    script.open_time_series(driver, address, "|".join(tags))
    wait_for_words(driver, *tags, *RUNS, "4 cards")
    script.wait_for_curves(driver)
    assert script.curves_in_view(driver) == [True] * 4


def test_curves_of_several_runs_lie_over_each_other(page: tuple[Any, str]) -> None:
    """Runs have the same tags, so a chart has a line of each run, in a colour of its own; only g is not for both."""
    driver, address = page
    script.open_time_series(driver, address, "Score/mean_return|layers/conv1/(w_norm_mean|g_mean)")
    wait_for_words(driver, *RUNS, "3 cards")
    script.wait_for_curves(driver)
    both, one = {"Score/mean_return", "layers/conv1/w_norm_mean"}, {"layers/conv1/g_mean"}
    script.wait_until(
        driver,
        lambda driver: colours_by_tag(driver) == {**dict.fromkeys(both, 2), **dict.fromkeys(one, 1)},
        "two runs in the charts of what both have",
    )


def colours_by_tag(driver: Any) -> dict[str, int]:
    """How many hues the lines of each card have."""
    picture = cv2.imdecode(np.frombuffer(driver.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
    coloured = np.ptp(picture.astype(int), axis=2) > 20
    hues = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)[..., 0] // 15
    counts = {}
    for tag, left, top, right, bottom in driver.execute_script(CHARTS):
        inside = (slice(top, bottom), slice(left, right))
        counts[tag] = int((np.bincount(hues[inside][coloured[inside]], minlength=12) > 100).sum())
    return counts


def test_all_scalars_are_offered(page: tuple[Any, str]) -> None:
    driver, address = page
    script.open_tab(driver, address, "scalars&tagFilter=loss%7Cmean_return%7C%2Fg_mean")
    wait_for_words(driver, "Show data download links", "evaluation", "layers", "speed", "train")
    wait_for_words(driver, "train/loss", "Score/mean_return", *(f"layers/{layer}/g_mean" for layer in LAYERS))


def test_time_series_begin_with_the_score(page: tuple[Any, str]) -> None:
    """The page that TensorBoard opens on."""
    driver, address = page
    script.open_tab(driver, address, "timeseries")
    wait_for_words(driver, "Score/mean_return", *RUNS)
    assert driver.execute_script(CARD_TITLES)[:2] == ["Score/mean_return", "Score/median_return"]


def test_hyperparameters_begin_with_those_that_differ(page: tuple[Any, str]) -> None:
    """And the score comes first of what they led to: runs of a sweep can be sorted by both."""
    driver, address = page
    script.open_tab(driver, address, "hparams")
    wait_for_words(driver, "optimizer.learning_rate", "learning.batch_size", "Score/mean_return", "Table view")
    text = script.page_text(driver)
    table = text[text.index("ShowMetrics") :]
    names = ["optimizer.learning_rate", "param", "agent", "Score/mean_return", "Score/median_return"]
    assert sorted(names, key=table.index) == names


def test_custom_scalars_begin_with_what_matters(page: tuple[Any, str]) -> None:
    """Related curves in one chart, against agent steps."""
    driver, address = page
    script.open_tab(driver, address, "custom_scalars")
    words = ["Score", "mean of the test games", "Learning", "Q-values", "Layers", "mean g per layer", "One update"]
    wait_for_words(driver, *words, "Matches (4)", *(f"Score/mean_return ({run})" for run in RUNS))
    assert driver.execute_script(SECTIONS)[:3] == ["Score", "Learning", "Layers"]


def test_the_picture(runs: Path, tmp_path: Path) -> None:
    """As the README tells to make it."""
    path = tmp_path / "picture.png"
    script.main([str(runs), "-o", str(path), "--width", "1300", "--height", "700"], standalone_mode=False)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape == (700, 1300, 3)


def test_what_never_appears_is_named(page: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    driver, address = page
    monkeypatch.setattr(script, "_LOAD_S", 0.5)
    script.open_time_series(driver, address, "no/such/tag")
    with pytest.raises(RuntimeError, match="the page does not show a curve in every chart"):
        script.wait_for_curves(driver)
