"""What a minibatch of the paper's other systems takes, beside the same model from torch.nn's layers and optimizers.

    python scripts/benchmark_paper.py cifar10                        # width 96, all five arms, two cores
    python scripts/benchmark_paper.py cifar10 vae draw --width small
    python scripts/benchmark_paper.py cifar10 --device cuda --rounds 50

The other model has torch.nn.Conv2d and Linear, with torch.nn.utils.parametrizations.weight_norm or torch.nn.BatchNorm2d
where the arm asks for them, and torch's own Adam or Adamax. What lies between the layers is the same
code. torch has no mean-only batch normalization: there it is y - mean(y) + b.

All arms, ours and torch's, take turns: one training minibatch of the paper's size each, in every round. Ratios are
taken within a round. Inputs are random numbers of the data's shape. The last column is the paper's number of epochs on
the official data at this speed, without tests.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Iterator
from unittest import mock

import click
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from wn_dqn.nn.layers import LayerKit
from wn_dqn.paper import draw, flow
from wn_dqn.paper.launch import make_system
from wn_dqn.paper.settings import ARMS, EMBEDDED, OFFICIAL, PaperSettings, make_paper_settings
from wn_dqn.paper.system import System, generator_of
from wn_dqn.system.hardware import find_device, num_cores, prepare_torch
from wn_dqn.system.text import time_text

SHAPES = {"CIFAR-10": (3, 32, 32), "MNIST": (1, 28, 28)}
TRAINING_IMAGES = {"CIFAR-10": 50_000, "MNIST": 60_000}


class MeanOnly(nn.Module):
    """y - mean(y) + b, after a layer without a bias."""

    def __init__(self, layer: nn.Module, units: int, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.dims = layer, dims
        self.shift = nn.Parameter(torch.zeros(units, *[1] * (len(dims) - 1)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y - y.mean(self.dims, keepdim=True) + self.shift


class FoldedLinear(nn.Linear):
    """A linear layer that can be asked for its weights, which DRAW does once a minibatch."""

    def fold(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias


class MaskedLinear(nn.Module):
    """A masked layer of the flow: torch's functions on a weight that is masked at each call."""

    def __init__(self, mask: Tensor, *, normalized: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)
        self.gain = nn.Parameter(torch.ones(len(mask), 1)) if normalized else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight * self.mask
        if self.gain is not None:
            weight = torch._weight_norm(weight, self.gain, 0)
        return nn.functional.linear(x, weight, self.layer.bias)


class Cell(nn.Module):
    """The parameters of torch's LSTM cell."""

    def __init__(self, input_size: int, hidden_size: int, *, normalized: bool) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(input_size, hidden_size)
        self.cell.bias_hh = None
        for name in ("weight_ih", "weight_hh") if normalized else ():
            weight_norm(self.cell, name)

    weight_ih = property(lambda self: self.cell.weight_ih)
    weight_hh = property(lambda self: self.cell.weight_hh)
    bias = property(lambda self: self.cell.bias_ih)


def torch_kit(param: str) -> LayerKit:
    """Layers of torch.nn for an arm."""
    batch_norm = {"bn": True, "mean-only-bn": False, "wn-mean-only-bn": False}.get(param)

    def finished(layer: nn.Module, units: int, norm: type[nn.Module], dims: tuple[int, ...]) -> nn.Module:
        layer = weight_norm(layer) if param.startswith("wn") else layer
        if batch_norm is None:
            return layer
        return nn.Sequential(layer, norm(units)) if batch_norm else MeanOnly(layer, units, dims)

    def conv2d(channels: int, maps: int, size: int, **settings: int) -> nn.Module:
        layer = nn.Conv2d(channels, maps, size, bias=batch_norm is None, **settings)
        return finished(layer, maps, nn.BatchNorm2d, (0, 2, 3))

    def linear(inputs: int, outputs: int) -> nn.Module:
        return finished(FoldedLinear(inputs, outputs, bias=batch_norm is None), outputs, nn.BatchNorm1d, (0,))

    return LayerKit(linear, conv2d)


