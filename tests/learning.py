"""Trainings on Catch that learn in seconds, and how well: what `test_learns.py` runs with one seed.

    python tests/learning.py CASE SEEDS

prints what each of the first SEEDS seeds scores; CASE is "Nature network" or one of MECHANISMS. For another arithmetic
put it before the command, like MKL_CBWR=COMPATIBLE.

Measured on 2026-11-26 on an AMD Zen 4 with one thread: seeds 0 to 9 of every case, native and MKL_CBWR=COMPATIBLE. Of
these 140 runs 139 scored 1.00, the most there is. Double DQN scored 0.68 with seed 9 and MKL_CBWR=COMPATIBLE: it missed
one column of seven, which costs about 0.29. The bar of the narrow cases lies below that.

Rainbow was measured later on that day, on the same machine: seeds 0 to 9, native and MKL_CBWR=COMPATIBLE. 20 of 20 runs
scored 1.00.

The last network of a run is a worse measure: in the standard case it missed one column of seven with three of ten
seeds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from small_runs import NATURE, Widths, network_of

from wn_dqn.config.files import make_settings, merge
from wn_dqn.config.games import find_game
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.runs.launch import train_run
from wn_dqn.runs.policy import load_policy, play_games
from wn_dqn.system.progress import ProgressReporter

NARROW = Widths((8, 16, 16), 64)
"""57,000 parameters: the layers' widths decide how long learning takes, not whether an agent learns."""

SETTINGS: dict[str, Any] = {
    "game": "Catch",
    "replay": {"capacity": 4000},
    # Q-values that start near 0 need not be unlearned first: all returns here are within -1 and 1.
    "network": {"init_batch_size": 256, "output_init_scale": 0.1},
    "learning": {"total_steps": 4000, "start_steps": 400, "batch_size": 32, "target_period_steps": 60},
    "optimizer": {"learning_rate": 4e-3},
    "exploration": {"final": 0.05, "decay_steps": 1000},
    "evaluation": {"epoch_steps": 400, "steps": 300, "held_out_states": 64},
    "output": {"save_replay": False},
}


@dataclass(frozen=True)
class Case:
    """An agent that learns Catch."""

    difference: dict[str, Any]
    """from SETTINGS"""
    bar: float
    """what the mean return reaches with any seed on any machine"""
    widths: Widths


NATURE_NETWORK = Case(
    {
        "param": "wn",
        "learning": {"total_steps": 3200, "target_period_steps": 40},
        "optimizer": {"learning_rate": 2e-3},
    },
    bar=0.9,
    widths=NATURE,
)
MECHANISMS = {
    name: Case(difference, bar=0.6, widths=NARROW)
    for name, difference in {
        "weight normalization": {"param": "wn"},
        "standard": {"param": "standard"},
        "Double DQN": {"agent": "double-dqn"},
        "dueling heads": {"network": {"dueling": True}},
        "3-step returns": {"learning": {"n_steps": 3}, "replay": {"capacity": 1000}},
        "prioritized replay": {"replay": {"priority_exponent": 0.6, "importance_anneal_steps": 3600}},
        "Rainbow": {
            "game": "CatchVector",  # in a third of the time
            "agent": "double-c51",
            "network": {"dueling": True, "noisy": True, "v_min": -2.0, "v_max": 2.0},
            "learning": {"total_steps": 3200, "n_steps": 3},
            "replay": {"priority_exponent": 0.5, "importance_anneal_steps": 2800},
            "exploration": {"final": 0.0, "decay_steps": 1},
        },
    }.items()
}


def mean_return_after_training(case: Case, seed: int, folder: Path) -> float:
    """Of 200 fresh games that the best network plays greedily: between -1 and 1; about -0.6 for random play.

    The best network is that of the best evaluation, as in `wn-dqn evaluate`. The last one may have forgotten a column
    for a while: where learning goes on at a constant rate, it is another figure after every few updates.
    """
    cpu, silent = torch.device("cpu"), ProgressReporter(Console(quiet=True))
    settings = make_settings(merge([SETTINGS, case.difference, {"seed": seed}]))
    with network_of(case.widths):
        assert train_run(settings, folder / "run", cpu, silent) == 0
        policy = load_policy(folder / "run", "best", cpu)
    protocol = EvaluationProtocol("200 games", epsilon=0.0, games=200)
    return play_games(policy, find_game(settings.game), protocol, num_envs=16, seed=1, reporter=silent).mean


def main(name: str, seeds: int) -> None:
    """Print a line for each seed."""
    torch.set_num_threads(1)
    case = NATURE_NETWORK if name == "Nature network" else MECHANISMS[name]
    for seed in range(seeds):
        began_s = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            score = mean_return_after_training(case, seed, Path(folder))
        line = f"{name}, seed {seed}: {score:.2f} ({time.process_time() - began_s:.0f} s of a core)\n"
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
