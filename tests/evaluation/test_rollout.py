"""Evaluation: which games count, without bias, and what is said about them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import EnvStep, VectorEnv
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.diagnostics import VisitedStates
from wn_dqn.evaluation.protocols import PROTOCOLS, EvaluationProtocol, bounded, find_protocol
from wn_dqn.evaluation.rollout import Evaluation, GameResult, evaluate


@dataclass(frozen=True)
class Game:
    """A game of so many steps, each of which scores `points`; `cut` if a time limit ends it."""

    steps: int
    points: int = 1
    cut: bool = False

    @property
    def result(self) -> GameResult:
        return GameResult(float(self.steps * self.points), self.steps, not self.cut)


class ScriptedEnv:
    """Plays the games that `next_game(env)` gives; its observations [N, 1] are the environments' numbers."""

    def __init__(self, num_envs: int, next_game: Callable[[int], Game], num_actions: int = 4) -> None:
        names = tuple(map(str, range(num_actions)))
        self.spec = EnvSpec("scripted", (1,), "uint8", stack=1, action_names=names)
        self.num_envs = num_envs
        self.actions: list[NDArray[np.int64]] = []
        self._next_game = next_game
        self._obs = np.arange(num_envs, dtype=np.uint8)[:, None]

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[np.uint8]:
        assert seeds.tolist() == list(range(self.num_envs))
        self._games = [self._next_game(env) for env in range(self.num_envs)]
        self._done = [0] * self.num_envs
        return self._obs

    def send(self, actions: NDArray[np.int64]) -> None:
        self.actions.append(actions)

    def receive(self) -> EnvStep:
        reward = np.array([game.points for game in self._games], np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        for env, game in enumerate(self._games):
            self._done[env] += 1
            if self._done[env] == game.steps:
                (truncated if game.cut else terminated)[env] = True
                self._games[env], self._done[env] = self._next_game(env), 0
        return EnvStep(self._obs, reward, terminated, truncated, terminal=terminated)


def play(env: VectorEnv, protocol: EvaluationProtocol, seed: int = 0, q_values=None, **options) -> Evaluation:
    seeds = np.arange(env.num_envs, dtype=np.int64)
    return evaluate(q_values, env, protocol, seeds, np.random.default_rng(seed), **options)


def listed(games: Sequence[Game]) -> Callable[[int], Game]:
    """The games in the order of the list, over and over, whichever environment asks for one."""
    endless = itertools.cycle(games)
    return lambda _env: next(endless)


def by_steps(steps: int) -> EvaluationProtocol:
    return EvaluationProtocol("test", epsilon=1.0, steps=steps)


def by_games(games: int) -> EvaluationProtocol:
    return EvaluationProtocol("test", epsilon=1.0, games=games)


def sequential_player(games: Iterator[Game], budget: int) -> Evaluation:
    """One game after another until the steps are used up; an unfinished game counts only if it is the only one."""
    counted: list[GameResult] = []
    for game in games:
        if game.steps > budget:
            break
        budget -= game.steps
        counted.append(game.result)
    if not counted:
        return Evaluation((GameResult(float(game.points * budget), budget, finished=False),), unfinished_games=0)
    return Evaluation(tuple(counted), unfinished_games=1 if budget else 0)


GAMES = st.lists(st.builds(Game, st.integers(1, 12), st.integers(-2, 3), st.booleans()), min_size=1, max_size=12)


@given(games=GAMES, budget=st.integers(1, 60), num_envs=st.integers(1, 9))
def test_steps_rule_is_the_sequential_player(games: list[Game], budget: int, num_envs: int) -> None:
    """However many games are played at once, the list is that of somebody who plays one after another."""
    expected = sequential_player(itertools.cycle(games), budget)
    assert play(ScriptedEnv(num_envs, listed(games)), by_steps(budget)) == expected


@given(games=GAMES, count=st.integers(1, 15), num_envs=st.integers(1, 9))
def test_games_rule_counts_the_first_games_to_their_end(games: list[Game], count: int, num_envs: int) -> None:
    expected = tuple(game.result for game in itertools.islice(itertools.cycle(games), count))
    assert play(ScriptedEnv(num_envs, listed(games)), by_games(count)) == Evaluation(expected, unfinished_games=0)


@pytest.mark.survives("a policy that never ends its game, in a test of steps", "no environment plays more steps")
@given(games=GAMES, budget=st.integers(1, 60), num_envs=st.integers(1, 9), endless=st.booleans())
def test_steps_bound_what_each_environment_plays(games: list[Game], budget: int, num_envs: int, endless: bool) -> None:
    env = ScriptedEnv(num_envs, listed([Game(10**9)] if endless else games))
    play(env, by_steps(budget))
    assert len(env.actions) <= budget


def test_a_protocol_of_games_has_a_time_limit_or_gets_one() -> None:
    """It is in the name, so that its scores pass for nobody else's."""
    assert bounded(PROTOCOLS["paper"]) is PROTOCOLS["paper"]
    assert bounded(PROTOCOLS["nature"]) is PROTOCOLS["nature"]
    limited = bounded(by_games(3))
    assert (limited.games, limited.max_game_frames) == (3, 60 * 60 * 60)
    assert limited.name == "test with max_game_frames 216000"


def test_an_unfinished_game_counts_only_alone() -> None:
    """With the score it had at the cut, and not one step more."""
    alone = play(ScriptedEnv(3, listed([Game(100, points=2)])), by_steps(10))
    assert alone == Evaluation((GameResult(20.0, 10, finished=False),), unfinished_games=0)
    assert alone.metrics()["truncated_games"] == 1
    second = play(ScriptedEnv(3, listed([Game(4), Game(100)])), by_steps(10))
    assert second == Evaluation((GameResult(4.0, 4, finished=True),), unfinished_games=1)
    exact = play(ScriptedEnv(3, listed([Game(10), Game(100)])), by_steps(10))
    assert exact == Evaluation((GameResult(10.0, 10, finished=True),), unfinished_games=0)


def test_games_cut_by_the_time_limit_count_and_are_told() -> None:
    result = play(ScriptedEnv(2, listed([Game(3), Game(5, cut=True), Game(2)])), by_games(5))
    assert [game.finished for game in result.games] == [True, False, True, True, False]
    assert result.scores == [3.0, 5.0, 2.0, 3.0, 5.0]
    assert result.metrics()["truncated_games"] == 2


def random_games(seed: int) -> Callable[[int], Game]:
    """Short games (1 step, 1 point) and long ones (10 steps, 10 points), equally likely, drawn per environment."""
    generators = [np.random.default_rng((seed, env)) for env in range(8)]
    return lambda env: Game(int(generators[env].choice([1, 10])))


def first_to_finish(env: ScriptedEnv, count: int) -> float:
    """The naive rule: the mean score of the first `count` games to finish."""
    env.reset(np.arange(env.num_envs))
    scores: list[float] = []
    returns = np.zeros(env.num_envs)
    while len(scores) < count:
        step = env.receive()
        returns += step.reward
        scores += returns[step.terminated].tolist()
        returns[step.terminated] = 0.0
    return statistics.fmean(scores[:count])


@pytest.mark.parametrize("protocol", [by_games(8), by_steps(60)], ids=["games", "steps"])
def test_parallel_games_are_unbiased(protocol: EvaluationProtocol) -> None:
    """Scores tied to a game's length have the mean of sequential play; the naive rule would favour short games."""
    seeds = range(600)
    sequential = [play(ScriptedEnv(1, random_games(seed)), protocol).mean for seed in seeds]
    parallel = [play(ScriptedEnv(8, random_games(1000 + seed)), protocol).mean for seed in seeds]
    naive = [first_to_finish(ScriptedEnv(8, random_games(2000 + seed)), 8) for seed in seeds]

    def distance(means: list[float]) -> float:
        """From sequential play, in standard errors of the difference."""
        error = math.hypot(statistics.stdev(means), statistics.stdev(sequential)) / math.sqrt(len(seeds))
        return abs(statistics.fmean(means) - statistics.fmean(sequential)) / error

    assert distance(parallel) < 3
    assert distance(naive) > 10
    if protocol.games is not None:  # a fixed number of games has the mean of the game itself, too
        error = statistics.stdev(parallel) / math.sqrt(len(seeds))
        assert statistics.fmean(parallel) == pytest.approx(5.5, abs=3 * error)


def test_figures_are_the_textbook_ones() -> None:
    scores = [1.0, 4.0, 4.0, 7.0]
    result = Evaluation(tuple(GameResult(score, 10, score < 5) for score in scores), unfinished_games=1)
    assert result.metrics() == {
        "mean_return": 4.0,
        "median_return": 4.0,
        "std_return": pytest.approx(math.sqrt(18 / 3)),
        "min_return": 1.0,
        "max_return": 7.0,
        "games": 4,
        "truncated_games": 1,
        "unfinished_games": 1,
        "game_steps": 40,
    }
    assert math.isnan(Evaluation(result.games[:1], 0).std)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_statistics_agree_with_the_standard_library(scores: list[float]) -> None:
    result = Evaluation(tuple(GameResult(score, 1, finished=True) for score in scores), 0)
    assert result.scores == scores
    assert result.mean == pytest.approx(statistics.mean(scores), abs=1e-6)
    assert result.std == pytest.approx(np.std(scores, ddof=1), abs=1e-6)
    assert result.median == statistics.median(scores)


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.5, 1.0])
def test_actions_are_greedy_with_probability_one_minus_epsilon(epsilon: float) -> None:
    """And uniform otherwise; each environment gets the best action for its own observation."""
    calls = 0

    def q_values(obs: torch.Tensor) -> torch.Tensor:  # environment n likes action n % 4
        nonlocal calls
        calls += 1
        return torch.nn.functional.one_hot(obs[:, 0].long() % 4, 4).float()

    env = ScriptedEnv(8, listed([Game(1)]))
    play(env, EvaluationProtocol("test", epsilon, games=16_000), q_values=q_values)
    actions = np.stack(env.actions)
    greedy = (actions == np.arange(8) % 4).mean()
    probability = 1 - epsilon + epsilon / 4
    assert abs(greedy - probability) <= 4 * math.sqrt(probability * (1 - probability) / actions.size)
    assert actions.min() == 0
    assert actions.max() == 3
    assert (calls > 0) == (epsilon < 1)


