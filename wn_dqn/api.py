"""The Python API. The commands call these functions, and your own program can call them, too.

A mistake raises :class:`wn_dqn.UsageError`. A run that cannot continue raises :class:`wn_dqn.RunError`. Each message
is one line. Nothing here ends the process or handles a signal.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from wn_dqn.analysis.read_runs import Table, read_evaluations, read_metrics, read_run
from wn_dqn.analysis.scores import latest_reevaluations
from wn_dqn.config import registry
from wn_dqn.config.files import make_settings, merge, nested, read_config
from wn_dqn.config.games import find_game, game_of
from wn_dqn.config.named import named_configs
from wn_dqn.config.plugins import import_plugins, plugins_of
from wn_dqn.config.registry import AgentRow, NetworkRow, ParameterizationRow
from wn_dqn.config.schema import Settings
from wn_dqn.config.trust import require_trust
from wn_dqn.envs.factory import make_env as make_vector_env
from wn_dqn.envs.gymnasium_face import WholeGame
from wn_dqn.envs.rules import training_rules
from wn_dqn.envs.vector_env import VectorEnv
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import EvaluationProtocol, changed_protocol, find_protocol
from wn_dqn.evaluation.rollout import Evaluation
from wn_dqn.interop.export import Format, export, find_format
from wn_dqn.interop.hub import require_hub, require_repository, upload
from wn_dqn.interop.load_export import load_exported
from wn_dqn.interop.places import locate
from wn_dqn.nn.layers import Layer
from wn_dqn.nn.networks import QNetwork
from wn_dqn.render.play import open_window
from wn_dqn.render.saliency import Method
from wn_dqn.render.video import FRAMES_PER_S, find_encoder, write_video
from wn_dqn.runs import policy as policies
from wn_dqn.runs.callback import Callback
from wn_dqn.runs.checkpoint import CheckpointInfo
from wn_dqn.runs.film import watch
from wn_dqn.runs.launch import train_run
from wn_dqn.runs.reevaluation import (
    Report,
    append_to_run,
    checkpoint_paths,
    evaluate_checkpoints,
    evaluate_policy,
    read_records,
)
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.runs.status import default_name
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.seeding import numpy_generator
from wn_dqn.system.hardware import find_device, num_cores
from wn_dqn.system.progress import ProgressReporter
from wn_dqn.training.agent import Agent

_LONGEST_GIF_FRAMES = 60 * FRAMES_PER_S

PathLike = str | os.PathLike[str]


class Policy:
    """A trained network, with its action choices, its Q-values and its evaluation.

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
        """shape of one complete observation: stacked frames [C, H, W], or a vector [D]"""
        self.obs_dtype: np.dtype[Any] = torch.empty(0, dtype=online.obs_dtype).numpy().dtype
        self.num_actions = network.agent.num_actions
        self.settings = network.settings
        self.steps = network.steps
        """number of agent steps of its training"""
        self.path = network.path
        """the checkpoint or file from which it was read"""
        self._generator = numpy_generator(self.settings.seed, "evaluation")

    def __repr__(self) -> str:
        game, param = self.settings.game, self.settings.param
        return f"Policy({game}, {param}, step {self.steps:,}: {self.obs_dtype}{list(self.obs_shape)} -> {self.path})"

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        """The name of each action: [A]."""
        return policies.spec_of_policy(self._network).action_names

    def q_values(self, obs: ArrayLike) -> NDArray[np.float32]:
        """Q-values float32 [A] of one complete observation, or [B, A] of a batch.

        Raises UsageError unless shape and dtype match :attr:`obs_shape` and :attr:`obs_dtype`. The message states the
        expected and the given ones.

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
        """The action int64 for one complete observation, or the actions [B] for a batch.

        The signature is that of Stable-Baselines3's `predict`. If `deterministic`, the action is the first one with the
        largest Q-value. Otherwise the policy is epsilon-greedy, with `evaluation.epsilon` of the settings. `state` and
        `episode_start` are ignored, because this policy has no memory. The second value returned is None.
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
        """Play new games under a protocol, and return their scores.

        `protocol` is a name, a YAML file with the protocol's fields, or the protocol itself. `games` replaces the
        protocol's length by a number of games. `num_envs` games are played at once; the result does not depend on it.
        If the network belongs to a run, the outcome is appended to the run's ``reevaluations.jsonl``.

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
        """Write a video of `games` games to `output`, a .webm, .mp4 or .gif file.

        Returns the number of frames, of which there are 60 per second. The video ends after `max_frames`. None means no
        limit, or one minute for a GIF. `saliency` highlights the pixels that the Q-value depends on. `show` opens a
        window, with or without an output file; the key q closes it.

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

    def export(self, output: PathLike, format_: Format | None = None) -> Path:
        """Write the network for other programs, as ONNX or safetensors. The file's extension selects the format.

        A contract is written beside it, in FILE.json. It describes the inputs and the outputs, and contains the run's
        evaluations. Returns the contract's path. :func:`wn_dqn.load` reads the file back.

        >>> wn_dqn.load("runs/Catch").export("catch.safetensors").name
        'catch.safetensors.json'
        """
        path = Path(output)
        return export(self._network, path, format_ or find_format(path), read_records(self.path)[0])

    def make_env(self, render_mode: str | None = None) -> WholeGame:
        """One game with the rules of its training, as a ``gymnasium.Env`` whose observations fit the policy.

        >>> policy = wn_dqn.load("runs/Catch")
        >>> env = policy.make_env()
        >>> obs, info = env.reset(seed=0)
        >>> score, over = 0.0, False
        >>> while not over:
        ...     action, _ = policy.predict(obs, deterministic=True)
        ...     obs, reward, terminated, truncated, info = env.step(action)
        ...     score, over = score + reward, terminated or truncated
        >>> score in (-1.0, 1.0)
        True
        """
        return WholeGame(game_of(self.settings), training_rules(self.settings.environment), render_mode)


