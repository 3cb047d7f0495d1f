"""The paper's replay of 1,000,000 on a machine with 5 GiB: a real run, inside a cgroup with that limit.

    sudo python scripts/prove_five_gib.py                  # half an hour: 1,000,000 steps of random play, then training
    sudo python scripts/prove_five_gib.py --game Breakout --capacity 50000 --limit-gib 2

The run plays at random until the replay is full, and then trains for --train-steps more with the paper's settings. At
the end: the most memory that the cgroup and the process ever had. Needs Linux, and the right to make a cgroup (version
1 or 2).
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

GIB = 2**30


@contextlib.contextmanager
def limited(limit_bytes: int) -> Iterator[Path]:
    """A new cgroup below our own that has this much memory and no swap."""
    line = next(
        line
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if "memory" in line.split(":")[1].split(",") or line.startswith("0::")
    )
    version_1 = not line.startswith("0::")
    root = Path("/sys/fs/cgroup/memory" if version_1 else "/sys/fs/cgroup")
    group = root / line.split(":", 2)[2].lstrip("/") / f"wn_dqn-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(limit_bytes))
    except OSError as error:
        raise click.ClickException(f"cannot make the cgroup {group}: {error.strerror}; try as root") from None
    try:
        yield group
    finally:
        group.rmdir()


def peak_bytes(group: Path) -> int:
    name = "memory.max_usage_in_bytes" if (group / "memory.max_usage_in_bytes").exists() else "memory.peak"
    return int((group / name).read_text())


@click.command(help=__doc__)
@click.option("--game", default="SpaceInvaders", show_default=True)
@click.option("--capacity", default=1_000_000, show_default=True)
@click.option("--train-steps", default=20_000, show_default=True, help="agent steps after the replay is full")
@click.option("--limit-gib", default=5.0, show_default=True)
def main(game: str, capacity: int, train_steps: int, limit_gib: float) -> None:
    settings = {
        "replay.capacity": capacity,
        "learning.start_steps": capacity,
        "learning.total_steps": capacity + train_steps,
        "evaluation.epoch_steps": capacity + train_steps,
        "evaluation.steps": 2000,
        "output.save_replay": "false",
        "output.log_period_steps": max(train_steps // 4, 1),
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder, limited(round(limit_gib * GIB)) as group:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "wn_dqn", "train", "--game", game, "--device", "cpu", "--run-dir", str(run)]

        def enter() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        began_s = time.monotonic()
        done = subprocess.run([*command, *words], preexec_fn=enter, check=False)
        print(f"exit status {done.returncode}, {(time.monotonic() - began_s) / 60:.1f} minutes")
        print(
            f"limit {limit_gib:.2f} GiB; the cgroup had at most {peak_bytes(group) / GIB:.2f} GiB, page cache included"
        )
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"the process had at most {most / GIB:.2f} GiB resident")
        print((run / "metrics.csv").read_text().splitlines()[-1].split(",")[0], "steps done")
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
