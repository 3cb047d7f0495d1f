"""Saves a network's outputs at its initialization, to check later whether two arms started as the same function."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from wn_dqn.nn.networks import QNetwork
from wn_dqn.system import reading
from wn_dqn.system.durable import write_durably
from wn_dqn.system.reading import MIB, Digest, Number, Record

START = "start.json"
NUM_STATES = 64
"""number of held-out states that are used; a random policy visited them, so that runs of one seed share them"""


class Start(Record):
    """The content of ``start.json``."""

    states: Digest
    """SHA-256 of the observations, in their dtype and order"""
    q_values: list[list[Number]]
    """[S, A], computed in float64 from the network's parameters, so that rounding causes no difference"""


@torch.no_grad()
def start_of(network: QNetwork, states: Tensor) -> Start:
    """The outputs of `network` in evaluation mode, without noise, for observations [S, *obs_shape]."""
    exact = copy.deepcopy(network).double()
    q_values = exact(states.to(next(exact.parameters()).device))
    digest = hashlib.sha256(states.contiguous().cpu().numpy().tobytes()).hexdigest()
    return Start(states=digest, q_values=q_values.tolist())


def write_start(run: Path, start: Start) -> None:
    """Save `start` in the run directory. Raises OSError if it cannot be written."""
    write_durably(run / START, json.dumps(start.model_dump()).encode())


def read_start(run: Path) -> Start | None:
    """The start of the run in `run`; None if it was not saved, or is damaged."""
    try:
        return reading.read_json(run / START, MIB, Start)
    except OSError:
        return None
