"""Plays one game at a time, in colour and with the network's Q-values, for people to watch.

The rules are those of an evaluation (:mod:`wn_dqn.evaluation.protocols`). The game runs in the reference environment,
which gives every colour frame; the fast one gives none.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.envs.frame_stack import FrameStack
from wn_dqn.envs.vector_env import SingleGame
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.epsilon_greedy import epsilon_greedy
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.render.q_panel import Moment, QPanel
from wn_dqn.render.saliency import Method, saliency_map
from wn_dqn.render.video import FRAMES_PER_S, Frame
from wn_dqn.seeding import env_seeds, numpy_generator

_GAME_HEIGHT, _GAME_WIDTH = 420, 480  # a screen of 210x160 with pixels wider than high, as a television shows it


@dataclass(frozen=True)
class PlayedStep:
    """One step of one game: the choice, and the frames of the step."""

    obs: NDArray[Any]
    """[*obs_shape], the observation before the choice"""
    moment: Moment
    rgb_frames: NDArray[np.uint8]
    """[k, height, width, 3]: 4 frames, fewer at the game's end; the first step also has the initial frame"""
    ended: bool


def play(
    q_values: Callable[[Tensor], Tensor], env: SingleGame, protocol: EvaluationProtocol, num_games: int, seed: int
) -> Iterator[PlayedStep]:
    """Play `num_games` games one after another, epsilon-greedily. Game k does not depend on the games before it."""
    for game in range(num_games):
        generator = numpy_generator(seed, "evaluation", game, 1)
        noop_frames = int(generator.integers(protocol.max_noop_frames + 1))
        observed = FrameStack(env.spec, 1)
        frame = env.reset(int(env_seeds(seed, "evaluation", game, 0, num_envs=1)[0]), noop_frames)
        obs = observed.begin(frame[None])
        opening, score, ended = env.rgb_frames, 0.0, False
        for step in itertools.count():
            explored = bool(generator.random() < protocol.epsilon)
            random_action = np.array([generator.integers(env.spec.num_actions) if explored else 0])
            chosen_from, batch = obs[0].copy(), torch.from_numpy(obs)
            actions, q = epsilon_greedy(np.array([explored]), random_action, q_values, batch)
            action = int(actions[0])
            q_shown = (q_values(batch) if q is None else q)[0].float().cpu().numpy()
            outcome = env.step(action)
            ended = outcome.terminated or outcome.truncated
            obs = observed.push(outcome.frame[None], np.array([False]))
            score += outcome.reward
            frames = env.rgb_frames if step else np.concatenate([opening, env.rgb_frames])
            yield PlayedStep(
                chosen_from, Moment(q_shown, action, explored, score, env.lives, game, num_games, step), frames, ended
            )
            if ended:
                break


class Painter:
    """Combines a game's frames with the panel beside them and, if there is a `method`, a saliency map over them."""

    def __init__(
        self, panel: QPanel, plain_network: Callable[[Tensor], Tensor] | None = None, method: Method | None = None
    ) -> None:
        """`plain_network`: the Q-network in standard layers (:mod:`wn_dqn.nn.folding`), for the saliency `method`."""
        self._panel = panel
        self._network, self._method = plain_network, method
        self._strongest = 1e-12
        self.size = (0, 0)
        """width and height of the newest frame"""

    def paint(self, step: PlayedStep) -> Iterator[Frame]:
        """The frames of one step: RGB [420, 800, 3] for most games."""
        panel = self._panel.draw(step.moment)
        heat = self._heat(step)
        for rgb in step.rgb_frames:
            size = _screen_size(rgb, len(panel))
            screen: Frame = cv2.resize(rgb, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
            if heat is not None:
                screen = _overlay(screen, heat)
            frame = np.hstack([screen, panel])
            self.size = (frame.shape[1], frame.shape[0])
            yield frame

    def _heat(self, step: PlayedStep) -> NDArray[np.float32] | None:
        """The saliency [84, 84] of the chosen action, relative to its recent maximum."""
        if self._method is None or self._network is None:
            return None
        saliency = saliency_map(self._network, step.obs, step.moment.action, self._method)
        self._strongest = max(0.98 * self._strongest, float(saliency.max()), 1e-12)
        return saliency / self._strongest


def _screen_size(rgb: NDArray[np.uint8], height: int) -> tuple[int, int]:
    """Width and height of the game for a panel of `height`: with the aspect ratio of `rgb` [h, w, 3], or Atari's."""
    if rgb.shape[1] == 160:
        return _GAME_WIDTH, height
    width = 2 * round(height * rgb.shape[1] / rgb.shape[0] / 2)  # encoders require even widths
    return min(max(width, height // 2), 2 * height), height


def _overlay(screen: Frame, heat: NDArray[np.float32]) -> Frame:
    """`screen`, darkened, with `heat` glowing on it."""
    height, width, _ = screen.shape
    alpha = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None].clip(0, 1)
    glow = np.array([255, 170, 40], np.float32)
    return ((1 - alpha) * 0.6 * screen + alpha * glow).astype(np.uint8)


def open_window(title: str) -> Callable[[Frame], bool]:
    """Open a window. Returns a function that shows a frame for a sixtieth of a second.

    The function returns False after the key q or Esc. Raises UsageError, with the remedy, if the installed OpenCV or
    the machine cannot open windows.
    """
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        raise UsageError("there is no display here; leave out --show, and write a file with -o game.webm")
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        raise UsageError(
            "the installed OpenCV opens no windows: pip uninstall opencv-python-headless && pip install opencv-python, "
            "or leave out --show, and write a file with -o game.webm"
        )
    due_s = time.monotonic()

    def show(frame: Frame) -> bool:
        nonlocal due_s
        cv2.imshow(title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        due_s = max(due_s + 1 / FRAMES_PER_S, time.monotonic())
        wait_ms = max(round(1000 * (due_s - time.monotonic())), 1)
        return cv2.waitKey(wait_ms) not in (ord("q"), 27)

    return show