@contextlib.contextmanager
def torch_layers(settings: PaperSettings) -> Iterator[None]:
    """Within it a system is built from torch's layers, and learns with them."""
    param = settings.param
    normalized = param.startswith("wn")
    with contextlib.ExitStack() as patches:
        for module in ("cifar10", "vae", "ladder_vae", "draw"):
            patches.enter_context(mock.patch(f"wn_dqn.paper.{module}.layer_kit", torch_kit))
        patches.enter_context(
            mock.patch.dict(flow.MASKED, {param: lambda mask: MaskedLinear(mask, normalized=normalized)})
        )
        patches.enter_context(mock.patch.dict(draw.LSTMS, {param: lambda *size: Cell(*size, normalized=normalized)}))
        patches.enter_context(mock.patch.object(draw, "Layer", FoldedLinear))
        yield


class Training:
    """A system that learns from one minibatch again and again."""

    def __init__(self, settings: PaperSettings, device: torch.device, *, ours: bool) -> None:
        shape = settings.batch_size, *SHAPES[OFFICIAL[settings.system]]
        self.x = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
        if settings.system == "cifar10":
            self.x = self.x / 64.0 - 2.0  # about as large as whitened pixels
        self.labels = (torch.arange(settings.batch_size) % 10).to(device)
        self.device, self.steps = device, 0
        self.layers = contextlib.nullcontext if ours else functools.partial(torch_layers, settings)
        with self.layers():
            self.system: System = make_system(settings).to(device)
        if ours:
            self.system.start_(self.x, torch.Generator().manual_seed(0))
            self.optimizer = self.system.make_optimizer()
        else:
            make = torch.optim.Adamax if settings.system.startswith("vae") else torch.optim.Adam
            self.optimizer = make(self.system.parameters(), lr=settings.learning_rate, foreach=True)

    def step_s(self) -> float:
        """Seconds of one minibatch."""
        with self.layers():
            began_s = time.perf_counter()
            generator = generator_of(self.device, 0, "noise", self.steps)
            self.optimizer.zero_grad(set_to_none=True)
            loss, _ = self.system.loss(self.x, self.labels, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.system.max_gradient_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.system.parameters(), self.system.max_gradient_norm)
            self.optimizer.step()
            loss.item()  # waits for a GPU
            seconds = time.perf_counter() - began_s
        self.steps += 1
        return seconds


def measure(system: str, width: str, device: torch.device, rounds: int) -> None:
    full = make_paper_settings(system, "wn", "official")
    size = full if width == "paper" else make_paper_settings(system, "wn", EMBEDDED[system])
    arms = {
        (param, ours): Training(make_paper_settings(system, param, "official", width=size.width), device, ours=ours)
        for param in ARMS[system]
        for ours in (True, False)
    }
    times: dict[tuple[str, bool], list[float]] = {arm: [] for arm in arms}
    for turn in range(rounds + 2):  # the first two warm up
        for arm, training in arms.items():
            seconds = training.step_s()
            if turn >= 2:
                times[arm].append(seconds)
    print(
        f"\n{system}, width {size.width}, minibatches of {full.batch_size}, {rounds} rounds; milliseconds a minibatch"
    )
    print("| arm | ours | torch.nn | ours / torch.nn (quartiles) | of our standard (quartiles) | official data |")
    print("|---|---:|---:|---|---|---:|")
    for param in ARMS[system]:
        mine, theirs = times[param, True], times[param, False]
        hours = statistics.median(mine) * full.epochs * (TRAINING_IMAGES[OFFICIAL[system]] // full.batch_size) / 3600
        shown = [f"{1e3 * statistics.median(each):.2f}" for each in (mine, theirs)]
        ratios = [quartiles(mine, theirs), quartiles(mine, times["standard", True])]
        official = time_text(hours) if width == "paper" else ""
        print(f"| `{param}` | {' | '.join([*shown, *ratios])} | {official} |")


def quartiles(above: list[float], below: list[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(above, below, strict=True)], n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


@click.command(help=__doc__)
@click.argument("systems", nargs=-1, required=True, type=click.Choice(list(ARMS)))
@click.option("--device", "device_name", default="cpu", show_default=True)
@click.option("--width", type=click.Choice(["paper", "small"]), default="paper", show_default=True)
@click.option("--rounds", type=click.IntRange(min=2), default=15, show_default=True)
def main(systems: tuple[str, ...], device_name: str, width: str, rounds: int) -> None:
    device = find_device(device_name)
    prepare_torch(device, "float32")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {num_cores()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for system in systems:
        measure(system, width, device, rounds)


if __name__ == "__main__":
    main()
