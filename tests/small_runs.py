"""Runs that are over in a second, and what is left of them: shared by the tests of resume and of faults.

The network's widths are separate from a run's settings: :func:`network_of`, and the fixtures `small_network` and
`nature_network` in conftest.py.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wn_dqn.analysis.model_card import write_finished_card
from wn_dqn.config.files import make_settings, merge
from wn_dqn.config.games import game_of
from wn_dqn.config.schema import Settings
from wn_dqn.envs.catch import SPEC
from wn_dqn.envs.factory import spec_of
from wn_dqn.envs.rules import training_rules
from wn_dqn.nn.networks import NatureNetwork
from wn_dqn.runs import launch
from wn_dqn.runs.checkpoint import load_checkpoint
from wn_dqn.runs.parts import make_agent, make_sampler
from wn_dqn.runs.replay_files import ReplayStore
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system.progress import ProgressReporter

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "game": "Catch",
    "replay": {"capacity": 160},
    "network": {"init_batch_size": 16},
    "learning": {"total_steps": 320, "start_steps": 64, "batch_size": 8, "target_period_steps": 40},
    "exploration": {"decay_steps": 100},
    "evaluation": {"epoch_steps": 120, "steps": 60, "num_envs": 3, "held_out_states": 16},
    "output": {"log_period_steps": 24, "checkpoint_period_steps": 100},
}
RAINBOW: dict[str, Any] = {
    "agent": "double-c51",
    "network": {"dueling": True, "noisy": True},
    "replay": {"priority_exponent": 0.5, "importance_anneal_steps": 300},
    "learning": {"n_steps": 3},
    "exploration": {"final": 0.0, "decay_steps": 1},
}
"""All of Rainbow, as differences."""
OBS_SHAPE = SPEC.obs_shape
VOLATILE_COLUMNS = ("speed/steps_per_s", "speed/updates_per_s", "time/train_s", "train_s")


class Widths(NamedTuple):
    """Of a network's layers."""

    channels: tuple[int, int, int]
    hidden_units: int


NATURE = Widths(NatureNetwork.CHANNELS, NatureNetwork.HIDDEN_UNITS)
SMALL_NETWORK = Widths((4, 8, 8), 16)
"""8,500 parameters instead of 1.7 million: a run takes a quarter of the time, and a checkpoint 140 KB, not 27 MB."""


@contextlib.contextmanager
def network_of(widths: Widths) -> Iterator[None]:
    """Networks made within have these widths; every layer, its parameterization and the shape of inputs are as ever."""
    before = NatureNetwork.CHANNELS, NatureNetwork.HIDDEN_UNITS
    NatureNetwork.CHANNELS, NatureNetwork.HIDDEN_UNITS = widths
    try:
        yield
    finally:
        NatureNetwork.CHANNELS, NatureNetwork.HIDDEN_UNITS = before


def settings_for(**overrides: Any) -> Settings:
    """The small run, changed."""
    return make_settings(merge([SMALL, overrides]))


def agent_for(settings: Settings, num_actions: int, device: torch.device = CPU) -> Any:
    """The agent of these settings for stacks of frames."""
    names = tuple(map(str, range(num_actions)))
    return make_agent(settings, dataclasses.replace(SPEC, action_names=names), device)


def train(settings: Settings, folder: Path) -> int:
    """`wn-dqn train` on the CPU."""
    reporter = ProgressReporter()
    return launch.train_run(
        settings, folder, CPU, reporter, on_finished=lambda path: write_finished_card(path, reporter.message)
    )


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that a run left behind, less what a clock said."""
    run = RunDirectory(folder)
    state = load_checkpoint(run.find_checkpoint("last").path)
    state["replay_folder"] = run.replay
    state["training"].pop("train_s")
    state["training"]["period"].pop("train_s")
    state.pop("metrics")
    return {"state": state, "tables": tables(folder), "replay": replay_contents(state), "curves": curves(folder)}


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Both CSV files, without the columns that depend on the machine's speed."""
    contents = {}
    for name in ("metrics.csv", "evaluations.csv"):
        with (folder / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        contents[name] = [{k: v for k, v in row.items() if k not in VOLATILE_COLUMNS} for row in rows]
    return contents


def replay_contents(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the saved replay buffer holds, slot by slot; its division into files may differ."""
    index = state.pop("replay")
    folder = state.pop("replay_folder")
    settings = make_settings(state["settings"])
    replay = make_sampler(settings, spec_of(game_of(settings), training_rules(settings.environment)), CPU).replay
    ReplayStore(folder, replay).load(index)
    return {**replay.read(replay.oldest_stored(), replay.num_appended), "begun": np.array(replay.num_appended)}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every TensorBoard curve, as TensorBoard reads it."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = [tag for tag in accumulator.Tags()["scalars"] if not tag.startswith(("speed/", "time/"))]
    # By time of writing: files of one second are read in the order of their names, and a test resumes at once.
    events = {tag: sorted(accumulator.Scalars(tag), key=lambda event: event.wall_time) for tag in tags}
    return {
        tag: [(event.step, event.value) for event in curve]
        for tag, curve in events.items()
        if tag != "evaluation/train_s"
    }


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, whatever is nested in what."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        np.testing.assert_array_equal(a, b, err_msg=where)
