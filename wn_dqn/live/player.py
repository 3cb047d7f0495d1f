"""Plays a run's newest checkpoint for the live page, one picture at a time, and only while somebody watches."""

from __future__ import annotations

import base64
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from wn_dqn.config.games import game_of
from wn_dqn.envs.factory import single_game
from wn_dqn.errors import RunError, UsageError
from wn_dqn.evaluation.protocols import LONGEST_GAME_FRAMES, changed_protocol, training_protocol
from wn_dqn.render.play import PlayedStep, play
from wn_dqn.render.q_panel import readable
from wn_dqn.runs.checkpoint import checkpoint_paths
from wn_dqn.runs.policy import Policy, find_checkpoint, load_policy
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system.text import printable

STEPS_PER_PICTURE = 3
"""few, because each agent step costs a forward pass and four frames of the emulator"""
_PERIOD_S = 0.9
_FORGOTTEN_AFTER_S = 20.0
_GAMES = 10**6


class Player:
    """The agent of one run at play, under the rules of its own evaluations."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checkpoint: Path | None = None
        self._looked_at_ns = 0
        self._steps: Iterator[PlayedStep] = iter(())
        self._policy: Policy | None = None
        self._names: tuple[str, ...] = ()

    def picture(self) -> dict[str, Any]:
        """The next picture and its Q-values, as JSON values; or the reason why there is no picture."""
        try:
            self._follow()
            step = None
            for _ in range(STEPS_PER_PICTURE):
                step = next(self._steps, None)
        except (UsageError, RunError, OSError) as error:
            self._checkpoint, self._looked_at_ns = None, 0
            return {"problem": printable(str(error))}
        assert step is not None
        assert self._policy is not None
        moment = step.moment
        return {
            "image": _png(step),
            "actions": self._names,
            "q": [float(q) if math.isfinite(q) else None for q in moment.q],
            "action": moment.action,
            "explored": moment.explored,
            "score": moment.score,
            "lives": moment.lives,
            "game": moment.game + 1,
            "trained_steps": self._policy.steps,
        }

    def _follow(self) -> None:
        """Load the newest checkpoint if it is newer than the current one. The game then starts again."""
        changed_ns = os.stat(self._folder / "checkpoints").st_mtime_ns if self._checkpoint else 0
        if self._checkpoint is not None and changed_ns == self._looked_at_ns:
            return
        self._looked_at_ns = changed_ns
        if not checkpoint_paths(RunDirectory(self._folder).checkpoints):
            raise UsageError("the agent is shown once the run has saved a checkpoint")
        newest = find_checkpoint(self._folder, "last")
        if newest == self._checkpoint:
            return
        policy = load_policy(newest, "", torch.device("cpu"))
        settings = policy.settings
        protocol = training_protocol(settings.environment, settings.evaluation)
        if protocol.max_game_frames is None:
            protocol = changed_protocol(protocol, max_game_frames=LONGEST_GAME_FRAMES)
        env = single_game(game_of(settings), protocol.env_rules)
        self._names = tuple(map(readable, env.spec.action_names))
        self._steps = play(policy.q_values, env, protocol, _GAMES, seed=policy.steps)
        self._policy, self._checkpoint = policy, newest


def _png(step: PlayedStep) -> str:
    """The last frame of a step as the data URL of an image."""
    picture = cv2.cvtColor(step.rgb_frames[-1], cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", picture)
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


class Players:
    """One player for each run that somebody watches. All viewers of a run see the same game."""

    def __init__(self, make: Callable[[Path], Player] = Player, clock: Callable[[], float] = time.monotonic) -> None:
        self._make, self._clock = make, clock
        self._playing: dict[Path, tuple[Player, float, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def picture(self, folder: Path) -> dict[str, Any]:
        """See :meth:`Player.picture`. A picture is replaced after a second."""
        with self._lock:
            now_s = self._clock()
            self._playing = {
                path: playing for path, playing in self._playing.items() if now_s - playing[1] < _FORGOTTEN_AFTER_S
            }
            player, drawn_s, picture = self._playing.get(folder, (None, -math.inf, {}))
            if player is None or now_s - drawn_s >= _PERIOD_S:
                player = player or self._make(folder)
                picture = player.picture()
                self._playing[folder] = (player, now_s, picture)
            return picture
