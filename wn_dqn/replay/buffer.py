"""The replay buffer: each frame is stored once, and stacks are rebuilt when they are read.

N games in lockstep fill N rings. A slot holds a frame and the transition that begins with it:

    slot      ...   t-3   t-2   t-1    t    t+1  ...
    frame           f     f     f      f    f           of the environment's spec; here with a stack of 4
    transition                        (obs_t = frames t-3..t, action_t, reward_t, terminal_t, obs_t+1 = frames t-2..t+1)

Frames live on the learner's device, so that only new frames ever cross to it; what says which frames form a stack is
small and stays on the host, so the same seed draws the same minibatches on every device. A frame from before a game
began is the zero frame, one row behind all rings: a stack is a gather, nothing else.
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

_MAX_REDRAWS = 100  # after so many it is looked up whether there is anything to draw


class ReplayBuffer:
    """The last `capacity` transitions of N games in lockstep, drawn uniformly.

    The capacity is rounded up to a multiple of `num_envs`. A truncated transition (a time limit) is drawn if the frame
    that its game ended in is known. Otherwise, and where a game was abandoned at an epoch's end, it takes its place but
    is never drawn: its next observation is not known, and it is not terminal.

    With `n_steps` > 1 what is drawn are n transitions in a row as one (Sutton 1988): the rewards r_t + gamma r_t+1 +
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
        """`compressed`: frames lie in the host's memory, see :class:`CompressedFrames`; what is drawn is the same."""
        self.spec = spec
        self.num_envs = num_envs
        self.capacity_per_env = -(-capacity // num_envs)
        # The history of the oldest transition comes before it, and the slot of the current frame after the newest.
        self.num_slots = self.capacity_per_env + spec.stack
        self.discount = discount
        self.n_steps = n_steps
        self.device = device
        self.num_appended = 0
        """Slots begun since the buffer was made, the current one included; the same for every ring."""
        self.num_transitions = 0
        """Transitions that can be drawn if `n_steps` is 1, over all rings."""
        rings = (num_envs, self.num_slots)
        dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
        self._stored_shape = _stored_shape(spec)
        self._zero_frame = num_envs * self.num_slots
        shape = num_envs, self.num_slots, self._stored_shape
        self.frames: FrameStore = (
            CompressedFrames(*shape, np.dtype(spec.dtype)) if compressed else PlainFrames(*shape, dtype, device)
        )
        self._history = np.zeros(rings, np.uint8)  # earlier frames of the same game, less than the stack
        self._action = np.zeros(rings, np.min_scalar_type(spec.num_actions - 1))
        self._reward = np.zeros(rings, np.float32)
        self._terminal = np.zeros(rings, np.bool_)
        self._drawable = np.zeros(rings, np.bool_)
        self._first_slot_of_env = np.arange(num_envs) * self.num_slots
        empty = torch.empty((0, *self._stored_shape), dtype=dtype, device=device)
        self._final = FinalFrames(empty, num_envs, self.num_slots)

    @staticmethod
    def memory_bytes(spec: EnvSpec, capacity: int, num_envs: int) -> int:
        """The memory that a buffer takes when full, without the final frames of truncated games."""
        num_slots = num_envs * (-(-capacity // num_envs) + spec.stack)
        action_bytes = np.min_scalar_type(spec.num_actions - 1).itemsize
        return num_slots * (spec.frame_bytes + action_bytes + 1 + 4 + 1 + 1) + spec.frame_bytes

    def begin(self, frames: NDArray[Any]) -> None:
        """N new games begin with `frames` [N, *frame_shape]; a transition that had begun is truncated."""
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
        """Complete the current transitions and begin the next ones, all arguments of length N.

        `terminal`: no value follows (a lost life, the game's end). `truncated`: the game ended, and a value follows.
        `next_frames` [N, *frame_shape] are the newest frames; `new_game` where they begin a game. `final_frames`
        [N, *frame_shape] are those that truncated games ended in; None: they are not known. `skipped`: where this was
        no transition; None: nowhere.
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
        if leaving >= 0:  # first: without a stack its slot is the one that is begun
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
        """The observations [N, *obs_shape], on the buffer's device, that the current frames end."""
        slot = np.full(self.num_envs, (self.num_appended - 1) % self.num_slots)
        rows = self._stack_rows(np.arange(self.num_envs), slot, newest=0)
        return self._gather(self._to_device(rows))

    def sample(
        self, generator: np.random.Generator, batch_size: int, num_batches: int = 1
    ) -> Iterator[TransitionBatch]:
        """`num_batches` minibatches drawn uniformly with replacement; ValueError if there is no transition.

        All indices are drawn at once, now; frames are gathered batch by batch as the iterator advances.
        """
        if num_batches == 0:
            return iter(())
        return self._batches(*self._draw(generator, (num_batches, batch_size)))

    def minibatches(
        self, generator: np.random.Generator, batch_size: int, num_batches: int, importance_exponent: float
    ) -> Iterator[TransitionBatch]:
        """`num_batches` minibatches to learn from; here, those of `sample`, and `importance_exponent` is of no account.

        See :class:`wn_dqn.replay.prioritized.PrioritizedReplay` for the other kind, and the next four methods.
        """
        return self.sample(generator, batch_size, num_batches)

    def update_priorities(self, td_error: Tensor) -> None:
        """Told the TD errors [B] of the update from the minibatch that `minibatches` gave last."""

    def metrics(self) -> dict[str, float]:
        """Figures for every log period, by tag."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What an identical continuation needs beside what `read` gives: arrays and JSON values."""
        return self._final.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave, once ``finish_restoring`` is done; ValueError if it is of another buffer."""
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
        """The first slot, counted from the first ever begun, that is still stored."""
        return max(0, self.num_appended - self.num_slots)

    def read(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Slots start..stop of all rings, counted from the first ever begun: arrays [N, stop - start, ...]."""
        slots = np.arange(start, stop) % self.num_slots
        return {"frames": self.frames.read(slots)} | {name: ring[:, slots] for name, ring in self._host_rings().items()}

    def write(self, start: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `read` gave, from slot `start` on; ``finish_restoring`` makes it count."""
        slots = np.arange(start, start + arrays["frames"].shape[1]) % self.num_slots
        self.frames.write(slots, arrays["frames"])
        for name, ring in self._host_rings().items():
            ring[:, slots] = arrays[name]

    def finish_restoring(self, num_appended: int) -> None:
        """Continue as the buffer whose slots were put back, `num_appended` of them begun."""
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
        """`final` [num_batches, B]: the final frames that end the next observations, -1: the slot's own does."""
        width = self.spec.obs_shape[0]
        for batch in range(len(rows)):
            frames = self._gather(rows[batch])
            if final is not None:
                self._put_final_frames(frames, final[batch])
            yield TransitionBatch(frames[:, :width], action[batch], reward[batch], discount[batch], frames[:, -width:])

    def _put_final_frames(self, frames: Tensor, final: NDArray[np.int64]) -> None:
        """Overwrite the newest frame in `frames` [B, k * C, ...] where `final` [B] names another."""
        (where,) = np.nonzero(final >= 0)
        if len(where):
            channels = self.spec.frame_shape[0]
            newest = self._final.frames(self._to_device(final[where]))
            frames[self._to_device(where), -channels:] = newest.view(-1, *self.spec.frame_shape)

    def _draw(
        self, generator: np.random.Generator, shape: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ring and slot of drawable transitions; the few that are truncated, or before one, are drawn again."""
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
        """Looks at every slot: too slow to be asked before every draw."""
        env, slot = np.nonzero(self._drawable)
        return bool(self._complete(env, slot).any())

    def _complete(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether n transitions in a row, or those up to their game's end, are there and can be drawn."""
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
        """The discounted sum of the next n rewards, or of those up to the game's end; gamma^k for k of them, or 0 where
        a terminal transition ends the sum; and the slot of the last transition in it."""
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
        """Whether no transition of the same game follows: it is terminal, or truncated with a known end."""
        terminal = self._terminal[env, slot]
        return terminal | (self._final.rows(env, slot) >= 0) if self._final.any else terminal

    def _stack_rows(self, env: NDArray[np.int64], slot: NDArray[np.int64], newest: int) -> NDArray[np.int64]:
        """Rows of `frames`: each slot's stack, oldest first, and `newest` frames after it: [..., stack + newest]."""
        offsets = np.arange(1 - self.spec.stack, newest + 1)
        rows = (slot[..., None] + offsets) % self.num_slots + self._first_slot_of_env[env][..., None]
        return np.where(-offsets > self._history[env, slot][..., None], self._zero_frame, rows)

    def _gather(self, rows: Tensor) -> Tensor:
        """The frames at `rows` [B, k], side by side along their first dimension: [B, k * C, H, W] or [B, k * D]."""
        batch, count = rows.shape
        channels, *size = self.spec.frame_shape
        return self.frames.gather(rows.flatten()).view(batch, count * channels, *size)

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        """`array` on its way to the device; nobody waits for it, and it may be changed at once on a GPU."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor


@dataclass(frozen=True)
class Sampler:
    """Draws from `replay` what an update learns from."""

    replay: ReplayBuffer
    batch_size: int
    importance_exponent: Callable[[int], float]
    """beta of prioritized replay, as a function of the step"""

    def minibatches(self, generator: np.random.Generator, number: int, steps: int) -> Iterator[TransitionBatch]:
        """`number` minibatches to learn from at step `steps`."""
        return self.replay.minibatches(generator, self.batch_size, number, self.importance_exponent(steps))


def _stored_shape(spec: EnvSpec) -> tuple[int, ...]:
    """The shape of a frame in memory and in segments on disk: a single channel has no dimension of its own."""
    single_channel = spec.is_image and spec.frame_shape[0] == 1
    return spec.frame_shape[1:] if single_channel else spec.frame_shape