def load(
    path: PathLike, checkpoint: str = "best", *, device: str = "auto", named: Sequence[str] = (), trust: bool = False
) -> Policy:
    """Load the policy in a run directory, in one of its checkpoints, or in a file that `wn-dqn export` wrote.

    ``agent:NAME`` comes with this package, and ``hf:USER/NAME`` is on the Hugging Face Hub. For a run directory,
    `checkpoint` is best, last, or a number of steps. Loading does not change the threads, the allocator or the
    determinism of the process. Raises UsageError if there is no policy, or if it refers to code from outside of wn_dqn.
    To allow such code, list its environment in `named` and import its plugins, or set `trust`.

    >>> wn_dqn.load("runs/Catch", checkpoint="last").steps
    320
    """
    where, torch_device = locate(Path(path)), find_device(device)
    if os.path.isfile(where):
        return Policy(load_exported(where, torch_device, named, trust))
    if trust:
        import_plugins(policies.plugins_of_run(where))
    return Policy(policies.load_policy(where, checkpoint, torch_device, named, trust))


def train(
    what: PathLike | Settings,
    *,
    run_dir: PathLike | None = None,
    callbacks: Sequence[Callback] = (),
    device: str = "auto",
    resume: bool = True,
    accept_changes: bool = False,
    stop_after_s: float | None = None,
    trust: bool = False,
    progress: bool = True,
    stop: StopRequest | None = None,
    **settings: Any,
) -> Run:
    """Train an agent, or resume a run that was stopped, as `wn-dqn train` does. Returns the run.

    `what` is the name or path of a config, a game, an environment like gymnasium:CartPole-v1, or
    :class:`wn_dqn.Settings`. Keyword arguments change settings: a whole section, ``learning={"total_steps": 1000}``, or
    one setting, ``**{"learning.total_steps": 1000}``.

    `run_dir` is runs/GAME-PARAM-seedSEED by default, as in the command. A run in this folder is resumed unless `resume`
    is False. `accept_changes` resumes it although its settings differ. `stop_after_s` saves and stops after this many
    seconds. `stop` lets another thread stop the run.

    External code that you name here is trusted. Code that only a config file names runs if `trust` is True.
    Training sets torch's threads, allocator and determinism for this process. Raises UsageError for a mistake, and
    RunError if the run cannot continue.

    >>> run = wn_dqn.train("smoke", game="CatchVector", param="standard", learning={"total_steps": 1_000},
    ...                    evaluation={"epoch_steps": 500, "steps": 100}, run_dir="runs/mine", progress=False)
    >>> run.evaluations["steps"]
    array([ 504., 1000.])
    """
    resolved = _resolve(what, settings, trust=trust)
    reporter, torch_device = _reporter(shown=progress), find_device(device)
    for part in () if resolved.plugins else _registered_parts(resolved):
        reporter.message(f"{part} is registered in this process only; others need --plugin MODULE, which registers it")
    name = game_of(resolved).short_name
    default = Path("runs") / default_name(name, resolved.param, resolved.agent, resolved.seed)
    folder = default if run_dir is None else Path(run_dir)

    def finish(path: Path) -> None:
        from wn_dqn.analysis.closing import closing
        from wn_dqn.analysis.model_card import write_finished_card  # its template engine is not needed before

        write_finished_card(path, reporter.message)
        for line in closing(path):
            reporter.message(line)

    train_run(
        resolved,
        folder,
        torch_device,
        reporter,
        resume=resume,
        accept_changes=accept_changes,
        stop=stop or StopRequest(stop_after_s),
        on_finished=finish,
        callbacks=callbacks,
    )
    return Run(folder, trust=True)  # its code has just run here


