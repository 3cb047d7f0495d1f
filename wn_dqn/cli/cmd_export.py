"""``wn-dqn export``: a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wn_dqn.cli.options import CHECKPOINT, NAMED_ENV, PLUGIN
from wn_dqn.errors import UsageError

if TYPE_CHECKING:
    from wn_dqn.interop.export import Format


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "safetensors"]),
    help="What to write.  [default: what the name of the file ends in]",
)
@CHECKPOINT
@NAMED_ENV
@PLUGIN
def export(run: Path, output: Path, format_: Format | None, checkpoint: str, named_env: str | None) -> None:
    """Write the network of RUN, a run directory or a checkpoint, for other programs.

    Weight normalization is folded: what is written are plain weights. Beside FILE comes FILE.json, which says what
    goes in and what comes out, what the actions mean, and how well it played (`wn-dqn evaluate` first).
    """
    from wn_dqn.interop.export import export as export_network
    from wn_dqn.interop.export import require_onnx
    from wn_dqn.runs.policy import load_policy
    from wn_dqn.runs.reevaluation import read_records
    from wn_dqn.system.hardware import find_device

    if format_ is None:
        if output.suffix not in (".onnx", ".safetensors"):
            raise UsageError(f"{output} ends in neither .onnx nor .safetensors: give --format")
        format_ = "onnx" if output.suffix == ".onnx" else "safetensors"
    if format_ == "onnx":
        require_onnx()
    policy = load_policy(run, checkpoint, find_device("cpu"), [named_env or ""])
    records, problems = read_records(policy.path)
    for problem in problems:
        click.echo(f"wn-dqn: {problem}", err=True)
    contract = export_network(policy, output, format_, records)
    click.echo(f"{output} and {contract.name}: {policy.settings.game}, {policy.settings.param}, step {policy.steps:,}")
