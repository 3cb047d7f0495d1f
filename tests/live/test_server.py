"""The live page: who may see it, and a real browser in which a curve grows while a run trains."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browser import script
from command import wn_dqn
from small_runs import settings_for
from starlette.applications import Starlette
from written_runs import write_run

from wn_dqn.config.files import dump_yaml
from wn_dqn.live.player import Players
from wn_dqn.live.server import _listening, make_app
from wn_dqn.live.watch import Watch

HEADS_OF_FILES = ("default-src 'none'", "script-src 'nonce-")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has idle processes")
@pytest.mark.parametrize("refused", [False, True])
def test_training_goes_first(refused: bool) -> None:
    """The server takes what others leave; where a container refuses that, it has a low priority."""
    program = f"""
import contextlib, os
from unittest import mock
from wn_dqn.live.server import _let_training_go_first

with mock.patch("os.sched_setscheduler", side_effect=PermissionError) if {refused} else contextlib.nullcontext():
    _let_training_go_first()
print(os.sched_getscheduler(0), os.nice(0))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    policy, niceness = (os.SCHED_OTHER, min(os.nice(0) + 10, 19)) if refused else (os.SCHED_IDLE, os.nice(0))
    assert out.split() == [str(policy), str(niceness)]


def ask(
    app: Starlette, target: str, method: str = "GET", host: str = "127.0.0.1:8000"
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of an answer; a stream is read up to its first empty line."""
    path, _, query = target.partition("?")
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", host.encode())], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    answer: dict[str, Any] = {"body": b""}
    done = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
            answer["headers"] = {name.decode(): value.decode() for name, value in message["headers"]}
        answer["body"] += message.get("body", b"")
        if answer["body"].endswith(b"\n\n"):
            done.set()

    async def run() -> None:
        await asyncio.wait_for(app(scope, receive, send), 30)

    asyncio.run(run())
    return answer["status"], answer["headers"], answer["body"].decode()


def test_the_page_has_no_script_but_its_own(tmp_path: Path) -> None:
    status, headers, page = ask(make_app(Watch([tmp_path]), Players()), "/")
    assert status == 200
    for words in HEADS_OF_FILES:
        assert words in headers["content-security-policy"]
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', page))
    assert f"'nonce-{nonce}'" in headers["content-security-policy"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_the_stream_begins_with_the_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "Pong", "wn", 0, [-20.0])
    status, headers, body = ask(make_app(Watch([tmp_path]), Players()), "/events")
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    event, data = body.strip().split("\n")
    assert event == "event: runs"
    assert [run["name"] for run in json.loads(data.removeprefix("data: "))] == ["Pong-wn-seed0"]


@pytest.mark.parametrize("target", ["/", "/events"])
def test_another_host_needs_the_token(target: str, tmp_path: Path) -> None:
    app = make_app(Watch([tmp_path]), Players(), token="secret")
    for query in ("", "?token=", "?token=Secret", "?token=secret%00"):
        status, _, body = ask(app, target + query, host="machine:8000")
        assert (status, "needs the token" in body) == (403, True)
    assert ask(app, f"{target}?token=secret", host="machine:8000")[0] == 200


def test_a_page_of_elsewhere_cannot_read_it_under_a_name_of_its_own(tmp_path: Path) -> None:
    app = make_app(Watch([tmp_path]), Players())
    assert ask(app, "/", host="evil.example")[0] == 400
    assert ask(app, "/", host="localhost:8000")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(method: str, tmp_path: Path) -> None:
    app = make_app(Watch([tmp_path]), Players())
    assert ask(app, "/", method)[0] == 405
    assert ask(app, "/../../etc/passwd")[0] == 404


def test_the_address_can_be_opened_as_soon_as_it_is_told() -> None:
    with _listening("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname(), 30):
        pass


def test_mistakes_are_told(tmp_path: Path) -> None:
    assert wn_dqn("report", str(tmp_path), "--port", "8000")[::2] == (
        2,
        "wn-dqn: --host and --port are options of --live\n",
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, out, err = wn_dqn("report", str(tmp_path), "--live", "--port", str(taken.getsockname()[1]))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "cannot listen on 127.0.0.1" in err


class Served:
    """`wn-dqn report --live` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "wn_dqn", "report", str(folder), "--live", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.address = self.line.split()[0]

    def end(self) -> tuple[int, str]:
        """Ctrl-C; the exit status, and what was said."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out + err


@pytest.fixture
def small_run(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder, and the command of a run in it that goes on until it is stopped."""
    config = tmp_path / "c.yaml"
    settings = settings_for(game="CatchVector", learning={"total_steps": 10**8}, replay={"capacity": 1000})
    config.write_text(dump_yaml(settings.model_dump()))
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder, ["train", "--device", "cpu", "--config", str(config), "--run-dir", str(folder / "mine")]


@pytest.mark.slow
@pytest.mark.skipif(script.find_browser() is None, reason="no chromium with a chromedriver on this machine")
def test_the_curve_grows_in_a_browser_while_a_run_trains(
    small_run: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is open before the run begins. In the end the run is stopped, and the page says so."""
    monkeypatch.setattr(script, "_LOAD_S", 240.0)  # the page gives way to whatever else runs here
    folder, command = small_run
    write_run(folder, "Pong", "wn", 0, [-20.0], status="failed")
    served = Served(folder)
    try:
        with script.chromium(1280, 900) as driver:
            driver.get(served.address)
            script.wait_until(driver, lambda driver: "Pong-wn-seed0" in script.page_text(driver), "the failed run")
            assert "1failed" in script.page_text(driver)
            with subprocess.Popen([sys.executable, "-m", "wn_dqn", *command], stderr=subprocess.DEVNULL) as training:
                try:
                    seen = 0
                    for _ in range(2):
                        script.wait_until(driver, lambda driver, n=seen: points(driver) > n, "a curve that grows")
                        seen = points(driver)
                    script.wait_until(driver, is_played, "the agent at play")
                    assert "1running" in script.page_text(driver)
                finally:
                    training.send_signal(signal.SIGINT)
            script.wait_until(driver, lambda driver: "1paused" in script.page_text(driver), "that the run was stopped")
            assert driver.get_log("browser") == []
    finally:
        status, said = served.end()
    assert (status, said) == (0, "")


def points(driver: Any) -> int:
    """How many evaluations the curve of the run that trains has."""
    chart = "const chart = document.getElementById('chart'); return [chart.dataset.run, chart.dataset.points];"
    run, shown = driver.execute_script(chart)
    drawn = driver.execute_script("return document.querySelectorAll('#chart .chosen').length;")
    return int(shown) if run is not None and run.endswith("mine") and drawn else 0


def is_played(driver: Any) -> bool:
    """Whether a picture of the game is shown, with a bar for each action."""
    image = "const image = document.getElementById('frame'); return !image.hidden && image.naturalWidth;"
    bars = "return document.querySelectorAll('#values li').length;"
    return bool(driver.execute_script(image)) and driver.execute_script(bars) == 3
