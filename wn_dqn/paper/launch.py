"""How a run of the paper's systems begins, goes on and ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from wn_dqn.config.registry import PARAMETERIZATIONS, import_code
from wn_dqn.errors import FINISHED
from wn_dqn.paper.data import load_images
from wn_dqn.paper.settings import PaperSettings
from wn_dqn.paper.storage import PaperDirectory
from wn_dqn.paper.system import System
from wn_dqn.paper.trainer import Trainer
from wn_dqn.runs.ending import train_to_an_end
from wn_dqn.runs.metrics_writer import MetricsWriter
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.runs.story import pasteable
from wn_dqn.system.hardware import prepare_torch
from wn_dqn.system.progress import ProgressReporter

SYSTEMS = {
    "cifar10": "wn_dqn.paper.cifar10:Cifar10",
    "vae": "wn_dqn.paper.vae:ConvolutionalVae",
    "vae-cifar10": "wn_dqn.paper.ladder_vae:LadderVae",
    "draw": "wn_dqn.paper.draw:Draw",
}
"""system -> its code, called with the settings and the number of classes"""


def make_system(settings: PaperSettings, classes: int = 10) -> System:
    """The system that `settings` describe; its parameters are not set yet."""
    system: System = import_code(SYSTEMS[settings.system])(settings, classes)
    return system


def train_paper(
    settings: PaperSettings, run_dir: Path, device: torch.device, reporter: ProgressReporter, stop: StopRequest
) -> int:
    """Begin the run in `run_dir`, or go on with it; returns the exit status.

    UsageError if the data or the folder cannot be used; RunError if the run could not go on.
    """
    prepare_torch(device, "float32")
    images = load_images(settings.system, settings.data)
    directory = PaperDirectory(run_dir)
    directory.create()
    with directory.locked():
        if directory.exists:
            directory.require_same(settings)
        if directory.read_status().get("status") == "finished":
            reporter.message(f"{run_dir} is finished: {settings.epochs} epochs")
            return 0
        metrics = MetricsWriter(run_dir, dataclasses.asdict(settings))
        system = make_system(settings, images.classes)
        trainer = Trainer(settings, system, images, directory, metrics, reporter, stop, device)
        went_on = trainer.restore()
        if not went_on:
            trainer.begin()
        directory.write_paper_settings(settings)
        directory.add_provenance(device)
        label = PARAMETERIZATIONS[settings.param].label
        reporter.message(
            f"{settings.title}: {label}, width {settings.width}, seed {settings.seed}, {len(images.train):,} "
            f"training and {len(images.test):,} test images; written to {run_dir}"
        )
        if went_on:
            reporter.message(f"resumed at step {trainer.steps:,}")
        trainer.write_status("running")
        status = train_to_an_end(trainer, trainer.run)
    if status == FINISHED:
        run = pasteable(run_dir)
        reporter.message(f"look: wn-dqn report {run}, wn-dqn plot {run} -o curves.png, tensorboard --logdir {run}")
    return status
