"""One game at a time, in colour, with what the network thinks of it: for people to watch.

The rules are those of an evaluation (:mod:`wn_dqn.evaluation`); the game is the reference environment, which shows
every frame, where the fast one shows none.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol as Interface

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.atari.games import Game
from wn_dqn.atari.reference_env import ReferenceEnv
from wn_dqn.catch import Catch
from wn_dqn.errors import UsageError
from wn_dqn.evaluation import Protocol
from wn_dqn.panel import Moment, Panel
from wn_dqn.saliency import Method, saliency_map
from wn_dqn.seeding import env_seeds, numpy_generator
from wn_dqn.video import FRAMES_PER_S, Frame

_CATCH_FRAMES_PER_STEP = 12
_GAME_HEIGHT, _GAME_WIDTH = 420, 480  # a screen of 210x160 with pixels wider than high, as a television shows it


class SingleGame(Interface):
    """One game; see :class:`ReferenceEnv`."""

    num_actions: int
    action_names: tuple[str, ...]
    lives: int
    rgb_frames: NDArray[np.uint8]

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[np.uint8]: ...
    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, int]: ...


class CatchGame:
    """Catch behind the interface of :class:`ReferenceEnv`; each step is shown for a fifth of a second."""

    num_actions = Catch.num_actions
    action_names: tuple[str, ...] = ("LEFT", "STAY", "RIGHT")
    lives = 0

    def __init__(self) -> None:
        self._env = Catch(1)
        self.rgb_frames = np.zeros((1, 84, 84, 3), np.uint8)

    def reset(self, seed: int | None = None, noop_frames: int = 0) -> NDArray[np.uint8]:
        """Begin a game; Catch knows no no-ops."""
        obs: NDArray[np.uint8] = self._env.reset(np.array([seed or 0]))[0]
        self.rgb_frames = self._rgb(obs[-1], 1)
        return obs

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, int]:
        """(obs [4, 84, 84], reward, terminated, truncated, lives)."""
        self._env.send(np.array([action]))
        step = self._env.receive()
        self.rgb_frames = self._rgb(self._env.last_frames[0], _CATCH_FRAMES_PER_STEP)
        return step.obs[0], float(step.reward[0]), bool(step.terminated[0]), False, 0

    @staticmethod
    def _rgb(gray: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
        return np.broadcast_to(gray[None, :, :, None], (frames, 84, 84, 3))


def single_game(game: Game, protocol: Protocol) -> SingleGame:
    """One game played under `protocol`, to be watched."""
    if game.rom_id == "catch":
        return CatchGame()
    return ReferenceEnv(
        game.rom_id,
        repeat_action_probability=protocol.repeat_action_probability,
        full_action_set=protocol.full_action_set,
        max_game_frames=protocol.max_game_frames,
    )


@dataclass(frozen=True)
class PlayedStep:
    """One step of one game: the choice, and what was seen while it was carried out."""

    obs: NDArray[np.uint8]
    """uint8 [4, 84, 84], what the network chose from"""
    moment: Moment
    rgb_frames: NDArray[np.uint8]
    """[k, height, width, 3]: 4 frames, fewer where the game ended; the first step has the opening frame, too"""
    ended: bool


def play(
    q_values: Callable[[Tensor], Tensor], env: SingleGame, protocol: Protocol, num_games: int, seed: int
) -> Iterator[PlayedStep]:
    """Play `num_games` games one after another, epsilon-greedily. Game k is the same whatever came before it."""
    for game in range(num_games):
        generator = numpy_generator(seed, "evaluation", game, 1)
        noop_frames = int(generator.integers(protocol.max_noop_frames + 1))
        obs = env.reset(int(env_seeds(seed, "evaluation", game, 0, num_envs=1)[0]), noop_frames)
        opening, score, ended = env.rgb_frames, 0.0, False
        for step in itertools.count():
            q = q_values(torch.from_numpy(obs)[None])[0].float().cpu().numpy()
            explored = bool(generator.random() < protocol.epsilon)
            action = int(generator.integers(env.num_actions)) if explored else int(q.argmax())
            chosen_from = obs
            obs, reward, terminated, truncated, lives = env.step(action)
            score += reward
            ended = terminated or truncated
            frames = env.rgb_frames if step else np.concatenate([opening, env.rgb_frames])
            yield PlayedStep(
                chosen_from, Moment(q, action, explored, score, lives, game, num_games, step), frames, ended
            )
            if ended:
                break


class Painter:
    """Puts a game's frames and the panel side by side, over them a saliency map if there is a method for one."""

    def __init__(
        self, panel: Panel, plain_network: Callable[[Tensor], Tensor] | None = None, method: Method | None = None
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
            size = (_GAME_WIDTH, len(panel)) if rgb.shape[1] == 160 else (len(panel), len(panel))
            screen: Frame = cv2.resize(rgb, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
            if heat is not None:
                screen = _overlay(screen, heat)
            frame = np.hstack([screen, panel])
            self.size = (frame.shape[1], frame.shape[0])
            yield frame

    def _heat(self, step: PlayedStep) -> NDArray[np.float32] | None:
        """The saliency [84, 84] of the chosen action, 1 where it is as strong as it was lately."""
        if self._method is None or self._network is None:
            return None
        saliency = saliency_map(self._network, step.obs, step.moment.action, self._method)
        self._strongest = max(0.98 * self._strongest, float(saliency.max()), 1e-12)
        return saliency / self._strongest


def _overlay(screen: Frame, heat: NDArray[np.float32]) -> Frame:
    """`screen`, darkened, with `heat` glowing on it."""
    height, width, _ = screen.shape
    alpha = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None].clip(0, 1)
    glow = np.array([255, 170, 40], np.float32)
    return ((1 - alpha) * 0.6 * screen + alpha * glow).astype(np.uint8)


def open_window(title: str) -> Callable[[Frame], bool]:
    """A window; what is returned shows a frame for a sixtieth of a second, and says whether to go on (not q or Esc).

    UsageError, with the remedy, where the installed OpenCV or the machine has no windows.
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
