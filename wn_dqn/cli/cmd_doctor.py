"""``wn-dqn doctor``: what this machine has, and how fast it is."""

from __future__ import annotations

import itertools
import json

import click

from wn_dqn.cli.options import DEVICE
from wn_dqn.errors import UsageError


@click.command()
@DEVICE
@click.option("--bench", is_flag=True, help="Measure both limits of a training, for many numbers of games: a minute.")
@click.option(
    "--config",
    metavar="NAME|FILE",
    help="With --bench: measure the training of this config, too, and how long it takes.",
)
@click.option("--json", "as_json", is_flag=True, help="With --bench: print the figures as JSON.")
def doctor(device: str, bench: bool, config: str | None, as_json: bool) -> None:
    """Say what this machine has, what a training would use, and how fast it is.

    \b
    wn-dqn doctor                                what is here, and how long the paper's run would take
    wn-dqn doctor --bench                        the emulators alone, the learner alone, and training beside them
    wn-dqn doctor --bench --config my.yaml       how long my run would take
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