def _resolve(what: PathLike | Settings, changes: Mapping[str, Any], *, trust: bool) -> Settings:
    """The settings that result from the arguments of :func:`train`."""
    changed = merge(nested(key, value) for key, value in changes.items())
    named = [str(changed.get("game", ""))]
    if isinstance(what, Settings):
        data, trust = what.model_dump(), True
    elif isinstance(what, str) and ":" in what and not os.path.exists(what):
        data, named = {"game": what}, [what, *named]
    elif isinstance(what, str) and not _is_config(what):
        data = {"game": what}
    else:
        data = read_config(os.fspath(what))
    data = merge([data, changed])
    import_plugins(plugins_of(data if trust else changed))
    resolved = make_settings(data)
    require_trust(resolved, named, trust)
    return resolved


def _registered_parts(settings: Settings) -> list[str]:
    """The names in `settings` that a user registered."""
    kinds: dict[registry.Kind, str] = {
        "parameterization": settings.param,
        "network": settings.network.name,
        "agent": settings.agent,
    }
    return [name for kind, name in kinds.items() if registry.is_registered(kind, name)]


def _is_config(name: str) -> bool:
    return name in named_configs() or name.endswith((".yaml", ".yml")) or os.path.isfile(name)


def evaluate(
    runs: PathLike | Sequence[PathLike],
    protocol: str | EvaluationProtocol = "paper",
    *,
    checkpoint: str = "best",
    all_checkpoints: bool = False,
    games: int | None = None,
    num_envs: int = 16,
    seed: int = 0,
    jobs: int | None = None,
    device: str = "auto",
    named: Sequence[str] = (),
    progress: bool = False,
) -> list[Report]:
    """Evaluate the networks of run directories or checkpoints in new games, as `wn-dqn evaluate` does.

    Each outcome is appended to ``reevaluations.jsonl`` in its run. `jobs` checkpoints are evaluated at the same time,
    in separate processes. No result depends on it; None means one per core, or one on a GPU. `all_checkpoints`
    evaluates every checkpoint of each run. `named` lists the external environments whose code may run. Exported
    networks, agent:NAME and hf:USER/NAME are evaluated first, and their outcome is not written anywhere.

    >>> reports = wn_dqn.evaluate("runs/Catch", "nature", games=3)
    >>> len(reports[0].result.scores)
    3
    """
    rules, reporter, torch_device = _protocol(protocol, games), _reporter(shown=progress), find_device(device)
    given = [runs] if isinstance(runs, str | os.PathLike) else runs
    paths = [locate(Path(run)) for run in given]
    files = [path for path in paths if os.path.isfile(path)]
    exported = [load_exported(path, torch_device, named) for path in files]
    checkpoints = [path for path in paths if path not in files]
    checkpoints = checkpoint_paths(checkpoints, checkpoint, all_of_a_run=all_checkpoints)
    jobs = jobs or (1 if torch_device.type == "cuda" else num_cores())

    def keep(report: Report) -> None:
        problem = append_to_run(report)
        if problem is not None:
            reporter.message(problem)

    reports = [evaluate_policy(each, game_of(each.settings), rules, num_envs, seed, reporter) for each in exported]
    if checkpoints:
        reports += evaluate_checkpoints(checkpoints, rules, num_envs, seed, torch_device, jobs, reporter, keep, named)
    return reports


