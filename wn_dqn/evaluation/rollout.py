"""Evaluation: games played in parallel without bias, and their statistics.

Given the policy, games are independent. So a protocol that plays games one after another can be run with N games at
once: list the games in the order in which they *started*, and truncate that list by the protocol. A game's place in the
list depends on games that ended earlier, never on its own length. So short games are not preferred.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.envs.frame_stack import FrameStack
from wn_dqn.envs.vector_env import EnvStep, VectorEnv
from wn_dqn.evaluation.diagnostics import VisitedStates
from wn_dqn.evaluation.epsilon_greedy import epsilon_greedy
from wn_dqn.evaluation.protocols import EvaluationProtocol


@dataclass(frozen=True)
class GameResult:
    """One game: its raw score and its length in agent steps."""

    score: float
    steps: int
    finished: bool
    """False if the time limit or the end of the evaluation truncated the game"""


@dataclass(frozen=True)
class Evaluation:
    """The games that count, in the order in which they started."""

    games: tuple[GameResult, ...]
    unfinished_games: int
    """games in progress at the end, which do not count; 0 if such a game is the only one, because then it counts"""
    visited_max_q: float = field(default=math.nan, compare=False)
    """means over the visited states of max_a Q(s, a) and of the discounted return obtained, if measured"""
    visited_return: float = field(default=math.nan, compare=False)

    @property
    def scores(self) -> list[float]:
        return [game.score for game in self.games]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float:
        """Sample standard deviation (1/(n-1)); NaN for one game."""
        return statistics.stdev(self.scores) if len(self.games) > 1 else float("nan")

    @property
    def median(self) -> float:
        return statistics.median(self.scores)

    def metrics(self) -> dict[str, float]:
        """The statistics, by name."""
        return {
            "mean_return": self.mean,
            "median_return": self.median,
            "std_return": self.std,
            "min_return": min(self.scores),
            "max_return": max(self.scores),
            "games": len(self.games),
            "truncated_games": sum(not game.finished for game in self.games),
            "unfinished_games": self.unfinished_games,
            "game_steps": sum(game.steps for game in self.games),
        }


def evaluate(
    q_values: Callable[[Tensor], Tensor] | None,
    env: VectorEnv,
    protocol: EvaluationProtocol,
    seeds: NDArray[np.int64],
    generator: np.random.Generator,
    on_step: Callable[[int], None] = lambda _steps: None,
    visited: VisitedStates | None = None,
) -> Evaluation:
    """Play `env` with the epsilon-greedy policy of `q_values`, or a uniformly random one if it is None.

    `env` must have been made for `protocol`. `seeds` [N] are the seeds of its games. `generator` draws the policy's
    random numbers. A protocol with a length in steps takes at most that number of steps of each environment. One with a
    length in games may never end unless it has a time limit. `on_step` is called after each step with the number of
    steps so far; it may raise to stop the evaluation. `visited` collects max-Q of each state and the rewards after it.
    """
    num_envs = env.num_envs
    observed = FrameStack(env.spec, num_envs)
    obs = observed.begin(env.reset(seeds))
    record = _Record(num_envs)
    while not record.is_complete(protocol):
        action = generator.integers(0, env.spec.num_actions, num_envs)
        explore = generator.random(num_envs) < protocol.epsilon
        max_q = np.full(num_envs, math.nan)
        if q_values is not None:
            action, q = epsilon_greedy(explore, action, q_values, torch.from_numpy(obs))
            max_q = max_q if q is None else q.amax(dim=1).double().cpu().numpy()
        env.send(action)
        step = env.receive()
        obs = observed.push(step.frame, step.new_game)
        record.add(step)
        if step.skipped is not None:
            max_q[step.skipped] = math.nan
        if visited is not None:
            visited.add(max_q, step.reward, step.terminal, step.truncated)
        on_step(record.total_steps)
    if visited is None:
        return record.result(protocol)
    visited_max_q, visited_return = visited.means()
    return replace(record.result(protocol), visited_max_q=visited_max_q, visited_return=visited_return)


class _Record:
    """All games so far, in the order in which they started."""

    def __init__(self, num_envs: int) -> None:
        self._scores = [0.0] * num_envs
        self._steps = [0] * num_envs
        self._finished: list[bool | None] = [None] * num_envs  # None: in progress; False: truncated by the time limit
        self._running = list(range(num_envs))  # environment -> its game
        self._leading = 0  # number of finished games at the head of the list
        self._leading_steps = 0
        self.total_steps = 0

    def add(self, step: EnvStep) -> None:
        ended = step.over
        for env, game in enumerate(self._running):
            if step.skipped is not None and step.skipped[env]:
                continue
            self._scores[game] += float(step.reward[env])
            self._steps[game] += 1
            if ended[env]:
                self._finished[game] = bool(step.terminated[env])
                self._running[env] = len(self._scores)
                self._scores.append(0.0)
                self._steps.append(0)
                self._finished.append(None)
        while self._finished[self._leading] is not None:
            self._leading_steps += self._steps[self._leading]
            self._leading += 1
        self.total_steps += len(self._running)

    def is_complete(self, protocol: EvaluationProtocol) -> bool:
        """Whether no further step can change which games count, and with what score."""
        if protocol.games is not None:
            return self._leading >= protocol.games
        assert protocol.steps is not None
        return self._leading_steps + self._steps[self._leading] >= protocol.steps

    def result(self, protocol: EvaluationProtocol) -> Evaluation:
        games = [GameResult(*game) for game in zip(self._scores, self._steps, map(bool, self._finished), strict=True)]
        if protocol.games is not None:
            return Evaluation(tuple(games[: protocol.games]), unfinished_games=0)
        assert protocol.steps is not None
        counted = 0
        steps_left = protocol.steps
        while counted < self._leading and games[counted].steps <= steps_left:
            steps_left -= games[counted].steps
            counted += 1
        if counted == 0:  # the base code's rule: an unfinished game counts only if it is the only one
            return Evaluation((games[0],), unfinished_games=0)
        return Evaluation(tuple(games[:counted]), unfinished_games=int(steps_left > 0))
