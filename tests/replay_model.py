"""A naive replay buffer: lists of transitions, to compare the real ones with."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

from wn_dqn.envs import catch
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.transitions import TransitionBatch

SPEC = dataclasses.replace(catch.SPEC, action_names=tuple(map(str, range(18))))
GAMMA = 0.75
CPU = torch.device("cpu")
PLAIN, LIFE_LOST, GAME_OVER, TIME_LIMIT = range(4)

Stack = tuple[int, ...]
Transition = tuple[Stack, int, float, float, Stack | None]
"""obs, action, reward, discount, next obs or None where nothing follows: frames by their number, 0 the zero frame"""


def frame(number: int) -> NDArray[np.uint8]:
    """A frame [84, 84] that says `number` everywhere, so that one in the wrong place, or half of one, shows."""
    return np.full(84 * 84 // 4, number, np.uint32).view(np.uint8).reshape(84, 84)


def numbers(frames: torch.Tensor) -> list[Stack]:
    """What the frames [B, 4, 84, 84] say."""
    assert frames.dtype == torch.uint8
    assert frames.shape[1:] == (4, 84, 84)
    words = frames.contiguous().view(torch.int32).view(len(frames), 4, -1)
    assert (words == words[..., :1]).all(), "a frame is torn"
    return [tuple(stack) for stack in words[..., 0].tolist()]


def transitions(batch: TransitionBatch) -> list[Transition]:
    """The rows of a batch, as the model writes them."""
    obs, next_obs = numbers(batch.obs), numbers(batch.next_obs)
    assert (batch.action.dtype, batch.reward.dtype, batch.discount.dtype) == (torch.int64, torch.float32, torch.float32)
    rows = zip(obs, batch.action.tolist(), batch.reward.tolist(), batch.discount.tolist(), next_obs, strict=True)
    return [(o, a, r, d, n if d > 0 else None) for o, a, r, d, n in rows]


class Model:
    """N games, and for each the last transitions as they are; None for a cut one. Plays its buffers alike."""

    def __init__(self, capacity: int, num_envs: int) -> None:
        self.buffers = [ReplayBuffer(SPEC, capacity, num_envs, GAMMA, CPU)]
        self.rings = [deque[Transition | None](maxlen=-(-capacity // num_envs)) for _ in range(num_envs)]
        self.stacks: list[Stack] = []
        self.new_number = itertools.count(1).__next__

    def begin(self) -> None:
        for ring in self.rings if self.stacks else ():
            ring.append(None)
        self.stacks = [(0, 0, 0, self.new_number()) for _ in self.rings]
        for buffer in self.buffers:
            buffer.begin(self.newest_frames())

    def step(self, events: list[int]) -> None:
        """One step in which `events` happen, one per game."""
        kind = np.array(events)
        action = np.array([stack[-1] % 18 for stack in self.stacks])
        reward = np.array([stack[-1] % 3 - 1 for stack in self.stacks], np.float32)
        new_game = (kind == GAME_OVER) | (kind == TIME_LIMIT)
        for env, stack in enumerate(self.stacks):
            history = (0, 0, 0) if new_game[env] else stack[1:]
            following = self.stacks[env] = (*history, self.new_number())
            outcome = (GAMMA, following) if kind[env] == PLAIN else (0.0, None)
            cut = kind[env] == TIME_LIMIT
            self.rings[env].append(None if cut else (stack, int(action[env]), float(reward[env]), *outcome))
        terminal = (kind == LIFE_LOST) | (kind == GAME_OVER)
        for buffer in self.buffers:
            buffer.append(action, reward, terminal, kind == TIME_LIMIT, self.newest_frames(), new_game)

    def newest_frames(self) -> NDArray[np.uint8]:
        return np.stack([frame(stack[-1]) for stack in self.stacks])

    def held(self) -> list[Transition]:
        return [transition for ring in self.rings for transition in ring if transition is not None]

    def play(self, rng: np.random.Generator, num_steps: int) -> None:
        """Random steps, in which everything that can happen does."""
        if not self.stacks:
            self.begin()
        for _ in range(num_steps):
            if rng.random() < 0.05:
                self.begin()
            self.step(rng.choice(4, len(self.rings), p=(0.7, 0.1, 0.1, 0.1)).tolist())


def naive_n_step(ring: list[Transition | None], n: int) -> set[Transition]:
    """Every n transitions in a row, those of a cut left out; rows end early at a terminal transition."""
    found: set[Transition] = set()
    for start, first in enumerate(ring):
        total, factor = 0.0, 1.0
        for step in range(n):
            transition = ring[start + step] if start + step < len(ring) else None
            if first is None or transition is None:
                break
            total += factor * transition[2]
            factor *= transition[3]
            if factor == 0 or step == n - 1:
                found.add((first[0], first[1], total, factor, transition[4] if factor else None))
                break
    return found