def push(
    run: PathLike,
    repo_id: str,
    *,
    to: PathLike | None = None,
    private: bool = False,
    named: Sequence[str] = (),
    progress: bool = False,
) -> str:
    """Send the best network of a finished or stopped run to the repository USER/NAME of the Hugging Face Hub.

    The upload includes the network's contract, a model card, a video of a game, the learning curve and the settings. If
    the network has not been evaluated after training, 30 games are played first. `to` writes the files to this new or
    empty folder and sends nothing. `private` makes a new repository private. Returns the repository's address, or the
    folder.

    Raises UsageError for a mistake, and RunError if the Hub refuses or cannot be reached.

    >>> wn_dqn.push("runs/Catch", "me/catch", to="catch")
    'catch'
    """
    from wn_dqn.interop.publish import write_files  # its template engine is not needed before

    require_repository(repo_id)
    folder = None if to is None else Path(to)
    if folder is None:
        require_hub()
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder; choose another name")
    reporter = _reporter(shown=progress)
    policy = policies.load_policy(Path(run), "best", torch.device("cpu"), named)
    if not latest_reevaluations(read_run(Path(run))):
        reporter.message("the best network has not been evaluated yet: playing 30 games, protocol nature")
        evaluate(policy.path, "nature", jobs=1, device="cpu", named=named, progress=progress)
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        write_files(Path(run), policy, repo_id, place, reporter)
        return str(place) if folder else upload(place, repo_id, private=private)