def test_without_a_network_the_policy_is_uniform() -> None:
    """Whatever the protocol's epsilon; the generator alone decides."""
    env, same, other = (ScriptedEnv(8, listed([Game(1)])) for _ in range(3))
    protocol = EvaluationProtocol("test", epsilon=0.0, games=16_000)
    for each, seed in ((env, 1), (same, 1), (other, 2)):
        play(each, protocol, seed)
    counts = np.bincount(np.stack(env.actions).ravel(), minlength=4)
    assert np.abs(counts - 4000).max() < 4 * math.sqrt(16_000 * 3 / 16)
    np.testing.assert_array_equal(env.actions, same.actions)
    assert not np.array_equal(env.actions, other.actions)


def test_on_step_counts_and_may_stop_the_evaluation() -> None:
    seen: list[int] = []

    def on_step(done: int) -> None:
        seen.append(done)
        if done == 12:
            raise KeyboardInterrupt

    env = ScriptedEnv(4, listed([Game(5)]))
    with pytest.raises(KeyboardInterrupt):
        play(env, by_steps(1000), on_step=on_step)
    assert seen == [4, 8, 12]
    assert len(env.actions) == 3


def test_visited_states_are_told_what_the_network_said() -> None:
    """Games of two steps, a point each, discount 1/2: returns 1.5 and 1; the network says 3 everywhere."""
    env = ScriptedEnv(2, listed([Game(2)]))
    visited = VisitedStates(0.5, clip_rewards=True)
    protocol = EvaluationProtocol("test", epsilon=0.0, games=10)
    result = play(env, protocol, q_values=lambda obs: torch.tensor([[1.0, 3.0]]).expand(len(obs), 2), visited=visited)
    assert (result.visited_max_q, result.visited_return) == (3.0, 1.25)
    assert math.isnan(play(ScriptedEnv(2, listed([Game(2)])), by_games(10)).visited_max_q)


