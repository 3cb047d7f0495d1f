"""A run that begins with a network that was trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wn_dqn.config.files import make_settings, merge
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.envs.atari_games import Game
from wn_dqn.envs.registry import find_any_game, single_game
from wn_dqn.envs.rules import EnvRules
from wn_dqn.errors import UsageError
from wn_dqn.interop.import_weights import assign
from wn_dqn.nn.networks import QNetwork
from wn_dqn.runs.checkpoint import save_checkpoint
from wn_dqn.runs.make_agent import ATARI_OBS_SHAPE, make_agent
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.training.state import new_state


def settings_for_network(data: Mapping[str, Any], network: QNetwork) -> Settings:
    """Settings of a run that begins with `network`; all 18 actions are taken if that is what it has outputs for."""
    data = dict(data)
    if isinstance(data.get("game"), str):
        game = find_any_game(data["game"])
        data["game"] = game.name
        full = network.num_actions != _num_actions(game, full_action_set=False)
        data = merge([{"environment": {"full_action_set": full}}, data])
    settings = make_settings(data)
    if not PARAMETERIZATIONS[settings.param].learned_by_others:
        valid = " or ".join(name for name, row in PARAMETERIZATIONS.items() if row.learned_by_others)
        raise UsageError(f"a network is imported as {valid}, not as {settings.param}")
    if settings.network.dueling:
        raise UsageError("a network is imported without dueling heads: set network.dueling=false")
    return settings


def import_run(settings: Settings, run_dir: Path, network: QNetwork, device: torch.device) -> Path:
    """Begin a run in `run_dir` whose network is given: at step 0, initialized, not yet evaluated.

    Returns its checkpoint. UsageError if there is a run already, or the network does not fit the game.
    """
    game = find_any_game(settings.game)
    outputs = network.num_actions
    actions = _num_actions(game, full_action_set=settings.environment.full_action_set)
    if outputs != actions:
        raise UsageError(f"the network has {outputs} outputs, but {game.name} has {actions} actions")
    directory = RunDirectory(run_dir)
    if directory.exists:
        raise UsageError(f"{run_dir} holds a run already; choose another --output")
    agent = make_agent(settings, ATARI_OBS_SHAPE, "uint8", actions, device)
    assign(agent.online, network)
    agent.update_target()
    state = new_state(settings)
    state.initialized, state.evaluated_at = True, -1  # the first thing that a training does is to test it
    directory.create()
    with directory.locked():
        content = {
            "settings": settings.model_dump(),
            "training": state.state_dict(),
            "agent": agent.state_dict(),
            "metrics": {},
            "replay": None,
            "held_out": None,
        }
        path = save_checkpoint(directory.checkpoints, 0, content, score=None)
        directory.add_provenance(device)
        directory.write_status("paused", steps=0, reason="imported")
        directory.write_settings(settings)  # last: only now it is a run
    return path


def _num_actions(game: Game, *, full_action_set: bool) -> int:
    """How many actions the game has."""
    return single_game(game, EnvRules(full_action_set=full_action_set)).num_actions
