"""``wn-dqn paper``: the other systems of the weight-normalization paper."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from wn_dqn.cli.options import DEVICE, NumberRange, seconds
from wn_dqn.paper.settings import ARMS, EMBEDDED, make_paper_settings

_Command = Callable[..., None]


@click.group()
def paper() -> None:
    """The paper's other systems: CIFAR-10, the convolutional VAE and DRAW, with the same layers.

    Without --data each trains on real data from installed packages (wn-dqn[paper]), scaled down.
    With --data DIR, the official files, the defaults are the paper's. Nothing is downloaded. See docs/paper-systems.md.

    \b
    wn-dqn paper cifar10 --param wn-mean-only-bn
    wn-dqn paper vae --param wn --data ~/mnist
    wn-dqn paper draw --no-attention
    """


def _common(system: str) -> Callable[[_Command], _Command]:
    """The options that all systems have."""
    options = (
        click.option("--param", default="wn", show_default=True, metavar="|".join(ARMS[system]), help="The layers."),
        click.option("--data", metavar="DIR", help=f"The official files.  [default: {EMBEDDED[system]}, embedded]"),
        click.option(
            "--seed", type=click.IntRange(0), default=0, show_default=True, help="All randomness comes from it."
        ),
        click.option("--epochs", type=click.IntRange(1, 10**6), help="Passes over the training set."),
        click.option("--width", type=click.IntRange(1, 4096), help="Maps, or units; see docs/paper-systems.md."),
        click.option("--learning-rate", type=NumberRange(0, 1e3, min_open=True), help="[default: the arm's]"),
        click.option("--batch-size", type=click.IntRange(1, 10**5), help="[default: 100]"),
        click.option("--compile", is_flag=True, default=None, help="Learn through torch.compile."),
        DEVICE,
        click.option("--run-dir", type=click.Path(path_type=Path), help="[default: runs/paper-SYSTEM-PARAM-seedSEED]"),
        click.option("--stop-after", metavar="DURATION", help="Save and stop after so long, like 90s, 30m or 2h."),
    )

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@paper.command()
@_common("cifar10")
@click.option("--zca-epsilon", type=NumberRange(0, 1e3, min_open=True), help="[default: 1e-5; 0.01 on embedded data]")
@click.option("--reference-code", is_flag=True, default=None, help="Where text and code of the paper differ, the code.")
def cifar10(**options: Any) -> None:
    """The classifier of section 5.1; --data: cifar-10-binary.tar.gz, or the folder that it unpacks to."""
    _train("cifar10", **options)


@paper.command()
@_common("vae")
@click.option("--posterior", type=click.Choice(["iaf", "diagonal"]), help="[default: iaf]")
def vae(**options: Any) -> None:
    """The convolutional VAE of section 5.2; --data: a folder with MNIST's four idx files, gzipped or not."""
    _train("vae", **options)


@paper.command("vae-cifar10")
@_common("vae-cifar10")
@click.option("--levels", type=click.IntRange(1, 5), help="Resolutions that have latent maps.  [default: 3]")
def vae_cifar10(**options: Any) -> None:
    """The VAE of section 5.2 with several stochastic layers; --data: cifar-10-binary.tar.gz, or its folder."""
    _train("vae-cifar10", **options)


@paper.command()
@_common("draw")
@click.option("--glimpses", type=click.IntRange(1, 1000), help="Time steps.  [default: 64; 16 on embedded data]")
@click.option("--attention/--no-attention", default=None, help="Selective attention.  [default: attention]")
def draw(**options: Any) -> None:
    """DRAW, the recurrent VAE of section 5.3; --data: a folder with MNIST's four idx files, gzipped or not."""
    _train("draw", **options)


def _train(
    system: str,
    *,
    param: str,
    data: str | None,
    device: str,
    run_dir: Path | None,
    stop_after: str | None,
    **given: Any,
) -> None:
    settings = make_paper_settings(system, param, data, **given)
    stop_after_s = None if stop_after is None else seconds(stop_after)

    from wn_dqn.cli.signals import stopping_on_signals
    from wn_dqn.paper.launch import train_paper
    from wn_dqn.runs.stop_request import StopRequest
    from wn_dqn.system.hardware import find_device
    from wn_dqn.system.progress import ProgressReporter

    folder = run_dir or Path("runs") / f"paper-{system}-{param}-seed{settings.seed}"
    stop = StopRequest(stop_after_s)
    with stopping_on_signals(stop):
        status = train_paper(settings, folder, find_device(device), ProgressReporter(), stop)
    sys.exit(status)