def evaluate_random(
    game: str,
    protocol: str | EvaluationProtocol = "paper",
    *,
    games: int | None = None,
    num_envs: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Evaluate a uniformly random policy: the baseline for scores."""
    rules = _protocol(protocol, games)
    return evaluate_policy(None, find_game(game), rules, num_envs, seed, _reporter(shown=progress))


class Run:
    """A run directory. It can be read while the run is being trained.

    >>> run = wn_dqn.Run("runs/Catch")
    >>> run.status, run.steps, run.settings.param
    ('finished', 320, 'wn')
    """

    def __init__(self, directory: PathLike, *, trust: bool = False) -> None:
        """Raises UsageError if `directory` is not a run, or if it refers to code of its own and `trust` is False."""
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
        """Running, paused, finished, failed or degraded; empty if there is no readable status."""
        return str(self._run.read_status().get("status", ""))

    @property
    def steps(self) -> int:
        """Agent steps done."""
        return int(self._run.read_status().get("steps", 0))

    @property
    def evaluations(self) -> Table:
        """The columns of evaluations.csv, float64 [E] each; empty if there was no evaluation yet.

        >>> run = wn_dqn.Run("runs/Catch")
        >>> run.evaluations["steps"]
        array([120., 240., 320.])
        >>> len(run.evaluations.to_pandas())
        3
        """
        return read_evaluations(self.directory)

    @property
    def metrics(self) -> Table:
        """The columns of metrics.csv, with one row per log period. An empty cell is NaN."""
        return read_metrics(self.directory)

    @property
    def best(self) -> CheckpointInfo | None:
        """Path, steps and score of the checkpoint with the best evaluation; None if there is none yet."""
        return self._run.best_checkpoint()

    def policy(self, checkpoint: str = "best", *, device: str = "auto") -> Policy:
        """As :func:`wn_dqn.load`."""
        return load(self.directory, checkpoint, device=device, trust=self._trust)


@overload
def make_env(game: str, num_envs: None = None, *, render_mode: str | None = None, **environment: Any) -> WholeGame: ...
@overload
def make_env(game: str, num_envs: int, **environment: Any) -> VectorEnv: ...
def make_env(
    game: str, num_envs: int | None = None, *, render_mode: str | None = None, **environment: Any
) -> WholeGame | VectorEnv:
    """A game, or an external environment, played with the rules of training.

    With `num_envs`, the result is that many games in lockstep, as the training loop plays them. `spec` describes their
    observations and actions, `reset` starts the games, `send` and `receive` make a step. Without `num_envs`, the result
    is one game as a ``gymnasium.Env`` with complete observations; `render_mode` rgb_array makes it renderable. Other
    keyword arguments are settings of `environment`.

    >>> env = wn_dqn.make_env("catch")
    >>> obs, info = env.reset(seed=0)
    >>> obs.shape, env.action_space
    ((4, 84, 84), Discrete(3))
    >>> games = wn_dqn.make_env("gymnasium:CartPole-v1", num_envs=8)
    >>> games.reset(np.arange(8)).shape, games.spec.num_actions
    ((8, 4), 2)
    """
    settings = make_settings({"game": game, "environment": environment})
    rules = training_rules(settings.environment)
    if num_envs is None:
        return WholeGame(game_of(settings), rules, render_mode)
    return make_vector_env(game_of(settings), num_envs, rules)


def register_parameterization(
    name: str,
    *,
    linear: type[Layer],
    conv2d: type[Layer] | None = None,
    label: str | None = None,
    learning_rate: float = 3e-4,
    batch_statistics: bool = False,
    last: type[Layer] | None = None,
    folded: str = "standard",
) -> None:
    """Register your own layers, subclasses of :class:`wn_dqn.nn.Layer`, under a name for the setting `param`.

    `linear` is called with (in_features, out_features), `conv2d` with (in_channels, out_channels, kernel_size, stride=,
    padding=). Without `conv2d`, only networks of linear layers can be built. `label` is the name in plots.
    `learning_rate` is the default for Adamax and Adam. `batch_statistics` states that the training output depends on
    the whole minibatch. `last` is the class of layers that no ReLU follows; None means `linear`. `folded` is the
    parameterization of exported networks. It differs from standard if the layers have no plain form
    (:meth:`wn_dqn.nn.Layer.fold_into_`).

    >>> class Mine(wn_dqn.nn.Linear):
    ...     "Like the standard layer, but a class of its own."
    >>> wn_dqn.register_parameterization("mine", linear=Mine)
    """
    _require_class(linear, Layer, "linear")
    for argument, given in (("conv2d", conv2d), ("last", last)):
        if given is not None:
            _require_class(given, Layer, argument)
    row = ParameterizationRow(label or name, linear, conv2d, learning_rate, batch_statistics, last=last, folded=folded)
    registry.register("parameterization", name, row)


def register_network(
    name: str,
    network: type[QNetwork],
    *,
    dueling: type[QNetwork] | None = None,
    obs_ndim: int | None = None,
    label: str | None = None,
) -> None:
    """Register your own network, a subclass of :class:`wn_dqn.nn.QNetwork`, under a name for `network.name`.

    `dueling` is the same network with dueling heads. `obs_ndim` is the number of dimensions of its observations: 3 for
    images [C, H, W], 1 for vectors [D], None for both.

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


def register_agent(
    name: str, agent: Callable[..., Agent], *, label: str | None = None, distributional: bool = False
) -> None:
    """Register your own agent under a name for the setting `agent`.

    `agent` is called with :class:`wn_dqn.training.agent.AgentParts` and returns a
    :class:`wn_dqn.training.agent.Agent`. `distributional` states that it learns distributions of returns, as C51 does,
    so that its network has atoms.

    >>> from wn_dqn_agents.dqn import DQN
    >>> class Mine(DQN):
    ...     "Like DQN, but a class of its own."
    >>> wn_dqn.register_agent("mine", Mine)
    """
    if not callable(agent):
        raise UsageError(f"an agent must be a class, called with wn_dqn.training.agent.AgentParts, not {agent!r}")
    registry.register("agent", name, AgentRow(label or name, agent, distributional))


def _require_class(given: Any, base: type, argument: str) -> None:
    """Raise UsageError unless `given` is a subclass of `base` that defines all abstract methods."""
    place = f"{base.__module__}.{base.__qualname__}"
    if not (isinstance(given, type) and issubclass(given, base)):
        raise UsageError(f"{argument} must be a subclass of {place}, not {given!r}")
    missing = ", ".join(sorted(getattr(given, "__abstractmethods__", ())))
    if missing:
        raise UsageError(f"{given.__qualname__} lacks methods that every {place} must have: {missing}")


def _reporter(*, shown: bool) -> ProgressReporter:
    return ProgressReporter() if shown else ProgressReporter(Console(quiet=True))


def _protocol(protocol: str | EvaluationProtocol, games: int | None) -> EvaluationProtocol:
    found = find_protocol(protocol) if isinstance(protocol, str) else protocol
    return found if games is None else changed_protocol(found, steps=None, games=games)
