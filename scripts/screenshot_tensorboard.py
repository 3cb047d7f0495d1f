"""Takes a screenshot of TensorBoard with the runs in a folder, like those in the README and docs/tensorboard.md.

    python scripts/screenshot_tensorboard.py runs -o tensorboard.png
    python scripts/screenshot_tensorboard.py runs --tab custom_scalars --width 1500 --height 800 -o charts.png

TensorBoard is started on a free port of this machine and opened in headless Chromium. The screenshot is taken when
every visible chart shows a curve. Chromium and chromedriver must be installed (Debian: apt install chromium
chromium-driver).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import click
import cv2
import numpy as np
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait

TAGS = "|".join(
    [
        "Score/mean_return",
        "evaluation/held_out_max_q",
        "layers/conv1/(g_mean|v_norm_mean|w_norm_mean)",
        "layers/output/w_norm_mean",
        "train/(episode_return|loss|mean_q)",
    ]
)
_PAGE_SETTINGS = {
    "timeSeriesSettingsPaneOpened": False,
    "stepSelectorEnabled": False,  # no tables of values under the charts
    "ignoreOutliers": False,  # curves are shown to their ends
    "sideBarWidthInPercent": 18,
}
_LOAD_S = 60.0

_TEXT = """
const text = node => node.nodeType === Node.TEXT_NODE ? node.data
    : ['STYLE', 'SCRIPT', 'TEMPLATE', 'NOSCRIPT'].includes(node.nodeName) ? ''
    : [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].map(text).join('');
return text(document.body);
"""
_CARDS_IN_VIEW = """
return [...document.querySelectorAll('card-view')].map(card => {
    const chart = card.querySelector('line-chart canvas');
    return [card.getBoundingClientRect(), chart && chart.getBoundingClientRect()];
}).filter(([card]) => card.height > 0 && card.top < innerHeight && card.bottom > 0)
  .map(([card, chart]) => chart && [chart.left, chart.top, chart.right, chart.bottom].map(Math.round));
"""
_CHARTS_IN_VIEW = """
const found = (node, tag) => [...node.querySelectorAll('*')].flatMap(
    child => [...(child.matches(tag) ? [child] : []), ...(child.shadowRoot ? found(child.shadowRoot, tag) : [])]);
return found(document, 'vz-line-chart2').map(chart => chart.getBoundingClientRect())
    .filter(chart => chart.height > 0 && chart.top < innerHeight)
    .map(chart => [chart.left, chart.top, chart.right, chart.bottom].map(Math.round));
"""


def find_browser() -> tuple[str, str] | None:
    """The programs Chromium and chromedriver; None if one is missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextlib.contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """Serve the current runs in a folder. Yields the address."""
    options = ["--host=127.0.0.1", "--port=0", "--load_fast=false", "--reload_task=blocking", "--reload_interval=0"]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:  # everything is loaded when the address is printed
                if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield address[0]
                    return
                lines.append(line)
            raise RuntimeError(f"tensorboard ended: {''.join(lines)}")
        finally:
            process.terminate()


@contextlib.contextmanager
def chromium(width: int = 1600, height: int = 1180) -> Iterator[Chrome]:
    """A headless browser with its own profile, and a page of this size in pixels."""
    programs = find_browser()
    if programs is None:
        raise click.ClickException("no chromium with a chromedriver here; Debian: apt install chromium chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = programs[0]
        for name in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "no-proxy-server"):
            options.add_argument(f"--{name}")
        for name in ("disable-background-networking", "disable-component-update", f"user-data-dir={profile}"):
            options.add_argument(f"--{name}")
        driver = Chrome(options, ChromeService(programs[1]))
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield driver
        finally:
            driver.quit()


def open_tab(driver: Chrome, address: str, tab: str, **query: str) -> None:
    """Open a tab of TensorBoard, like ``timeseries`` or ``hparams``, in a fresh page."""
    driver.get("about:blank")
    driver.get(f"{address}/?{'&'.join(f'{key}={quote(value)}' for key, value in query.items())}#{tab}")


def open_time_series(driver: Chrome, address: str, tags: str, smoothing: float = 0.0) -> None:
    """Show the charts of the tags that a regular expression matches."""
    driver.get(f"{address}/data/environment")  # a page of the same origin, to leave the settings in
    driver.execute_script("localStorage.setItem('_tb_global_settings', arguments[0])", json.dumps(_PAGE_SETTINGS))
    open_tab(driver, address, "timeseries", tagFilter=tags, smoothing=str(smoothing))


def page_text(driver: Chrome) -> str:
    """All text of the page, that of its components included, without white space."""
    return "".join(driver.execute_script(_TEXT).split())


def wait_until(driver: Chrome, condition: Callable[[Chrome], bool], what: str) -> None:
    """Wait until the condition holds. Raises RuntimeError, with the expected `what`, after a timeout."""
    try:
        WebDriverWait(driver, _LOAD_S).until(condition)
    except TimeoutException:
        raise RuntimeError(f"the page does not show {what}") from None


def curves_in_view(driver: Chrome, charts: str = _CARDS_IN_VIEW) -> list[bool]:
    """Whether each visible chart shows a curve. Lines are coloured, and everything else in a chart is gray.

    `charts` is a script that returns the places of the charts in the page; the default is for the time series.
    """
    cards = driver.execute_script(charts)
    picture = cv2.imdecode(np.frombuffer(driver.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    colour = np.ptp(picture.astype(np.int64), axis=2) > 20
    return [card is not None and np.count_nonzero(colour[card[1] : card[3], card[0] : card[2]]) > 20 for card in cards]


def wait_for_curves(driver: Chrome, charts: str = _CARDS_IN_VIEW) -> None:
    """Wait until every chart in view shows a curve."""

    def drawn(driver: Chrome) -> bool:
        curves = curves_in_view(driver, charts)
        return curves != [] and all(curves)

    wait_until(driver, drawn, "a curve in every chart")


@click.command(help=__doc__)
@click.argument("logdir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default="tensorboard.png", show_default=True)
@click.option("--tab", type=click.Choice(["timeseries", "custom_scalars"]), default="timeseries", show_default=True)
@click.option("--tags", default=TAGS, help="Regular expression of the time series.  [default: nine important ones]")
@click.option("--smoothing", type=click.FloatRange(0, 0.999), default=0.6, show_default=True, help="As in TensorBoard.")
@click.option("--width", default=1600, show_default=True, help="In pixels; 1600 shows three charts in a row.")
@click.option("--height", default=1180, show_default=True, help="In pixels; 1180 shows three rows of charts.")
def main(logdir: Path, output: Path, tab: str, tags: str, smoothing: float, width: int, height: int) -> None:
    with chromium(width, height) as driver, tensorboard(logdir) as address:
        if tab == "timeseries":
            open_time_series(driver, address, tags, smoothing)
            wait_for_curves(driver)
        else:
            open_tab(driver, address, tab, _smoothingWeight=str(smoothing))
            wait_for_curves(driver, _CHARTS_IN_VIEW)
        output.write_bytes(driver.get_screenshot_as_png())
    click.echo(f"{output}: {width}x{height}")


if __name__ == "__main__":
    main()
