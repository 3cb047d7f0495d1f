"""Starts a run from a network that was trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wn_dqn.config.files import make_settings, merge
from wn_dqn.config.games import find_game, game_of
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.envs.factory import spec_of
from wn_dqn.envs.rules import EnvRules, training_rules
from wn_dqn.errors import UsageError
from wn_dqn.interop.import_weights import assign
from wn_dqn.nn.networks import QNetwork
from wn_dqn.runs.checkpoint import save_checkpoint
from wn_dqn.runs.parts import make_agent, make_plan
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.runs.snapshot import Snapshot
from wn_dqn.training.state import new_state


def settings_for_network(data: Mapping[str, Any], network: QNetwork) -> Settings:
    """Settings of a run that starts from `network`, with all 18 actions if the network has 18 outputs."""
    data = dict(data)
    if isinstance(data.get("game"), str):
        game = find_game(data["game"])
        full = network.num_actions != spec_of(game, EnvRules()).num_actions
        data = merge([{"environment": {"full_action_set": full}}, data])
    settings = make_settings(data)
    if not PARAMETERIZATIONS[settings.param].learned_by_others:
        valid = " or ".join(name for name, row in PARAMETERIZATIONS.items() if row.learned_by_others)
        raise UsageError(f"a network is imported as {valid}, not as {settings.param}")
    if settings.network.atoms is not None:
        raise UsageError(f"a network is imported with Q-values, not for {settings.agent}: set agent=dqn")
    if settings.network.dueling:
        raise UsageError("a network is imported without dueling heads: set network.dueling=false")
    return settings


def import_run(settings: Settings, run_dir: Path, network: QNetwork, device: torch.device) -> Path:
    """Start a run in `run_dir` from `network`: at step 0, initialized, not yet evaluated.

    Returns its checkpoint. Raises UsageError if there is a run already, or if the network does not fit the game.
    """
    game = game_of(settings)
    outputs = network.num_actions
    spec = spec_of(game, training_rules(settings.environment))
    if outputs != spec.num_actions:
        raise UsageError(f"the network has {outputs} outputs, but {game.name} has {spec.num_actions} actions")
    directory = RunDirectory(run_dir)
    if directory.exists:
        raise UsageError(f"{run_dir} holds a run already; choose another --output")
    agent = make_agent(settings, spec, device)
    assign(agent.online, network)
    agent.update_target()
    state = new_state(spec, settings.environment.num_envs, make_plan(settings))
    state.initialized, state.evaluated_at = True, -1  # training starts with an evaluation
    directory.create()
    with directory.locked():
        snapshot = Snapshot(
            settings=settings.model_dump(),
            arithmetic={},
            training=state.state_dict(),
            agent=agent.state_dict(),
            metrics={},
            replay=None,
            priorities={},
            held_out=None,
        )
        path = save_checkpoint(directory.checkpoints, 0, snapshot.content(), score=None)
        directory.add_provenance(device)
        directory.write_status("paused", steps=0, saved_steps=0, reason="imported")
        directory.write_settings(settings.model_dump())  # last, because this makes the folder a run
    return path
