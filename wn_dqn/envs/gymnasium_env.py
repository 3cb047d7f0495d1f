"""An adapter for external environments: N games in lockstep on top of ``gymnasium.vector``, in any autoreset mode.

The three modes differ in when an ended game restarts, and in where its last observation is:

    SAME_STEP   within the step; the last observation is in info["final_obs"]
    DISABLED    on a reset, which this adapter does at once; the last observation was the step's
    NEXT_STEP   with the next step, whose action has no effect; the last observation was the step's

Any error of an environment ends the run with one line: :class:`wn_dqn.envs.vector_env.EnvironmentFailure`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from wn_dqn.envs.gymnasium_spaces import read_action_space, read_observation_space
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.envs.vector_env import EnvironmentFailure, EnvStep, require_actions
from wn_dqn.errors import first_line

HANG_TIMEOUT_S = 60.0
"""how long a worker process may take for a step or a reset"""

FOREIGN_ERRORS: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""everything that external code may raise, except a KeyboardInterrupt"""

_Outcome = tuple[Any, Any, Any, Any, dict[str, Any]]


class GymnasiumEnv:
    """N games of one environment, see :class:`wn_dqn.envs.vector_env.VectorEnv`.

    Frames and final frames are overwritten by the next step.
    """

    def __init__(self, vector: gymnasium.vector.VectorEnv[Any, Any, Any], spec: EnvSpec) -> None:
        """Raises UsageError if the spaces of `vector` are not supported. `spec` is that of a single game."""
        self.spec, self.num_envs = spec, vector.num_envs
        self._vector = vector
        self._reading = read_observation_space(spec.name, vector.single_observation_space)
        _, self._first_action = read_action_space(spec.name, vector.single_action_space)
        mode = vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)  # gymnasium's default
        self._mode = AutoresetMode(mode)
        self._actions = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, np.bool_)  # NEXT_STEP: games that restart with the next step
        self._worker_died = False

    def reset(self, seeds: NDArray[np.int64]) -> NDArray[Any]:
        """Begin N new games from their seeds; returns their first frames."""
        self._ended = np.zeros(self.num_envs, np.bool_)
        try:
            return self._reading.frames(self._reset(seeds.tolist()))
        except FOREIGN_ERRORS as error:
            raise self._failure("reset", error) from None

    def _reset(self, seeds: list[int]) -> NDArray[Any]:
        obs: NDArray[Any]
        if isinstance(self._vector, AsyncVectorEnv):
            self._vector.reset_async(seed=list(seeds))
            with _silent_gymnasium():
                obs, _ = self._vector.reset_wait(timeout=HANG_TIMEOUT_S)
        else:
            obs, _ = self._vector.reset(seed=seeds)  # type: ignore[arg-type]  # as its documentation has it
        return obs

    def send(self, actions: NDArray[np.int64]) -> None:
        """Start a step with actions [N]. Raises ValueError unless each is in [0, spec.num_actions)."""
        require_actions(actions, self.spec.num_actions)
        self._actions = actions + self._first_action
        if isinstance(self._vector, AsyncVectorEnv):
            try:
                self._vector.step_async(self._actions)
            except OSError:  # `receive` reports it
                self._worker_died = True

    def receive(self) -> EnvStep:
        """Wait for the step that `send` started."""
        try:
            return self._receive()
        except FOREIGN_ERRORS as error:
            raise self._failure("step", error) from None

    def _receive(self) -> EnvStep:
        obs, given_reward, terminated, truncated, info = self._step()
        with np.errstate(over="ignore"):
            reward = np.asarray(given_reward, np.float32)
        if reward.shape != (self.num_envs,) or not np.isfinite(reward).all():
            raise EnvironmentFailure(f"{self.spec.name} gave a reward that is NaN, infinite or beyond float32")
        frames = self._reading.frames(obs)
        terminated, truncated = np.asarray(terminated, np.bool_), np.asarray(truncated, np.bool_)
        step = EnvStep(frames, reward, terminated, truncated, terminated)
        over = step.over
        if self._mode is AutoresetMode.NEXT_STEP:
            skipped, self._ended = self._ended, over
            return step._replace(final_frame=frames, skipped=skipped)
        if not over.any():
            return step
        if self._mode is AutoresetMode.SAME_STEP:
            return step._replace(final_frame=self._final_frames(over, frames, info))
        ended_with = frames.copy()
        return step._replace(frame=self._restart(over, ended_with.copy()), final_frame=ended_with)

    def _step(self) -> _Outcome:
        if self._worker_died:
            raise EOFError
        if isinstance(self._vector, AsyncVectorEnv):
            with _silent_gymnasium():
                return self._vector.step_wait(timeout=HANG_TIMEOUT_S)
        return self._vector.step(self._actions)

    def _final_frames(self, over: NDArray[np.bool_], frames: NDArray[Any], info: dict[str, Any]) -> NDArray[Any] | None:
        """The final frames [N, *frame_shape] of games that are over; None if the environment does not provide them."""
        final_obs = info.get("final_obs")
        games = np.flatnonzero(over)
        if final_obs is None or any(final_obs[game] is None for game in games):
            return None
        final = np.zeros_like(frames)
        final[games] = self._reading.frames(np.stack([self._reading.accept(final_obs[game]) for game in games]))
        return final

    def _restart(self, over: NDArray[np.bool_], frames: NDArray[Any]) -> NDArray[Any]:
        """`frames`, in which games that are `over` have been restarted."""
        obs, _ = self._vector.reset(options={"reset_mask": over})
        frames[over] = self._reading.frames(obs)[over]
        return frames

    def _failure(self, doing: str, error: BaseException) -> EnvironmentFailure:
        """The exception that ends the run after `error`. The worker processes are killed without waiting for them."""
        self.close()
        asynchronous = isinstance(self._vector, AsyncVectorEnv)
        if isinstance(error, EnvironmentFailure):
            return EnvironmentFailure(*error.args)
        if isinstance(error, multiprocessing.TimeoutError):
            return EnvironmentFailure(
                f"{self.spec.name} has not answered a {doing} for {HANG_TIMEOUT_S:g} s in its worker process"
            )
        if asynchronous and isinstance(error, EOFError | OSError):
            return EnvironmentFailure(f"a worker process of {self.spec.name} has died")
        return failure(self.spec.name, doing, error)

    def close(self) -> None:
        """End the worker processes, if there are any."""
        if isinstance(self._vector, AsyncVectorEnv):
            for process in self._vector.processes:
                process.kill()
                process.join()
            self._vector.closed = True


class SerialVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """N games played one after another in this process, SAME_STEP; observations are overwritten by the next step.

    Like ``gymnasium.vector.SyncVectorEnv``, but without copies and infos, which cost more than a small game's step.
    """

    def __init__(self, games: Sequence[OneGame]) -> None:
        self.games, self.num_envs = games, len(games)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = games[0].observation_space, games[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        reading = games[0].reading
        self._obs = np.zeros((self.num_envs, *reading.shape), reading.dtype)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start N new games, each with its own seed."""
        seeds = seed if isinstance(seed, Sequence) else [seed] * self.num_envs
        for i, (game, own) in enumerate(zip(self.games, seeds, strict=True)):
            self._obs[i], _ = game.reset(seed=own)
        return self._obs, {}

    def step(self, actions: NDArray[np.int64]) -> _Outcome:
        """Play a step of each game. Games that end restart."""
        rewards: list[float] = []
        terminations: list[bool] = []
        truncations: list[bool] = []
        final: list[Any] | None = None
        for i, (game, action) in enumerate(zip(self.games, actions.tolist(), strict=True)):
            obs, reward, terminated, truncated, _ = game.step(action)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            if terminated or truncated:
                final = final or [None] * self.num_envs
                final[i] = obs.copy()
                obs, _ = game.reset()
            self._obs[i] = obs
        return self._obs, rewards, terminations, truncations, {} if final is None else {"final_obs": final}


class OneGame(gymnasium.Env[Any, Any]):
    """One game of an environment, which is created again whenever it is reset with a seed.

    Some environments keep state between games that a seed does not reset. With such a state, a stopped run could not
    restore its games, and an evaluation would depend on the previous one. Errors are raised as EnvironmentFailure.
    Infos are dropped.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], name: str) -> None:
        """Raises UsageError if the spaces are not supported."""
        if multiprocessing.current_process().daemon:  # a worker ignores Ctrl-C, which is meant for the main process
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._make, self._name = make, name
        self._env: gymnasium.Env[Any, Any] | None = make()
        self._used = False
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space
        self.reading = read_observation_space(name, self.observation_space)
        read_action_space(name, self.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin a game; returns its first observation."""
        try:
            if seed is not None and self._used:
                self.close()
                self._env = self._make()
            self._used = True
            assert self._env is not None
            obs, _ = self._env.reset(seed=seed, options=options)
            return self.reading.accept(obs), {}
        except EnvironmentFailure:
            raise
        except FOREIGN_ERRORS as error:
            raise failure(self._name, "reset", error) from None

    def step(self, action: int) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Play a step."""
        try:
            assert self._env is not None
            obs, reward, terminated, truncated, _ = self._env.step(action)
            return self.reading.accept(obs), float(reward), bool(terminated), bool(truncated), {}
        except EnvironmentFailure:
            raise
        except FOREIGN_ERRORS as error:
            raise failure(self._name, "step", error) from None

    def render(self) -> Any:
        """The environment's own picture."""
        assert self._env is not None
        return self._env.render()

    def close(self) -> None:
        """Close the environment, and ignore its errors."""
        env, self._env = self._env, None
        if env is not None:
            with contextlib.suppress(Exception):
                env.close()


def failure(name: str, doing: str, error: BaseException) -> EnvironmentFailure:
    """A one-line exception for an `error` that the environment `name` raised, with the place in its code."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    said = first_line(error) if isinstance(error, Exception) else str(error)
    return EnvironmentFailure(f"{name} raised {type(error).__name__} in {doing}{where}: {said}")


@contextlib.contextmanager
def _silent_gymnasium() -> Iterator[None]:
    """Suppress gymnasium's report of a worker's error, which has many lines; ours has one."""
    level = gymnasium.logger.min_level
    gymnasium.logger.min_level = gymnasium.logger.ERROR + 1
    try:
        yield
    finally:
        gymnasium.logger.min_level = level
