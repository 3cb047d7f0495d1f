"""The Python API: what the commands call, and what a program of yours may call.

A mistake raises :class:`wn_dqn.UsageError`, a run that cannot go on raises :class:`wn_dqn.RunError`. Each message is
one line. Nothing here ends the process or handles a signal.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from wn_dqn.analysis.read_runs import Table, read_evaluations, read_metrics
from wn_dqn.config import registry
from wn_dqn.config.games import game_of
from wn_dqn.config.plugins import import_plugins
from wn_dqn.config.registry import AgentRow, NetworkRow, ParameterizationRow
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import EvaluationProtocol, changed_protocol, find_protocol
from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.interop.load_export import load_exported
from wn_dqn.nn.layers import Layer
from wn_dqn.nn.networks import QNetwork
from wn_dqn.render.play import open_window
from wn_dqn.render.saliency import Method
from wn_dqn.render.video import FRAMES_PER_S, find_encoder, write_video
from wn_dqn.runs import policy as policies
from wn_dqn.runs.checkpoint import CheckpointInfo, best_checkpoint, list_checkpoints
from wn_dqn.runs.film import watch
from wn_dqn.runs.reevaluation import append_to_run, evaluate_policy
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.seeding import numpy_generator
from wn_dqn.system.hardware import find_device
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.agent import Agent

_LONGEST_GIF_FRAMES = 60 * FRAMES_PER_S

PathLike = str | os.PathLike[str]


class Policy:
    """A trained network: what it would do, what it expects, how well it plays.

    >>> policy = wn_dqn.load("runs/Catch")
    >>> obs = np.zeros(policy.obs_shape, policy.obs_dtype)
    >>> action, _ = policy.predict(obs, deterministic=True)
    >>> policy.action_names[action] in ("LEFT", "STAY", "RIGHT")
    True
    """

    def __init__(self, network: policies.Policy) -> None:
        """Use :func:`wn_dqn.load`."""
        self._network = network
        online = network.agent.online
        self.obs_shape: tuple[int, ...] = online.obs_shape
        """of one whole observation: stacked frames [C, H, W], or a vector [D]"""
        self.obs_dtype: np.dtype[Any] = torch.empty(0, dtype=online.obs_dtype).numpy().dtype
        self.num_actions = network.agent.num_actions
        self.settings = network.settings
        self.steps = network.steps
        """agent steps that it was trained for"""
        self.path = network.path
        """the checkpoint or file that it was read from"""
        self._generator = numpy_generator(self.settings.seed, "evaluation")

    def __repr__(self) -> str:
        game, param = self.settings.game, self.settings.param
        return f"Policy({game}, {param}, step {self.steps:,}: {self.obs_dtype}{list(self.obs_shape)} -> {self.path})"

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        """What each action is called: [A]."""
        return policies.spec_of_policy(self._network).action_names

    def q_values(self, obs: ArrayLike) -> NDArray[np.float32]:
        """Q-values float32 [A] of one whole observation, or [B, A] of a batch of them.

        UsageError, with both, unless shape and dtype are those of :attr:`obs_shape` and :attr:`obs_dtype`.

        >>> policy = wn_dqn.load("runs/Catch")
        >>> policy.q_values(np.zeros((5, *policy.obs_shape), policy.obs_dtype)).shape
        (5, 3)
        """
        given = np.asarray(obs)
        shape = given.shape[1:] if given.ndim == len(self.obs_shape) + 1 else given.shape
        if shape != self.obs_shape or given.dtype != self.obs_dtype:
            raise UsageError(
                f"an observation is {self.obs_dtype} {list(self.obs_shape)}, or a batch [B, "
                f"{', '.join(map(str, self.obs_shape))}] of them; this is {given.dtype} {list(given.shape)}"
            )
        batch = torch.from_numpy(np.ascontiguousarray(given.reshape(-1, *self.obs_shape)))
        q: NDArray[np.float32] = self._network.q_values(batch).cpu().numpy()
        return q[0] if given.ndim == len(self.obs_shape) else q

    def predict(
        self,
        observation: ArrayLike,
        state: None = None,
        episode_start: object = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], None]:
        """The action of one whole observation, or the actions [B] of a batch, as Stable-Baselines3's `predict`.

        With `deterministic` it is the first action of the largest Q-value. Otherwise it is a random one with the
        probability `evaluation.epsilon` of the settings. `state` and `episode_start` are ignored: this policy has no
        memory. The second value returned is None.
        """
        q = self.q_values(observation)
        action: NDArray[np.int64] = np.asarray(q.argmax(axis=-1), np.int64)
        if not deterministic:
            explore = self._generator.random(action.shape) < self.settings.evaluation.epsilon
            action = np.where(explore, self._generator.integers(self.num_actions, size=action.shape), action)
        return action, None

    def evaluate(
        self,
        protocol: str | EvaluationProtocol = "nature",
        *,
        games: int | None = None,
        num_envs: int = 16,
        seed: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        """Fresh games under a protocol: its name, a YAML file of its fields, or the protocol itself.

        `games`: play this many, instead of the protocol's length. `num_envs` games are played at once; which games
        count does not depend on it. The outcome is kept in ``reevaluations.jsonl`` of the run, if there is one.

        >>> len(wn_dqn.load("runs/Catch").evaluate("nature", games=5).scores)
        5
        """
        rules, game, reporter = _protocol(protocol, games), game_of(self.settings), _reporter(shown=progress)
        report = evaluate_policy(self._network, game, rules, num_envs, seed, reporter)
        problem = append_to_run(report)
        if problem is not None:
            reporter.message(problem)
        return report.result

    def play(
        self,
        output: PathLike | None = None,
        *,
        protocol: str | EvaluationProtocol = "nature",
        games: int = 1,
        max_frames: int | None = None,
        saliency: Method | None = None,
        seed: int = 0,
        show: bool = False,
        progress: bool = False,
    ) -> int:
        """Film `games` games in `output`, a .webm, .mp4 or .gif; returns the number of frames, 60 a second.

        The film ends after `max_frames`, None: never, a GIF after a minute. `saliency`: let the pixels glow that the
        Q-value comes from. `show`: open a window, too, or instead; q ends it.

        >>> wn_dqn.load("runs/Catch").play("game.gif", max_frames=60)
        60
        """
        reporter = _reporter(shown=progress)
        path = None if output is None else Path(output)
        if path is not None:
            find_encoder(path)
        if max_frames is None and path is not None and path.suffix.lower() == ".gif":
            max_frames = _LONGEST_GIF_FRAMES
            reporter.message("a GIF ends after a minute; --max-frames changes that")
        frames = watch(self._network, _protocol(protocol, None), games, seed, saliency, reporter)
        shown = itertools.takewhile(open_window("wn-dqn"), frames) if show else frames
        filmed = itertools.islice(shown, max_frames)
        if path is not None:
            return write_video(path, filmed)
        counted = enumerate(filmed, start=1)
        return next((number for number, _ in deque(counted, maxlen=1)), 0)


def load(path: PathLike, checkpoint: str = "best", *, device: str = "auto", trust: bool = False) -> Policy:
    """The policy in a run directory, in one of its checkpoints, or in a file that `wn-dqn export` wrote.

    `checkpoint` is best, last, or the number of steps, for a run directory. Nothing of the process changes: threads,
    allocator, determinism. UsageError if there is none, or if the run names code of its own, unless you `trust` it.

    >>> wn_dqn.load("runs/Catch", checkpoint="last").steps
    320
    """
    where, torch_device = Path(path), find_device(device)
    if os.path.isfile(where):
        return Policy(load_exported(where, torch_device, trust=trust))
    if trust:
        import_plugins(policies.plugins_of_run(where))
    return Policy(policies.load_policy(where, checkpoint, torch_device, trust=trust))


class Run:
    """A run directory, read as it is now: a run that is being trained may be read, too.

    >>> run = wn_dqn.Run("runs/Catch")
    >>> run.status, run.steps, run.settings.param
    ('finished', 320, 'wn')
    """

    def __init__(self, directory: PathLike, *, trust: bool = False) -> None:
        """UsageError if `directory` is no run, or if it names code of its own, unless you `trust` it."""
        self.directory = Path(directory)
        self._trust = trust
        if trust:
            import_plugins(policies.plugins_of_run(self.directory))
        self._run = RunDirectory(self.directory)
        self.settings: Settings = self._run.read_settings()

    def __repr__(self) -> str:
        return f"Run({str(self.directory)!r}: {self.status})"

    @property
    def status(self) -> str:
        """Running, paused, finished, failed or degraded; empty if nothing readable says so."""
        return str(self._run.read_status().get("status", ""))

    @property
    def steps(self) -> int:
        """Agent steps done."""
        return int(self._run.read_status().get("steps", 0))

    @property
    def evaluations(self) -> Table:
        """The columns of evaluations.csv, [E] each; empty if there was no evaluation yet.

        >>> run = wn_dqn.Run("runs/Catch")
        >>> run.evaluations["steps"]
        array([120., 240., 320.])
        >>> len(run.evaluations.to_pandas())
        3
        """
        return read_evaluations(self.directory)

    @property
    def metrics(self) -> Table:
        """The columns of metrics.csv, a row for each log period, NaN where a cell is empty."""
        return read_metrics(self.directory)

    @property
    def best(self) -> CheckpointInfo | None:
        """The checkpoint with the best evaluation, that is its path, steps and score; None if there is none yet."""
        return best_checkpoint(list_checkpoints(self._run.checkpoints))

    def policy(self, checkpoint: str = "best", *, device: str = "auto") -> Policy:
        """As :func:`wn_dqn.load`."""
        return load(self.directory, checkpoint, device=device, trust=self._trust)


def register_parameterization(
    name: str,
    *,
    linear: type[Layer],
    conv2d: type[Layer] | None = None,
    label: str | None = None,
    learning_rate: float = 3e-4,
    batch_statistics: bool = False,
) -> None:
    """Give layers of your own a name, for `param`: subclasses of :class:`wn_dqn.nn.Layer`.

    `linear` is called with (in_features, out_features), `conv2d` with (in_channels, out_channels, kernel_size, stride=,
    padding=); without it, only networks of linear layers can be built. `label` stands in plots, `learning_rate` is the
    default for Adamax and Adam. `batch_statistics`: the training output depends on the whole minibatch.

    >>> class Mine(wn_dqn.nn.Linear):
    ...     "Like the standard layer, but a class of its own."
    >>> wn_dqn.register_parameterization("mine", linear=Mine)
    """
    _require_class(linear, Layer, "linear")
    if conv2d is not None:
        _require_class(conv2d, Layer, "conv2d")
    row = ParameterizationRow(label or name, linear, conv2d, learning_rate, batch_statistics)
    registry.register("parameterization", name, row)


def register_network(
    name: str,
    network: type[QNetwork],
    *,
    dueling: type[QNetwork] | None = None,
    obs_ndim: int | None = None,
    label: str | None = None,
) -> None:
    """Give a network of your own a name, for `network.name`: a subclass of :class:`wn_dqn.nn.QNetwork`.

    `dueling`: the same with dueling heads. `obs_ndim`: the observations that it takes, 3 for images [C, H, W], 1 for
    vectors [D], None for both.

    >>> class Flat(wn_dqn.nn.QNetwork):
    ...     def build(self, layers):
    ...         self.add_head(layers, math.prod(self.obs_shape), 16)
    ...     def features(self, x):
    ...         return x.flatten(1)
    >>> wn_dqn.register_network("flat", Flat)
    """
    _require_class(network, QNetwork, "network")
    if dueling is not None:
        _require_class(dueling, QNetwork, "dueling")
    registry.register("network", name, NetworkRow(label or name, network, dueling, obs_ndim))


def register_agent(name: str, agent: Callable[..., Agent], *, label: str | None = None) -> None:
    """Give an agent of your own a name, for `agent`: a :class:`wn_dqn.training.agent.Agent`, made from its parts.

    >>> from wn_dqn_agents.dqn import DQN
    >>> class Mine(DQN):
    ...     "Like DQN, but a class of its own."
    >>> wn_dqn.register_agent("mine", Mine)
    """
    if not callable(agent):
        raise UsageError(f"an agent is a class, called with wn_dqn.training.agent.AgentParts; {agent!r} is none")
    registry.register("agent", name, AgentRow(label or name, agent))


def _require_class(given: Any, base: type, argument: str) -> None:
    """UsageError unless `given` is a subclass of `base` that leaves nothing out."""
    place = f"{base.__module__}.{base.__qualname__}"
    if not (isinstance(given, type) and issubclass(given, base)):
        raise UsageError(f"{argument} must be a subclass of {place}, not {given!r}")
    missing = ", ".join(sorted(getattr(given, "__abstractmethods__", ())))
    if missing:
        raise UsageError(f"{given.__qualname__} leaves out what every {place} must have: {missing}")


def _reporter(*, shown: bool) -> ProgressReporter:
    return ProgressReporter() if shown else ProgressReporter(Console(quiet=True))


def _protocol(protocol: str | EvaluationProtocol, games: int | None) -> EvaluationProtocol:
    found = find_protocol(protocol) if isinstance(protocol, str) else protocol
    return found if games is None else changed_protocol(found, steps=None, games=games)
