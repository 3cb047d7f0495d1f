"""Prioritized experience replay (Schaul et al. 2016, the proportional variant).

Transition i has the priority p_i = |TD error| + epsilon, with the unclipped TD error of its last update. It is drawn
with probability P(i) = p_i^alpha / sum_k p_k^alpha (equation 1). A new transition has the largest priority so far,
initially 1, so that it is drawn soon. Its weight in the loss is w_i = (N P(i))^-beta (section 3.4), divided by the
largest w of its minibatch; N is the number of transitions. The weights reduce the bias of the sampling. With beta = 1
only a scale remains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_dqn.envs.spec import EnvSpec
from wn_dqn.errors import RunError
from wn_dqn.replay.buffer import ReplayBuffer
from wn_dqn.replay.sum_tree import SumTree
from wn_dqn.replay.transitions import TransitionBatch


class PrioritizedReplay(ReplayBuffer):
    """A replay buffer whose `minibatches` are drawn by priority; `sample` still draws uniformly.

    Transitions that `sample` never draws have priority 0: truncated, incomplete and overwritten ones. The priorities
    are on the host, in a sum tree with a value p_i^alpha for each slot. The TD errors are copied from the learner's
    device asynchronously. The host waits for them only before the next minibatch is drawn, or the next transition is
    stored.
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        num_envs: int,
        discount: float,
        device: torch.device,
        n_steps: int,
        exponent: float,
        epsilon: float,
        *,
        compressed: bool = False,
    ) -> None:
        """`exponent` is alpha; the other arguments as for :class:`ReplayBuffer`."""
        super().__init__(spec, capacity, num_envs, discount, device, n_steps, compressed=compressed)
        self._exponent = exponent
        self._epsilon = epsilon
        self._tree = SumTree(num_envs * self.num_slots)
        self._max_priority = 1.0
        self._drawn = np.zeros(0, np.int64)  # slots of the last minibatch
        self._arriving: tuple[NDArray[np.int64], Tensor, torch.cuda.Event | None] | None = None

    def minibatches(
        self, generator: np.random.Generator, batch_size: int, num_batches: int, importance_exponent: float
    ) -> Iterator[TransitionBatch]:
        """Draw `num_batches` weighted minibatches with replacement, one transition from each of B equal ranges.

        The ranges divide the sum of priorities. Each minibatch is drawn when the iterator reaches it, with the
        priorities after the previous update, as in the paper's algorithm 1. `importance_exponent` is beta. Raises
        ValueError if there is no transition.
        """
        for _ in range(num_batches):
            self._settle()
            if self._tree.total == 0.0:
                raise ValueError(f"the replay buffer holds no {self.n_steps} transitions in a row to draw")
            mass = (np.arange(batch_size) + generator.random(batch_size)) * (self._tree.total / batch_size)
            self._drawn = self._tree.find(mass)
            value = self._tree.values[self._drawn]
            weight = (value.min() / value) ** importance_exponent  # N and the sum are the same for all, and cancel out
            env, slot = np.divmod(self._drawn[None], self.num_slots)
            (batch,) = self._batches(env, slot)
            yield batch._replace(weight=self._to_device(weight.astype(np.float32)))

    def update_priorities(self, td_error: Tensor) -> None:
        """See :class:`ReplayBuffer`. The TD errors are copied asynchronously; this does not wait for them."""
        arrived = None
        if td_error.is_cuda:
            on_host = torch.empty(td_error.shape, dtype=td_error.dtype, pin_memory=True)
            td_error = on_host.copy_(td_error, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._arriving = self._drawn, td_error, arrived

    def metrics(self) -> dict[str, float]:
        """The largest priority so far, and the evenness of P: 1 / (N sum P^2), from 1/N to 1 if all are equal."""
        self._settle()
        values = self._tree.values[self._tree.values > 0.0]
        share = values.sum() ** 2 / (len(values) * np.square(values).sum()) if len(values) else np.nan
        return {"replay/max_priority": self._max_priority, "replay/evenness": float(share)}

    def state_dict(self) -> dict[str, Any]:
        """p_i^alpha of every slot, float64 [num_envs, num_slots], a view; and the largest p so far."""
        self._settle()
        values = self._tree.values.reshape(self.num_envs, self.num_slots)
        return {"values": values, "max_priority": self._max_priority, **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :class:`ReplayBuffer`. Raises ValueError if the priorities do not fit this buffer."""
        super().load_state_dict(state)
        values = torch.as_tensor(state["values"]).numpy()
        if values.shape != (self.num_envs, self.num_slots):
            raise ValueError("the priorities have another shape than this run's replay buffer")
        largest = float(state["max_priority"])
        if not (np.isfinite(values).all() and (values >= 0.0).all() and 0.0 <= largest < np.inf):
            raise ValueError("a priority is not a finite number of at least 0")
        self._tree.set_all(values.reshape(-1))
        self._max_priority = largest

    def _begin_slot(self, frames: NDArray[Any], history: NDArray[np.uint8]) -> None:
        self._settle()  # before a slot is overwritten whose priority is pending
        super()._begin_slot(frames, history)
        # Two kinds of slots may have changed: the oldest transition has left, and n transitions that end here may have
        # become complete.
        newest = self.num_appended - 2
        slots = np.append(newest - np.arange(self.n_steps), newest - self.capacity_per_env) % self.num_slots
        env, slot = np.repeat(np.arange(self.num_envs), len(slots)), np.tile(slots, self.num_envs)
        leaf = env * self.num_slots + slot
        value = self._tree.values[leaf]
        value = np.where(value > 0.0, value, self._max_priority**self._exponent)
        self._tree.set(leaf, np.where(self._complete(env, slot), value, 0.0))

    def _settle(self) -> None:
        """Wait for the TD errors of the last minibatch, and set its priorities."""
        if self._arriving is None:
            return
        (drawn, td_error, arrived), self._arriving = self._arriving, None
        if arrived is not None:
            arrived.synchronize()
        priority = np.abs(td_error.numpy().astype(np.float64)) + self._epsilon
        if not np.isfinite(priority).all():
            raise RunError("a TD error is NaN or infinite; a smaller optimizer.learning_rate is the usual remedy")
        self._max_priority = max(self._max_priority, float(priority.max()))
        self._tree.set(drawn, priority**self._exponent)
