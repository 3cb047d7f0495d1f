"""The replay buffer: each frame is stored once, and stacks are built on reading.

N games in lockstep fill N rings. A slot contains a frame and the transition that starts with it:

    slot      ...   t-3   t-2   t-1    t    t+1  ...
    frame           f     f     f      f    f           of the environment's spec; here with a stack of 4
    transition                        (obs_t = frames t-3..t, action_t, reward_t, terminal_t, obs_t+1 = frames t-2..t+1)

Frames are on the learner's device, so that only new frames are copied to it. The small arrays that describe the stacks
stay on the host, so that the same seed draws the same minibatches on every device. The zero frame stands for frames
before a game's start. It is one row behind all rings, so that building a stack is a single gather.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.envs.spec import EnvSpec
from wn_dqn.replay.final_frames import FinalFrames
from wn_dqn.replay.frame_stores import CompressedFrames, FrameStore, PlainFrames
from wn_dqn.replay.transitions import TransitionBatch

_MAX_REDRAWS = 100  # after this many, all slots are searched for a transition that can be drawn


class ReplayBuffer:
    """The last `capacity` transitions of N games in lockstep, drawn uniformly.

    The capacity is rounded up to a multiple of `num_envs`. A transition that a time limit truncated is drawn if the
    last frame of its game is known. Otherwise it occupies its slot but is never drawn, because its next observation is
    unknown and it is not terminal. The same holds for a game that is abandoned at an epoch's end.

    With `n_steps` > 1, n consecutive transitions are drawn as one (Sutton 1988): the rewards r_t + gamma r_t+1 +
    ... up to a terminal or truncated transition or the n-th, and the observation after it, discounted by gamma^k for k
    rewards. Rows with a transition among them that is not drawn, or not yet complete, are not drawn.
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        num_envs: int,
        discount: float,
        device: torch.device,
        n_steps: int = 1,
        *,
        compressed: bool = False,
    ) -> None:
        """`compressed` stores frames in host memory, see :class:`CompressedFrames`. The minibatches are the same."""
        self.spec = spec
        self.num_envs = num_envs
        self.capacity_per_env = -(-capacity // num_envs)
        # Extra slots: the history before the oldest transition, and the current frame after the newest one.
        self.num_slots = self.capacity_per_env + spec.stack
        self.discount = discount
        self.n_steps = n_steps
        self.device = device
        self.num_appended = 0
        """slots started since the buffer was created, including the current one; the same for every ring"""
        self.num_transitions = 0
        """number of transitions in all rings that can be drawn if `n_steps` is 1"""
        rings = (num_envs, self.num_slots)
        dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
        self._stored_shape = _stored_shape(spec)
        self._zero_frame = num_envs * self.num_slots
        shape = num_envs, self.num_slots, self._stored_shape
        self.frames: FrameStore = (
            CompressedFrames(*shape, np.dtype(spec.dtype)) if compressed else PlainFrames(*shape, dtype, device)
        )
        self._history = np.zeros(rings, np.uint8)  # number of earlier frames of the same game, less than the stack
        self._action = np.zeros(rings, np.min_scalar_type(spec.num_actions - 1))
        self._reward = np.zeros(rings, np.float32)
        self._terminal = np.zeros(rings, np.bool_)
        self._drawable = np.zeros(rings, np.bool_)
        self._first_slot_of_env = np.arange(num_envs) * self.num_slots
        empty = torch.empty((0, *self._stored_shape), dtype=dtype, device=device)
        self._final = FinalFrames(empty, num_envs, self.num_slots)

    @staticmethod
    def memory_bytes(spec: EnvSpec, capacity: int, num_envs: int) -> int:
        """The memory of a full buffer in bytes, without the final frames of truncated games."""
        num_slots = num_envs * (-(-capacity // num_envs) + spec.stack)
        action_bytes = np.min_scalar_type(spec.num_actions - 1).itemsize
        return num_slots * (spec.frame_bytes + action_bytes + 1 + 4 + 1 + 1) + spec.frame_bytes

    def begin(self, frames: NDArray[Any]) -> None:
        """Start N new games with `frames` [N, *frame_shape]. Incomplete transitions are truncated."""
        self._begin_slot(frames, np.zeros(self.num_envs, np.uint8))

    def append(
        self,
        action: NDArray[np.int64],
        reward: NDArray[np.float32],
        terminal: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        next_frames: NDArray[Any],
        new_game: NDArray[np.bool_],
        final_frames: NDArray[Any] | None = None,
        skipped: NDArray[np.bool_] | None = None,
    ) -> None:
        """Complete the current transitions and start the next ones. All arguments have length N.

        `terminal` marks transitions without a bootstrap value (a lost life, the game's end). `truncated` marks games
        that ended, but whose last transition has a bootstrap value. `next_frames` [N, *frame_shape] are the newest
        frames; `new_game` marks those that start a game. `final_frames` [N, *frame_shape] are the last frames of
        truncated games; None if unknown. `skipped` marks games in which this step was not a transition; None means
        none of them.
        """
        current = (self.num_appended - 1) % self.num_slots
        self._action[:, current] = action
        self._reward[:, current] = reward
        self._terminal[:, current] = terminal
        drawable = ~truncated
        if final_frames is not None and truncated.any():
            for env in np.flatnonzero(truncated):
                frame = np.ascontiguousarray(final_frames[env]).reshape(self._stored_shape)
                self._final.add(int(env), current, self._to_device(frame))
            drawable[:] = True
        if skipped is not None:
            drawable &= ~skipped
        self._drawable[:, current] = drawable
        self.num_transitions += int(np.count_nonzero(drawable))
        history = np.minimum(self._history[:, current] + 1, self.spec.stack - 1).astype(np.uint8)
        self._begin_slot(next_frames, np.where(new_game, 0, history).astype(np.uint8))

    def _begin_slot(self, frames: NDArray[Any], history: NDArray[np.uint8]) -> None:
        leaving = self.num_appended - 1 - self.capacity_per_env
        if leaving >= 0:  # must come first: without a stack, its slot is the one that starts now
            leaving %= self.num_slots
            self.num_transitions -= int(np.count_nonzero(self._drawable[:, leaving]))
            self._drawable[:, leaving] = False
            self._final.forget(leaving)
        slot = self.num_appended % self.num_slots
        self.frames.put(slot, self._to_device(frames.reshape(self.num_envs, *self._stored_shape)))
        self._history[:, slot] = history
        self._drawable[:, slot] = False
        self.num_appended += 1

    def latest_observation(self) -> Tensor:
        """The newest observations [N, *obs_shape], on the buffer's device."""
        slot = np.full(self.num_envs, (self.num_appended - 1) % self.num_slots)
        rows = self._stack_rows(np.arange(self.num_envs), slot, newest=0)
        return self._gather(self._to_device(rows))

    def sample(
        self, generator: np.random.Generator, batch_size: int, num_batches: int = 1
    ) -> Iterator[TransitionBatch]:
        """Draw `num_batches` minibatches uniformly with replacement. Raises ValueError if there is no transition.

        All indices are drawn immediately. Frames are gathered for each minibatch as the iterator advances.
        """
        if num_batches == 0:
            return iter(())
        return self._batches(*self._draw(generator, (num_batches, batch_size)))

    def minibatches(
        self, generator: np.random.Generator, batch_size: int, num_batches: int, importance_exponent: float
    ) -> Iterator[TransitionBatch]:
        """`num_batches` minibatches for updates. Here these are those of `sample`; `importance_exponent` is ignored.

        :class:`wn_dqn.replay.prioritized.PrioritizedReplay` overrides this and the next four methods.
        """
        return self.sample(generator, batch_size, num_batches)

    def update_priorities(self, td_error: Tensor) -> None:
        """Receive the TD errors [B] of the update from the last minibatch of `minibatches`. Ignored here."""

    def metrics(self) -> dict[str, float]:
        """Metrics for every log period, by tag."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The arrays and JSON values that an exact resume needs in addition to those of `read`."""
        return self._final.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from `state_dict`, after ``finish_restoring``. Raises ValueError if it does not fit."""
        self._final.load_state_dict(state)

    def _batches(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> Iterator[TransitionBatch]:
        """A minibatch for each row of `env` and `slot` [num_batches, B]."""
        action = self._to_device(self._action[env, slot].astype(np.int64))
        last = slot
        if self.n_steps == 1:
            rows = self._to_device(self._stack_rows(env, slot, newest=1))
            reward = self._to_device(self._reward[env, slot])
            discount = self._to_device(np.where(self._terminal[env, slot], 0.0, self.discount).astype(np.float32))
        else:
            total, factor, last = self._n_step_return(env, slot)
            obs_rows = self._stack_rows(env, slot, newest=0), self._stack_rows(env, last, newest=1)[..., 1:]
            rows = self._to_device(np.concatenate(obs_rows, axis=-1))
            reward, discount = self._to_device(total), self._to_device(factor)
        final = self._final.rows(env, last) if self._final.any else None
        return self._gather_batches(rows, action, reward, discount, final)

    def oldest_stored(self) -> int:
        """The oldest slot that is still stored, counted from the first slot ever."""
        return max(0, self.num_appended - self.num_slots)

    def read(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Slots start..stop of all rings, counted from the first slot ever: arrays [N, stop - start, ...]."""
        slots = np.arange(start, stop) % self.num_slots
        return {"frames": self.frames.read(slots)} | {name: ring[:, slots] for name, ring in self._host_rings().items()}

    def write(self, start: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore arrays of `read` from slot `start` on. They are used after ``finish_restoring``."""
        slots = np.arange(start, start + arrays["frames"].shape[1]) % self.num_slots
        self.frames.write(slots, arrays["frames"])
        for name, ring in self._host_rings().items():
            ring[:, slots] = arrays[name]

    def finish_restoring(self, num_appended: int) -> None:
        """Finish a restore with `write`. `num_appended` is the number of slots that the saved buffer had started."""
        self.num_appended = num_appended
        current = num_appended - 1
        inside = np.arange(max(0, current - self.capacity_per_env), current) % self.num_slots
        drawable = np.zeros_like(self._drawable)
        drawable[:, inside] = self._drawable[:, inside]
        self._drawable = drawable
        self.num_transitions = int(np.count_nonzero(drawable))

    def _host_rings(self) -> dict[str, NDArray[Any]]:
        return {
            "history": self._history,
            "action": self._action,
            "reward": self._reward,
            "terminal": self._terminal,
            "drawable": self._drawable,
        }

    def _gather_batches(
        self, rows: Tensor, action: Tensor, reward: Tensor, discount: Tensor, final: NDArray[np.int64] | None
    ) -> Iterator[TransitionBatch]:
        """`final` [num_batches, B] are the rows of final frames for the next observations; -1 uses the slot's frame."""
        width = self.spec.obs_shape[0]
        for batch in range(len(rows)):
            frames = self._gather(rows[batch])
            if final is not None:
                self._put_final_frames(frames, final[batch])
            yield TransitionBatch(frames[:, :width], action[batch], reward[batch], discount[batch], frames[:, -width:])

    def _put_final_frames(self, frames: Tensor, final: NDArray[np.int64]) -> None:
        """Replace the newest frame in `frames` [B, k * C, ...] by the final frame where `final` [B] is not -1."""
        (where,) = np.nonzero(final >= 0)
        if len(where):
            channels = self.spec.frame_shape[0]
            newest = self._final.frames(self._to_device(final[where]))
            frames[self._to_device(where), -channels:] = newest.view(-1, *self.spec.frame_shape)

    def _draw(
        self, generator: np.random.Generator, shape: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the rings and slots of transitions. Those that cannot be drawn (truncated or incomplete) are redrawn."""
        if self.num_transitions == 0:
            raise ValueError("the replay buffer holds no transition to draw")
        current = self.num_appended - 1
        count = min(current, self.capacity_per_env)
        oldest = current - count
        draws = generator.integers(0, self.num_envs * count, shape)
        redraws = 0
        while True:
            env, age = np.divmod(draws, count)
            slot = (oldest + age) % self.num_slots
            missing = ~self._drawable[env, slot] if self.n_steps == 1 else ~self._complete(env, slot)
            if not missing.any():
                return env, slot
            redraws += 1
            if redraws == _MAX_REDRAWS and not self._any_complete():
                raise ValueError(f"the replay buffer holds no {self.n_steps} transitions in a row to draw")
            draws[missing] = generator.integers(0, self.num_envs * count, int(missing.sum()))

    def _any_complete(self) -> bool:
        """Whether any transition can be drawn. It checks every slot, which is too slow for every draw."""
        env, slot = np.nonzero(self._drawable)
        return bool(self._complete(env, slot).any())

    def _complete(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether n consecutive transitions, or those up to their game's end, are stored and can be drawn."""
        complete = np.ones(slot.shape, np.bool_)
        ended = np.zeros(slot.shape, np.bool_)
        for step in range(self.n_steps):
            at = (slot + step) % self.num_slots
            complete &= ended | self._drawable[env, at]
            ended |= self._ends(env, at)
        return complete

    def _n_step_return(
        self, env: NDArray[np.int64], slot: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """The n-step return: the discounted sum of rewards, the discount of its bootstrap value, and its last slot.

        The sum has n rewards, or k < n up to the game's end. The discount is gamma^k, or 0 after a terminal transition.
        """
        total, factor, last = np.zeros(slot.shape), np.ones(slot.shape), slot
        going = np.ones(slot.shape, np.bool_)
        for step in range(self.n_steps):
            at = (slot + step) % self.num_slots
            total += np.where(going, factor * self._reward[env, at], 0.0)
            factor *= np.where(going, np.where(self._terminal[env, at], 0.0, self.discount), 1.0)
            last = np.where(going, at, last)
            going &= ~self._ends(env, at)
        return total.astype(np.float32), factor.astype(np.float32), last

    def _ends(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the transition is the last one of its game: terminal, or truncated with a known final frame."""
        terminal = self._terminal[env, slot]
        return terminal | (self._final.rows(env, slot) >= 0) if self._final.any else terminal

    def _stack_rows(self, env: NDArray[np.int64], slot: NDArray[np.int64], newest: int) -> NDArray[np.int64]:
        """Rows [..., stack + newest] of `frames`: each slot's stack, oldest first, then `newest` later frames."""
        offsets = np.arange(1 - self.spec.stack, newest + 1)
        rows = (slot[..., None] + offsets) % self.num_slots + self._first_slot_of_env[env][..., None]
        return np.where(-offsets > self._history[env, slot][..., None], self._zero_frame, rows)

    def _gather(self, rows: Tensor) -> Tensor:
        """The frames at `rows` [B, k], concatenated along their first dimension: [B, k * C, H, W] or [B, k * D]."""
        batch, count = rows.shape
        channels, *size = self.spec.frame_shape
        return self.frames.gather(rows.flatten()).view(batch, count * channels, *size)

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        """Copy `array` to the device asynchronously. On a GPU, the caller may change `array` at once."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor


@dataclass(frozen=True)
class Sampler:
    """Draws the minibatches of updates from `replay`."""

    replay: ReplayBuffer
    batch_size: int
    importance_exponent: Callable[[int], float]
    """beta of prioritized replay, as a function of the step"""

    def minibatches(self, generator: np.random.Generator, number: int, steps: int) -> Iterator[TransitionBatch]:
        """`number` minibatches for updates at step `steps`."""
        return self.replay.minibatches(generator, self.batch_size, number, self.importance_exponent(steps))


def _stored_shape(spec: EnvSpec) -> tuple[int, ...]:
    """The shape of a frame in memory and in segments on disk, without the channel dimension if it is 1."""
    single_channel = spec.is_image and spec.frame_shape[0] == 1
    return spec.frame_shape[1:] if single_channel else spec.frame_shape
