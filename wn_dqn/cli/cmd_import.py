"""``wn-dqn import``: starts a run from another program's network."""

from __future__ import annotations

from pathlib import Path

import click

from wn_dqn.cli.options import plugin_option


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run to begin.")
@click.option("--game", help="The game that the network was trained on.")
@click.option("--param", help="Parameterization of the new run: wn (g = ||w||, v = w) or standard.  [default: wn]")
@click.option("--config", "config_name", metavar="NAME|FILE", help="Settings of the run, as for `wn-dqn train`.")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="Any setting, as for `wn-dqn train`.")
@click.option("--seed", type=int, help="Seed of the run.  [default: 0]")
@plugin_option(expose_value=True)
def import_(
    file: Path,
    output: Path,
    game: str | None,
    param: str | None,
    config_name: str | None,
    assignments: tuple[str, ...],
    seed: int | None,
    plugins: tuple[str, ...],
) -> None:
    """Start a run from the Q-network in FILE, of Stable-Baselines3, CleanRL or `wn-dqn export`.

    FILE is a .zip that Stable-Baselines3 saved, or a state_dict: .safetensors, .pt, .pth, .cleanrl_model. The network
    must be a plain Nature network, without dueling heads. Only tensors are loaded, never code. `evaluate`, `play` and
    `export` read the new run. `train` continues it. Its exploration starts at random play, unless you set a smaller
    epsilon, like --set exploration.initial=0.1.
    """
    from wn_dqn.config.files import merge, parse_assignment, read_config
    from wn_dqn.interop.import_run import import_run, settings_for_network
    from wn_dqn.interop.import_weights import read_weights
    from wn_dqn.system.hardware import find_device

    options = {"game": game, "param": param, "seed": seed, "plugins": list(plugins) or None}
    given = {key: value for key, value in options.items() if value is not None}
    network = read_weights(file)
    data = merge([read_config(config_name) if config_name else {}, *map(parse_assignment, assignments), given])
    settings = settings_for_network(data, network)
    path = import_run(settings, output, network, find_device("cpu"))
    click.echo(f"{path}\nTo go on: wn-dqn train --config {output}/config.yaml --run-dir {output}")
