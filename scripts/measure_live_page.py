"""Measures how much the page of `wn-dqn report --live` slows down training.

    python scripts/measure_live_page.py --pairs 30 --window-s 5

A run trains in its own process, and the page's server runs beside it. In turns somebody looks at the page and nobody
does, in short windows, so that other work on the machine affects both. The script prints the steps per second of each
pair of windows, their ratios, and the CPU time of the server while it is looked at.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class Server:
    """The page's server, with nobody who looks at it."""

    def __init__(self, run: Path) -> None:
        self._process = subprocess.Popen([*_COMMAND, "report", str(run), "--live"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        address = re.search(r"http://\S+", self._process.stdout.readline())
        assert address is not None
        self._stream = f"{address[0]}events?run={urllib.request.quote(str(run.resolve()))}"

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody looks at the page: from the first picture on, since the server imports torch for it."""
        with urllib.request.urlopen(self._stream) as stream:
            while not stream.readline().startswith(b'data: {"image"'):
                pass
            reader = threading.Thread(target=_read_to_the_end, args=[stream], daemon=True)
            reader.start()
            yield
            stream.fp.raw._sock.shutdown(socket.SHUT_RDWR)  # else close waits for the reader
            reader.join()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


def _read_to_the_end(stream: Any) -> None:
    while stream.readline():
        pass


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
@click.option("--pairs", default=30, show_default=True)
@click.option("--window-s", default=5.0, show_default=True)
def main(game: str, pairs: int, window_s: float) -> None:
    ratios, shares = [], []
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
                server = Server(run)
                for pair in range(pairs):
                    speeds = {}
                    for is_watched in (True, False) if pair % 2 else (False, True):
                        with server.watched() if is_watched else contextlib.nullcontext():
                            began_s, before_s = time.perf_counter(), server.cpu_s()
                            speeds[is_watched] = window(run, window_s)
                            share = (server.cpu_s() - before_s) / (time.perf_counter() - began_s)
                        shares += [share] if is_watched else []
                    ratios.append(speeds[True] / speeds[False])
                    print(
                        f"{speeds[False]:8.1f} steps/s alone, {speeds[True]:8.1f} watched, ratio {ratios[-1]:.4f}",
                        flush=True,
                    )
                server.close()
            finally:
                training.send_signal(signal.SIGINT)
    error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
    print(
        f"watched / alone: median {statistics.median(ratios):.4f}, mean {statistics.mean(ratios):.4f} +- {error:.4f} "
        f"({len(ratios)} pairs); CPU of the server: {statistics.mean(shares):.2%} of a core"
    )


if __name__ == "__main__":
    main()
