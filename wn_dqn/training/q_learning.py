"""The pure mathematics of Q-learning (Mnih et al. 2015, Methods)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "sum"]


class Loss(Protocol):
    """A loss of a network's outputs, with a fixed reduction."""

    def __call__(self, q: Tensor, action: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Loss [] from q [B, A], action int64 [B], target [B], and weight [B]; None means equal weights.

        For distributions on N atoms, `q` is logits [B, A, N] and `target` is probabilities [B, N].
        """
        ...


def q_learning_target(reward: Tensor, discount: Tensor, next_q: Tensor) -> Tensor:
    """y = r + discount * max_a Q(s', a), from reward [B], discount [B] and next_q [B, A]; returns [B].

    `discount` is 0 where the transition was terminal, and then `next_q` has no influence.
    """
    return reward + discount * next_q.amax(dim=1)


def double_q_learning_target(reward: Tensor, discount: Tensor, next_q: Tensor, online_next_q: Tensor) -> Tensor:
    """y = r + discount * Q(s', argmax_a Q_online(s', a)), from two estimates [B, A] of the next values; returns [B].

    The maximum of noisy estimates is biased upwards. If one estimate chooses the action and another one with
    independent noise evaluates it, that bias vanishes (van Hasselt et al. 2016, "Double DQN"). `next_q` is the target
    network's. The other arguments are as in :func:`q_learning_target`.
    """
    return reward + discount * _chosen(next_q, online_next_q.argmax(dim=1))


def clipped_td_loss(
    q: Tensor, action: Tensor, target: Tensor, *, reduction: Reduction, weight: Tensor | None = None
) -> Tensor:
    """Loss [] whose gradient with respect to Q(s, a) is the TD error clipped to [-1, 1], summed or averaged over B.

    That is the Huber loss with threshold 1. Mnih et al. clip the error term of the update. Clipping the error inside
    the square instead would give no gradient beyond 1. `q` is [B, A], `action` int64 [B], `target` [B]. `weight` [B]
    multiplies each loss before the sum; the mean is still the sum divided by B.
    """
    if weight is not None:
        return reduced(F.huber_loss(_chosen(q, action), target, reduction="none", delta=1.0), weight, reduction)
    return F.huber_loss(_chosen(q, action), target, reduction=reduction, delta=1.0)


def squared_td_loss(
    q: Tensor, action: Tensor, target: Tensor, *, reduction: Reduction, weight: Tensor | None = None
) -> Tensor:
    """Loss [] whose gradient with respect to Q(s, a) is the TD error itself, *not clipped*, summed or averaged over B.

    That is half the squared error. It equals :func:`clipped_td_loss` while no error exceeds 1. One large error makes a
    large step, which is why Mnih et al. clip. The arguments are those of :func:`clipped_td_loss`.
    """
    if weight is not None:
        return 0.5 * reduced(F.mse_loss(_chosen(q, action), target, reduction="none"), weight, reduction)
    return 0.5 * F.mse_loss(_chosen(q, action), target, reduction=reduction)


def reduced(loss: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    """The sum or the mean [] over B of losses [B], each multiplied by its weight [B], if given.

    torch's own `weight` is not used: its mean divides by B in some losses, and by the sum of the weights in others.
    """
    weighted = loss if weight is None else weight * loss
    return weighted.mean() if reduction == "mean" else weighted.sum()


def td_error(q: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """y - Q(s, a) [B]. The arguments are those of :func:`clipped_td_loss`."""
    return target - _chosen(q, action)


def _chosen(q: Tensor, action: Tensor) -> Tensor:
    """Q(s, a) [B] of the actions taken."""
    return q.gather(1, action.unsqueeze(1)).squeeze(1)


LOSSES: dict[str, Callable[..., Tensor]] = {"huber": clipped_td_loss, "mse": squared_td_loss}
"""losses with a `reduction`; `functools.partial` fixes it, which makes a :class:`Loss`"""
