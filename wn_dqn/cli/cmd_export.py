"""``wn-dqn export``: a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wn_dqn.cli.options import CHECKPOINT, NAMED_ENV, PLUGIN

if TYPE_CHECKING:
    from wn_dqn.interop.export import Format


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "safetensors"]),
    help="The format.  [default: from the file's extension]",
)
@CHECKPOINT
@NAMED_ENV
@PLUGIN
def export(run: Path, output: Path, format_: Format | None, checkpoint: str, named_env: str | None) -> None:
    """Write the network of RUN, a run directory or a checkpoint, for other programs.

    Weight normalization is folded, so that the file contains plain weights. FILE.json beside it describes the inputs,
    the outputs and the actions, and contains the scores of `wn-dqn evaluate`.
    """
    from wn_dqn import api
    from wn_dqn.interop.export import find_format
    from wn_dqn.runs.reevaluation import read_records

    format_ = format_ or find_format(output)  # report a mistake before a network is read
    policy = api.load(run, checkpoint, device="cpu", named=[named_env or ""])
    contract = policy.export(output, format_)
    for problem in read_records(policy.path)[1]:
        click.echo(f"wn-dqn: {problem}", err=True)
    network = f"{policy.settings.game}, {policy.settings.param}, step {policy.steps:,}"
    click.echo(f"{output} and {contract.name}: {network}; {contract.name} describes the inputs and the outputs")