@pytest.mark.parametrize("ends", [{}, {"steps": 1, "games": 1}])
def test_a_protocol_ends_after_steps_or_games(ends: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="give one of the two"):
        EvaluationProtocol("test", epsilon=0.0, **ends)


def test_protocols_are_the_published_ones() -> None:
    five_minutes = 18_000  # at 60 frames per second
    assert find_protocol("paper") == EvaluationProtocol(
        "paper", 0.05, steps=125_000, games=None, max_game_frames=None,
        repeat_action_probability=0.0, full_action_set=False, max_noop_frames=30,
    )  # fmt: skip
    assert find_protocol("nature") == EvaluationProtocol(
        "nature", 0.05, steps=None, games=30, max_game_frames=five_minutes,
        repeat_action_probability=0.0, full_action_set=False, max_noop_frames=30,
    )  # fmt: skip
    assert find_protocol("machado2018") == EvaluationProtocol(
        "machado2018", 0.01, steps=None, games=100, max_game_frames=five_minutes,
        repeat_action_probability=0.25, full_action_set=True, max_noop_frames=0,
    )  # fmt: skip
    assert len(PROTOCOLS) == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("natur", "did you mean nature?"),
        ("machado", "did you mean machado2018?"),
        ("", "valid: paper, nature, machado2018, FILE.yaml"),
    ],
)
def test_an_unknown_protocol_names_the_closest(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        find_protocol(name)
    assert str(error.value) == f"unknown protocol {name!r}; {hint}"
