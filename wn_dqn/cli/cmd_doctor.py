"""``wn-dqn doctor``: what this machine has, and how fast it is."""

from __future__ import annotations

import click

from wn_dqn.cli.options import DEVICE


@click.command()
@DEVICE
def doctor(device: str) -> None:
    """Say what this machine has, what a training would use, and how fast it is."""
    from wn_dqn.runs.doctor import examine
    from wn_dqn.system.hardware import find_device, prepare_torch

    torch_device = find_device(device)
    prepare_torch(torch_device, "float32")
    for line in examine(torch_device):
        click.echo(line)
