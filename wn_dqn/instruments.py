"""Instruments: what an update does to weight vectors, what layers put out, and what Q-values promise.

Pure mathematics. A weight vector is what one output unit sees its inputs through: a row of a tensor [units, ...]. What
differs from unit to unit is told as its mean over the units of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wn_dqn.nn.layer_statistics import Hook, forward_with_hooks

UPDATE_FIGURES = ("step_ratio", "angle_degrees", "gradient_ratio")
ACTIVATION_FIGURES = ("preactivation_mean", "preactivation_std", "dead_share")
TD_FIGURES = ("abs_td_error", "clipped_share")


@torch.no_grad()
def weight_figures(layer: Any) -> dict[str, float]:
    """Means over units: ||w||, which is |g| under weight normalization; there also g and ||v||."""
    figures = {"w_norm_mean": layer.weight.flatten(1).norm(dim=1).mean().item()}
    if hasattr(layer, "v_norm"):
        figures |= {"g_mean": layer.g.mean().item(), "v_norm_mean": layer.v_norm().mean().item()}
    return figures


@torch.no_grad()
def update_figures(before: Any, after: Any) -> dict[str, float]:
    """`UPDATE_FIGURES` of a layer, given as it was and as an update left it, with the gradient of that update.

    ||dv||/||v||, the angle between w before and after, and ||gradient of v||/||v||; v is what is trained: w itself in
    a standard layer.
    """
    name = "v" if hasattr(before, "v") else "weight"
    old, new = getattr(before, name), getattr(after, name)
    values = (
        mean_relative_norm(new - old, old),
        mean_angle_degrees(before.weight, after.weight),
        mean_relative_norm(new.grad, old),
    )
    return dict(zip(UPDATE_FIGURES, values, strict=True))


def mean_relative_norm(change: Tensor, weight: Tensor) -> float:
    """Mean over units of ||change||/||weight||, both [units, ...]; NaN if a weight vector is zero.

    Of an update's change of v, this is the effective learning rate of its direction: ||v|| grows in training, and the
    same step turns it less and less (Salimans & Kingma 2016, section 2.1).
    """
    return float((change.flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)).mean())


def mean_angle_degrees(before: Tensor, after: Tensor) -> float:
    """Mean over units of the angle between two weight vectors, [units, ...] each; NaN if one is zero.

    By the half-angle formula 2 atan2(|a - b|, |a + b|) of unit vectors a, b (Kahan 2006, section 12): the angle of one
    update is so small that its cosine rounds to 1.
    """
    a, b = (w.flatten(1) / w.flatten(1).norm(dim=1, keepdim=True) for w in (before, after))
    angle = 2.0 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))
    return math.degrees(angle.mean().item())


def activation_figures(network: nn.Module, layers: Mapping[str, nn.Module], obs: Tensor) -> dict[str, dict[str, float]]:
    """For each layer, `ACTIVATION_FIGURES` of what it puts out for `obs`, in evaluation mode, before any ReLU.

    Mean and standard deviation (1/N) of a unit are over the batch, and the positions for a convolution; told are their
    means over units: 0 and 1 right after the data-dependent initialization. A unit is dead that is 0 after the ReLU
    for the whole batch, and so has no gradient.
    """
    figures: dict[str, dict[str, float]] = {}

    def measure(name: str) -> Hook:
        def hook(_layer: object, _inputs: object, t: Tensor) -> None:
            others = [0, *range(2, t.ndim)]
            var, mean = torch.var_mean(t, dim=others, correction=0)
            dead = t.amax(dim=others) <= 0.0
            values = (mean.mean().item(), var.sqrt().mean().item(), dead.float().mean().item())
            figures[name] = dict(zip(ACTIVATION_FIGURES, values, strict=True))

        return hook

    forward_with_hooks(network, obs, {layer: measure(name) for name, layer in layers.items()})
    return figures


def td_figures(td_error: Tensor) -> dict[str, float]:
    """`TD_FIGURES` of TD errors [B]: the mean of |d|, and the share with |d| > 1, which the Huber loss clips."""
    size = td_error.abs()
    return dict(zip(TD_FIGURES, (size.mean().item(), (size > 1.0).float().mean().item()), strict=True))


def discounted_returns(
    reward: NDArray[np.float64], terminal: NDArray[np.bool_], cut: NDArray[np.bool_], discount: float
) -> NDArray[np.float64]:
    """The return of each step, r_t + discount r_{t+1} + ... up to the next terminal step; all arrays are [T, N].

    NaN where it is not known: before a cut without a terminal step, and before the end of the arrays.
    """
    returns = np.empty_like(reward)
    following = np.full(reward.shape[1], math.nan)
    for t in reversed(range(len(reward))):
        following = reward[t] + np.where(terminal[t], 0.0, np.where(cut[t], math.nan, discount * following))
        returns[t] = following
    return returns


class VisitedStates:
    """What Q-values said of the states that an evaluation went through, and what came of it.

    Their difference is the overestimation that the maximum in the Q-learning target breeds (Thrun & Schwartz 1993),
    measured as by van Hasselt, Guez & Silver (2016, Figure 3): max_a Q(s, a) against the discounted return, with
    rewards clipped and lives ended as the learner sees them. The return is that of the test's policy, random actions
    included; the greedy policy's may be higher, and the overestimation lower than told.
    """

    def __init__(self, discount: float, *, terminal_on_life_loss: bool) -> None:
        self._discount = discount
        self._terminal_on_life_loss = terminal_on_life_loss
        self._steps: list[tuple[NDArray[Any], ...]] = []

    def add(
        self,
        max_q: NDArray[np.float64],
        reward: NDArray[np.floating],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        life_lost: NDArray[np.bool_],
    ) -> None:
        """A step of N games: max-Q of the states before it (NaN: not asked), and what followed; all [N]."""
        terminal = terminated | life_lost if self._terminal_on_life_loss else terminated
        self._steps.append((max_q, np.clip(reward.astype(np.float64), -1.0, 1.0), terminal, truncated))

    def means(self) -> tuple[float, float]:
        """Mean max-Q and mean discounted return over the states of which both are known; NaN if there are none."""
        if not self._steps:
            return math.nan, math.nan
        max_q, reward, terminal, cut = (np.stack(column) for column in zip(*self._steps, strict=True))
        returns = discounted_returns(reward, terminal, cut, self._discount)
        known = np.isfinite(max_q) & np.isfinite(returns)
        if not known.any():
            return math.nan, math.nan
        return float(max_q[known].mean()), float(returns[known].mean())
