"""Measures how much the page of `wn-dqn report --live` slows down training.

    python scripts/measure_live_page.py --pairs 8 --window-s 30

A run trains in its own process. Windows with and without the page alternate, so that other work on the machine affects
both. The script prints the steps per second of each pair of windows, their mean ratio with its standard error, and the
CPU time of the server, which is the cost of the page if no core is idle.
"""

from __future__ import annotations

import csv
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import click

_COMMAND = [sys.executable, "-m", "wn_dqn"]
_SETTINGS = {
    "learning.total_steps": 10**9,
    "learning.start_steps": 500,
    "learning.batch_size": 32,
    "replay.capacity": 50_000,
    "network.init_batch_size": 128,
    "evaluation.epoch_steps": 10**8,
    "evaluation.held_out_states": 256,
    "output.log_period_steps": 80,
    "output.checkpoint_period_steps": 50_000,
}


class Page:
    """The server in its own process, and a reader of its stream, which counts pictures and CPU time."""

    def __init__(self, run: Path) -> None:
        self._server = subprocess.Popen([*_COMMAND, "report", str(run), "--live"], stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        address = re.search(r"http://\S+", self._server.stdout.readline())
        assert address is not None
        self._stream = urllib.request.urlopen(f"{address[0]}events?run={urllib.request.quote(str(run.resolve()))}")
        self.pictures = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._before_s = self._cpu_s()

    def _read(self) -> None:
        for line in self._stream:
            self.pictures += line.startswith(b'data: {"image"')

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> float:
        """End the server; returns the seconds of CPU that it took since it had started."""
        cpu_s = self._cpu_s() - self._before_s
        self._server.send_signal(signal.SIGINT)
        self._server.wait()
        return cpu_s


def done(run: Path) -> tuple[int, float]:
    """Agent steps and seconds of training, by the newest row; nothing before the first."""
    if not (run / "metrics.csv").exists():
        return 0, 0.0
    with (run / "metrics.csv").open() as file:
        *_, row = csv.DictReader(file)
    return int(row["steps"]), float(row["time/train_s"])


def window(run: Path, window_s: float) -> float:
    """Steps per second of training over a window."""
    steps, train_s = done(run)
    time.sleep(window_s)
    while done(run)[0] == steps:  # only on an overloaded machine
        time.sleep(1.0)
    more_steps, more_s = done(run)
    return (more_steps - steps) / (more_s - train_s)


@click.command(help=__doc__)
@click.option("--game", default="Breakout", show_default=True)
@click.option("--pairs", default=8, show_default=True)
@click.option("--window-s", default=30.0, show_default=True)
def main(game: str, pairs: int, window_s: float) -> None:
    ratios, shares, pictures = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        settings = [word for key, value in _SETTINGS.items() for word in ("--set", f"{key}={value}")]
        command = [*_COMMAND, "train", "--game", game, "--run-dir", str(run), *settings]
        # The page plays a checkpoint, so there is one before the first window.
        subprocess.run([*command, "--stop-after", "20s"], stderr=subprocess.DEVNULL, check=False)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as training:
            try:
                steps = done(run)[0]
                while done(run)[0] == steps:
                    time.sleep(1.0)
                for pair in range(pairs):
                    speeds = {}
                    for watched in (True, False) if pair % 2 else (False, True):
                        page = Page(run) if watched else None
                        speeds[watched] = window(run, window_s)
                        if page is not None:
                            pictures += page.pictures
                            shares.append(page.close() / window_s)
                    ratios.append(speeds[True] / speeds[False])
                    print(
                        f"{speeds[False]:8.1f} steps/s alone, {speeds[True]:8.1f} watched, ratio {ratios[-1]:.4f}",
                        flush=True,
                    )
            finally:
                training.send_signal(signal.SIGINT)
    error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
    print(f"watched / alone: {statistics.mean(ratios):.4f} +- {error:.4f} ({len(ratios)} pairs)")
    print(
        f"CPU of the server: {statistics.mean(shares):.2%} of a core, "
        f"{pictures / len(shares) / window_s:.2f} pictures/s"
    )


if __name__ == "__main__":
    main()
