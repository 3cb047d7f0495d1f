"""Measures the seconds from `wn-dqn train --config quick` to its first step, beside those of `import torch`.

python scripts/measure_start.py --rounds 5
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

_TO_THE_FIRST_STEP = """
import contextlib, os, sys
from wn_dqn.cli import cmd_train
from wn_dqn.cli.main import main

imports_uncollected = cmd_train.imports_uncollected

@contextlib.contextmanager
def then_end_at_the_first_step():
    with imports_uncollected():
        yield
    from wn_dqn.runs.experiment import Experiment
    Experiment.after_step = lambda experiment, state: os._exit(0)

cmd_train.imports_uncollected = then_end_at_the_first_step
main()
"""


def seconds_of(*arguments: str) -> float:
    began_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began_s


@click.command(help=__doc__)
@click.option("--config", default="quick", show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(config: str, rounds: int) -> None:
    torch_s, first_s = [], []
    for turn in range(rounds + 1):
        torch_s.append(seconds_of("-c", "import torch"))
        with tempfile.TemporaryDirectory() as folder:
            run = str(Path(folder) / "run")
            first_s.append(seconds_of("-c", _TO_THE_FIRST_STEP, "train", "--config", config, "--run-dir", run))
        if turn == 0:  # the first round reads files from the disk
            torch_s, first_s = [], []
            continue
        print(f"import torch {torch_s[-1]:.2f} s, first step {first_s[-1]:.2f} s", flush=True)
    print(f"medians: import torch {statistics.median(torch_s):.2f} s, first step {statistics.median(first_s):.2f} s")


if __name__ == "__main__":
    main()
