"""The trainer of the three systems: epochs of minibatches in a seeded order, each with a test and a checkpoint.

Everything that is drawn has a stream of its own by the number of the epoch or the minibatch. So a checkpoint holds no
generator, and a run that was killed goes on from the last one and ends in the same bits on a CPU.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wn_dqn.errors import RunError, first_line
from wn_dqn.nn.optimizers import load_optimizer_state, optimizer_state
from wn_dqn.paper.data import Images
from wn_dqn.paper.settings import PaperSettings
from wn_dqn.paper.storage import PaperDirectory
from wn_dqn.paper.system import Picture, System, generator_of
from wn_dqn.runs.checkpoint import (
    CheckpointError,
    load_checkpoint,
    prune_checkpoints,
    restore_newest,
    save_checkpoint,
)
from wn_dqn.runs.metrics_writer import MetricsWriter
from wn_dqn.runs.status import SAVED_STEPS
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.seeding import numpy_generator, torch_generator
from wn_dqn.system.durable import remove_leftovers, write_durably
from wn_dqn.system.output_file import MARK
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.host import Stop

_KEEP_CHECKPOINTS = 2
_TEST_BATCH, _SHOWN = 250, 40  # images
_AVERAGED_EPOCHS = 10  # section 5.2: "approximately 10 epochs"
_PICTURE_PERIOD_EPOCHS = 5


@dataclass
class Trainer:
    """A run under way. A step is a minibatch; N training inputs, M test inputs."""

    settings: PaperSettings
    system: System
    images: Images
    directory: PaperDirectory
    metrics: MetricsWriter
    reporter: ProgressReporter
    stop: StopRequest
    device: torch.device
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """of the loss and what else is known of a minibatch, over those of this epoch so far"""
    saved_steps: int | None = None
    average: System | None = None
    """the system with the averaged parameters; None if it is tested with its own"""
    unsaved: OSError | None = None
    _order: Tensor | None = None
    _train_s: float = 0.0
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.train_x, self.test_x = (x.to(self.device) for x in self.system.inputs(self.images, self.directory.path))
        self.train_labels = self.images.train_labels.to(self.device)
        self.test_labels = self.images.test_labels.to(self.device)
        self.system.to(self.device)
        self.optimizer = self.system.make_optimizer()
        self._loss = torch.compile(self.system.loss) if self.settings.compile else self.system.loss

    @property
    def epoch_steps(self) -> int:
        """Minibatches of an epoch; a last, smaller one is left out."""
        return len(self.train_x) // self.settings.batch_size

    def begin(self) -> None:
        """Initialize the system on the first training inputs of a seeded order."""
        chosen = self._permutation(0)[: self.settings.init_batch_size]
        self.system.start_(self.train_x[chosen], torch_generator(self.settings.seed, "init"))
        if self.system.averaged:
            self.average = copy.deepcopy(self.system)

    def run(self) -> None:
        """Train to the last epoch; a Stop is raised between two minibatches, after all was saved."""
        total = self.settings.epochs * self.epoch_steps
        with self.reporter.task(f"training {self.settings.system}", total, self.steps) as task:
            while self.steps < total:
                try:
                    self.stop.check()
                except Stop:
                    self.save()
                    raise
                self.train_minibatch()
                task.update(self.steps)
                if self.steps % self.epoch_steps == 0:
                    self.end_epoch()

    def train_minibatch(self) -> None:
        """One step of the optimizer; RunError if the loss is no finite number."""
        began_s = time.monotonic()
        epoch, within = divmod(self.steps, self.epoch_steps)
        if self._order is None or within == 0:
            self._order = self._permutation(epoch + 1)
        chosen = self._order[within * self.settings.batch_size :][: self.settings.batch_size]
        if (scheduled := self.system.schedule(self.steps / self.epoch_steps)) is not None:
            learning_rate, momentum = scheduled
            for group in self.optimizer.param_groups:
                group["lr"], group["betas"] = learning_rate, (momentum, group["betas"][1])
        generator = generator_of(self.device, self.settings.seed, "noise", self.steps)
        self.system.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, others = self._loss(self.train_x[chosen], self.train_labels[chosen], generator)
        loss.backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(value := loss.item()):
            raise RunError(f"the loss of minibatch {self.steps:,} is {value}; the last checkpoint is intact")
        if self.system.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.system.parameters(), self.system.max_gradient_norm)
        self.optimizer.step()
        self.steps += 1
        for name, each in (("loss", value), *((name, other.item()) for name, other in others.items())):
            self.sums[name] = self.sums.get(name, 0.0) + each
        if self.average is not None:
            average_(self.average, self.system, self.steps, _AVERAGED_EPOCHS * self.epoch_steps)
        self._train_s += time.monotonic() - began_s

    def end_epoch(self) -> None:
        """Write the rows of the epoch, test, and save."""
        epoch = self.steps // self.epoch_steps
        means = {f"train/{name}": total / self.epoch_steps for name, total in self.sums.items()}
        self.metrics.write(self.steps, {"epoch": epoch, **means, "speed/epoch_s": self._train_s})
        self.sums, self._train_s = {}, 0.0
        measures = self.test()
        self.metrics.write_evaluation(self.steps, {"epoch": epoch, **measures}, {})
        shown = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
        self.reporter.message(f"epoch {epoch}: {shown} ({self.settings.data_label})")
        if epoch % _PICTURE_PERIOD_EPOCHS == 0 or epoch == self.settings.epochs:
            self.write_pictures()
        sign = 1.0 if self.system.better == "higher" else -1.0
        self.save(sign * measures[self.system.score])

    @torch.no_grad()
    def test(self) -> dict[str, float]:
        """The means of the measures over the test set. What is drawn is the same in every epoch."""
        system = (self.average or self.system).eval()
        sums: dict[str, float] = {}
        for index, (x, labels) in enumerate(
            zip(torch.split(self.test_x, _TEST_BATCH), torch.split(self.test_labels, _TEST_BATCH), strict=True)
        ):
            generator = generator_of(self.device, self.settings.seed, "evaluation", 0, index)
            for name, values in system.measures(x, labels, generator).items():
                sums[name] = sums.get(name, 0.0) + values.double().sum().item()
        return {name: total / len(self.test_x) for name, total in sums.items()}

    @torch.no_grad()
    def write_pictures(self) -> None:
        """Pictures of the tested system, as PNG files in the run's folder and for TensorBoard."""
        system = (self.average or self.system).eval()
        generator = generator_of(self.device, self.settings.seed, "evaluation", 1)
        for name, picture in system.pictures(
            self.test_x[:: max(len(self.test_x) // _SHOWN, 1)][:_SHOWN], generator
        ).items():
            data = png(picture)
            self.metrics.write_clip(self.steps, f"pictures/{name}", data, (picture.shape[1], picture.shape[0]))
            with contextlib.suppress(OSError):  # a full disk: the next ones replace them
                write_durably(self.directory.path / f"{name}.png", data)

    def state_dict(self) -> dict[str, Any]:
        """All that an identical continuation needs."""
        return {
            "step": self.steps,
            "sums": dict(self.sums),
            "system": self.system.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "metrics": self.metrics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave; RuntimeError, ValueError or LookupError if it is another system's."""
        self.system.load_state_dict(state["system"])
        if self.system.averaged:
            self.average = copy.deepcopy(self.system)
            self.average.load_state_dict(state["average"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.steps = int(state["step"])
        self.sums = {name: float(total) for name, total in state["sums"].items()}
        self.metrics.load_state_dict(state["metrics"])

    def save(self, score: float | None = None) -> None:
        """Save a checkpoint. If the disk refuses, training goes on and the next save tries again."""
        self.directory.require_in_place()
        self.directory.require_own_folders()
        try:
            save_checkpoint(self.directory.checkpoints, self.steps, self.state_dict(), score)
            prune_checkpoints(self.directory.checkpoints, _KEEP_CHECKPOINTS, lambda _steps: True)
            self.unsaved, self.saved_steps = None, self.steps
        except OSError as error:
            self.unsaved = error
            self.reporter.message(f"checkpoint at step {self.steps:,} failed: {error}; the last good one stays")
        self.write_status("running" if self.unsaved is None else "degraded")

    def restore(self) -> bool:
        """Go on from the newest whole checkpoint; False if none was ever saved. RunError if none can be read."""
        path = restore_newest(self.directory.checkpoints, self._restore_from, self.reporter.message)
        if path is None:
            self.directory.require_known_beginning()
            self.metrics.load_state_dict({})
            return False
        self.saved_steps = self.steps
        remove_leftovers(self.directory.checkpoints)
        return True

    def _restore_from(self, path: Path) -> None:
        state = load_checkpoint(path)
        try:
            if problems := self.metrics.problems(state["metrics"]):
                raise RunError(f"{problems[0]}: put it back, or begin in another --run-dir")
            self.load_state_dict(state)
        except (RuntimeError, ValueError, LookupError) as error:
            raise CheckpointError(f"{path}: does not fit this run: {first_line(error)}") from None

    def write_status(self, status: str, **details: Any) -> None:
        """Tell other programs how the run is; a full disk is no error here."""
        if self.directory.in_place:
            with contextlib.suppress(OSError):
                self.directory.write_status(status, steps=self.steps, **{SAVED_STEPS: self.saved_steps}, **details)

    def _permutation(self, epoch: int) -> Tensor:
        """The order [N] of the training inputs in an epoch."""
        order = numpy_generator(self.settings.seed, "replay", epoch).permutation(len(self.train_x))
        return torch.from_numpy(order).to(self.device)


@torch.no_grad()
def average_(average: torch.nn.Module, current: torch.nn.Module, step: int, horizon: int) -> None:
    """Move each parameter of `average` toward that of `current`, by 1/min(horizon, 1 + step/10), after `step` steps.

    With a constant rate 1/horizon the average would remember the initial parameters for many horizons. Here it reaches
    back over about the last tenth of the training, until that is a horizon.
    """
    rate = 1.0 / min(horizon, 1.0 + step / 10)
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in current.parameters()], rate)


def png(picture: Picture) -> bytes:
    """A picture as a PNG file that bears this program's mark, each pixel as 2x2 pixels."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Software", MARK)
    image = Image.fromarray(picture)
    file = io.BytesIO()
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(file, "PNG", pnginfo=info)
    return file.getvalue()
