"""``wn-dqn doctor``: this machine's hardware and its speed."""

from __future__ import annotations

import itertools
import json

import click

from wn_dqn.cli.options import DEVICE
from wn_dqn.errors import UsageError


@click.command()
@DEVICE
@click.option(
    "--bench", is_flag=True, help="Measure both limits of training speed, for several numbers of games; takes a minute."
)
@click.option(
    "--config",
    metavar="NAME|FILE",
    help="With --bench: also measure training with this config, and estimate its duration.",
)
@click.option("--json", "as_json", is_flag=True, help="With --bench: print the numbers as JSON.")
def doctor(device: str, bench: bool, config: str | None, as_json: bool) -> None:
    """Show this machine's hardware, the part of it that training would use, and its speed.

    \b
    wn-dqn doctor                                the hardware, and the duration of the paper's run
    wn-dqn doctor --bench                        speed of the emulators alone, the learner alone, and training
    wn-dqn doctor --bench --config my.yaml       the duration of my run
    """
    if (config or as_json) and not bench:
        raise UsageError("--config and --json are options of --bench")

    from wn_dqn.runs.bench import BRIEF, WHOLE, measure
    from wn_dqn.runs.doctor import examine, report
    from wn_dqn.system.hardware import find_device, prepare_torch
    from wn_dqn.system.progress import ProgressReporter

    torch_device = find_device(device)
    prepare_torch(torch_device, "float32")
    if not as_json:
        for line in examine(torch_device):
            click.echo(line)
    with ProgressReporter().task("measuring", 0) as task:
        steps = itertools.count(1)
        found = measure(torch_device, WHOLE if bench else BRIEF, config, lambda what: task.update(next(steps), what))
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    for line in report(found):
        click.echo(line)
