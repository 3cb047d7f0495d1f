"""The panel beside a game: score, lives, the Q-value of every action, and the history of the largest one."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 420
_MARGIN = 20
_STEPS_PER_S = 15  # four frames each
_HISTORY_S = 10
_BACKGROUND, _TRACK, _BAR = (18, 20, 26), (38, 42, 52), (92, 116, 150)
_TEXT, _DIM = (240, 242, 246), (170, 177, 190)
_CHOSEN, _RANDOM = (86, 196, 233), (240, 150, 50)  # blue and orange, distinguishable with any colour vision
_Color = tuple[int, int, int]


@dataclass(frozen=True)
class Moment:
    """The data of one step for the panel."""

    q: NDArray[np.float32]
    """[A], before the step"""
    action: int
    explored: bool
    """whether the action was random and not the network's choice"""
    score: float
    """after the step"""
    lives: int
    """after the step; 0 also in games without lives"""
    game: int
    games: int
    step: int


class QPanel:
    """Draws one RGB picture [420, 320, 3] per step."""

    def __init__(self, title: str, subtitle: str, action_names: tuple[str, ...]) -> None:
        self._title, self._subtitle = title, subtitle
        self._names = [readable(name) for name in action_names]
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=_HISTORY_S * _STEPS_PER_S)
        self._game = 0
        self._most_lives = 0

    def draw(self, moment: Moment) -> NDArray[np.uint8]:
        """The panel for `moment`; the Q-values of the last ten seconds set its scale."""
        if moment.game != self._game:
            self._game, self._most_lives = moment.game, 0
            self._recent.clear()
        self._recent.append(moment.q)
        self._most_lives = max(self._most_lives, moment.lives)
        picture = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
        self._draw_head(picture, moment)
        below = self._draw_actions(picture, moment, top=146)
        if HEIGHT - below > 70:
            self._draw_history(picture, top=below + 10)
        return picture

    def _draw_head(self, picture: NDArray[np.uint8], moment: Moment) -> None:
        _text(picture, self._title, (_MARGIN, 34), 0.7, _TEXT)
        _text(picture, self._subtitle, (_MARGIN, 54), 0.4, _DIM)
        _text(picture, "score", (_MARGIN, 84), 0.4, _DIM)
        _text(picture, f"{moment.score:,.0f}", (_MARGIN, 110), 0.8, _TEXT)
        _text(picture, "game", (150, 84), 0.4, _DIM)
        _text(picture, f"{moment.game + 1} of {moment.games}", (150, 107), 0.5, _TEXT)
        if self._most_lives:
            _text(picture, "lives", (230, 84), 0.4, _DIM)
            shown = min(self._most_lives, 6)
            for life in range(shown):
                color = _TEXT if life < moment.lives else _TRACK
                cv2.circle(picture, (236 + 13 * life, 102), 4, color, cv2.FILLED, cv2.LINE_AA)

    def _draw_actions(self, picture: NDArray[np.uint8], moment: Moment, top: int) -> int:
        """Draw a bar per action. Returns the y coordinate of their lower end."""
        count = len(self._names)
        pitch = min(24, (HEIGHT - 12 - top) // count)
        scale = 0.42 if pitch >= 18 else 0.36
        low, high = self._range()
        left, right = 138, 246
        _text(picture, f"Q from {low:.2f} to {high:.2f}", (left, top - 8), 0.36, _DIM)
        for i, (name, q) in enumerate(zip(self._names, moment.q, strict=True)):
            y = top + i * pitch
            chosen = i == moment.action
            accent = (_RANDOM if moment.explored else _CHOSEN) if chosen else None
            base = y + pitch // 2 + 4
            _text(picture, name, (_MARGIN, base), scale, accent or _DIM)
            cv2.rectangle(picture, (left, y + 3), (right, y + pitch - 3), _TRACK, cv2.FILLED)
            end = left + round((right - left) * float(q - low) / (high - low))
            if end > left:
                cv2.rectangle(picture, (left, y + 3), (end, y + pitch - 3), accent or _BAR, cv2.FILLED)
            _text(picture, f"{q:.2f}", (right + 10, base), scale, accent or _DIM)
        if moment.explored:
            _text(picture, "random", (_MARGIN, top - 8), 0.36, _RANDOM)
        return top + count * pitch

    def _draw_history(self, picture: NDArray[np.uint8], top: int) -> None:
        """max Q of the last ten seconds."""
        top, bottom, right = top + 16, HEIGHT - 16, WIDTH - _MARGIN
        top = max(top, bottom - 110)
        _text(picture, "max Q, last 10 seconds", (_MARGIN, top - 6), 0.36, _DIM)
        cv2.rectangle(picture, (_MARGIN, top), (right, bottom), _TRACK, cv2.FILLED)
        low, high = self._range()
        best = np.array([q.max() for q in self._recent])
        x = right - (right - _MARGIN) * (len(best) - 1 - np.arange(len(best))) / (_HISTORY_S * _STEPS_PER_S - 1)
        y = bottom - 4 - (bottom - top - 8) * (best - low) / (high - low)
        points = np.stack([x, y], axis=1).round().astype(np.int32)
        cv2.polylines(picture, [points], False, _CHOSEN, 2, cv2.LINE_AA)

    def _range(self) -> tuple[float, float]:
        low = float(min(q.min() for q in self._recent))
        high = float(max(q.max() for q in self._recent))
        return low, max(high, low + 1e-6)


def readable(action_name: str) -> str:
    """``UPRIGHTFIRE`` -> ``up right fire``."""
    return re.sub(r"(up|down|left|right)(?=.)", r"\1 ", action_name.lower())


def _text(picture: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float, color: _Color) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
