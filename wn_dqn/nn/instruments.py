"""Instruments: metrics of weight vectors and their updates, of layers' outputs, and of TD errors.

These are pure functions. A weight vector belongs to one output unit: it is a row of a tensor [units, ...]. Metrics of
single units are averaged over the units of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wn_dqn.nn.layer_statistics import Hook, forward_with_hooks
from wn_dqn.nn.layers import Layer
from wn_dqn.nn.noisy import NoisyLayer
from wn_dqn.nn.weight_norm import WeightNormLayer

UPDATE_METRICS = ("step_ratio", "w_step_ratio", "angle_degrees", "gradient_ratio")
ACTIVATION_METRICS = ("preactivation_mean", "preactivation_std", "dead_share", "dormant_share")
RANK_METRIC = "feature_rank"
"""metric of an output layer's input, which is the output of the last hidden layer"""
RELU_METRICS = ("dead_share", "dormant_share")
"""those of the `ACTIVATION_METRICS` that are meaningful only before a ReLU"""
TD_METRICS = ("abs_td_error", "clipped_share")
DORMANT_BELOW = 0.1
"""tau of Sokar et al. (2023)"""
RANK_SHARE = 0.99
"""1 - delta of Kumar et al. (2021)"""


@torch.no_grad()
def weight_metrics(layer: Layer) -> dict[str, float]:
    """Means over units of ||w||; with weight normalization also of g and ||v||; with noise also of ||sigma||.

    With weight normalization ||w|| = |g|. `sigma_1` is the :func:`spectral_norm` of the folded w.
    """
    metrics = {
        "w_norm_mean": _weight(layer).flatten(1).norm(dim=1).mean().item(),
        "sigma_1": spectral_norm(_folded(layer)),
    }
    if isinstance(layer, WeightNormLayer):
        metrics |= {"g_mean": layer.g.mean().item(), "v_norm_mean": layer.v_norm().mean().item()}
    if isinstance(layer, NoisyLayer):
        metrics["sigma_norm_mean"] = layer.sigma.norm(dim=1).mean().item()
    return metrics


@torch.no_grad()
def update_metrics(before: Layer, after: Layer) -> dict[str, float]:
    """`UPDATE_METRICS` of a layer, from its states before and after an update. `after` has the update's gradient.

    They are ||dv||/||v||, ||dw||/||w|| of the folded w, the angle between w before and after, and
    ||gradient of v||/||v||. In a layer without v, v is w. The last metric is NaN if v is not a parameter.
    """
    old, new = _direction(before), _direction(after)
    old_w, new_w = _folded(before), _folded(after)
    values = (
        mean_relative_norm(new - old, old),
        mean_relative_norm(new_w - old_w, old_w),
        mean_angle_degrees(_weight(before), _weight(after)),
        mean_relative_norm(new.grad, old) if new.is_leaf and new.grad is not None else math.nan,
    )
    return dict(zip(UPDATE_METRICS, values, strict=True))


def _direction(layer: Layer) -> Tensor:
    """v [units, ...], else w."""
    v: Tensor | None = getattr(layer, "v", None)
    return _weight(layer) if v is None else v


def _weight(layer: Layer) -> Tensor:
    """w [units, ...]: the layer's attribute `weight`, or its folded weight."""
    weight: Tensor | None = getattr(layer, "weight", None)
    return layer.fold()[0] if weight is None else weight


def _folded(layer: Layer) -> Tensor:
    """w [units, ...] of the equivalent plain layer; the layer's own w if there is no such layer."""
    try:
        return layer.fold()[0]
    except NotImplementedError:
        return _weight(layer)


@torch.no_grad()
def spectral_norm(weight: Tensor) -> float:
    """The largest singular value of w [units, ...] as a matrix [units, inputs]; NaN if a weight is not finite.

    For a convolution, that is the norm of the operator from one patch of the input to one position of the output. The
    norm of the operator on whole images depends on their size and the stride; it is at most k times as large for k x k
    kernels. It is computed in float64 from the smaller Gram matrix, with a relative error of about 1e-8.
    """
    matrix = weight.flatten(1).double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    if not gram.isfinite().all():  # LAPACK would raise
        return math.nan
    return math.sqrt(max(torch.linalg.eigvalsh(gram)[-1].item(), 0.0))


@torch.no_grad()
def feature_rank(features: Tensor) -> float:
    """srank of features [B, F]: the number of largest singular values that make up `RANK_SHARE` of their sum.

    Kumar et al. 2021. 0 for features that are all 0; NaN if one is not finite.
    """
    if not features.isfinite().all():  # LAPACK would raise
        return math.nan
    # Use numpy's cumulative sum: torch's has no deterministic GPU kernel, and raises in deterministic mode.
    sums = torch.linalg.svdvals(features.double()).cpu().numpy().cumsum()
    return float((sums < RANK_SHARE * sums[-1]).sum() + 1) if sums[-1] > 0.0 else 0.0


def dormant_share(activation: Tensor) -> float:
    """The share of dormant units for activations [B, units, ...] (Sokar et al. 2023, ReDo).

    A unit is dormant if s_i = E|h_i| / mean_k E|h_k| is at most `DORMANT_BELOW`. The expectation is over the batch,
    and the positions for a convolution. If all activations are 0, all units are dormant.
    """
    size = activation.abs().transpose(0, 1).flatten(1).mean(dim=1)
    return (size <= DORMANT_BELOW * size.mean()).float().mean().item()


def churn(before: Tensor, after: Tensor) -> float:
    """The share of states whose greedy action differs between Q-values [B, A] before and after (Schaul et al. 2022)."""
    return (before.argmax(dim=1) != after.argmax(dim=1)).float().mean().item()


def mean_relative_norm(change: Tensor, weight: Tensor) -> float:
    """Mean over units of ||change||/||weight||, both [units, ...]; NaN if a weight vector is zero.

    For an update of v, this is the effective learning rate of the direction. ||v|| grows in training, so that a step of
    the same size rotates v less and less (Salimans & Kingma 2016, section 2.1).
    """
    return float((change.flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)).mean())


def mean_angle_degrees(before: Tensor, after: Tensor) -> float:
    """Mean over units of the angle between two weight vectors, [units, ...] each; NaN if one is zero.

    It uses the half-angle formula 2 atan2(|a - b|, |a + b|) of unit vectors a, b (Kahan 2006, section 12), because the
    angle of one update is so small that its cosine rounds to 1.
    """
    a, b = (w.flatten(1) / w.flatten(1).norm(dim=1, keepdim=True) for w in (before, after))
    angle = 2.0 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))
    return math.degrees(angle.mean().item())


def activation_metrics(
    network: nn.Module, layers: Mapping[str, Layer], obs: Tensor, rank_of: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """`ACTIVATION_METRICS` of each layer's output for `obs` [B, ...], in evaluation mode, before the ReLU.

    Mean and standard deviation (1/N) of a unit are over the batch, and the positions for a convolution. Their means
    over units are 0 and 1 right after the data-dependent initialization. A dead unit is 0 after the ReLU for the whole
    batch, and so has no gradient. The layers in `rank_of` also have `RANK_METRIC`, of their input.
    """
    metrics: dict[str, dict[str, float]] = {}

    def measure(name: str) -> Hook:
        def hook(_layer: object, inputs: Any, t: Tensor) -> None:
            others = [0, *range(2, t.ndim)]
            var, mean = torch.var_mean(t, dim=others, correction=0)
            dead = t.amax(dim=others) <= 0.0
            shares = dead.float().mean().item(), dormant_share(t.relu())
            values = mean.mean().item(), var.sqrt().mean().item(), *shares
            metrics[name] = dict(zip(ACTIVATION_METRICS, values, strict=True))
            if name in rank_of:
                metrics[name][RANK_METRIC] = feature_rank(inputs[0].flatten(1))

        return hook

    forward_with_hooks(network, obs, {layer: measure(name) for name, layer in layers.items()})
    return metrics


def td_metrics(td_error: Tensor) -> dict[str, float]:
    """`TD_METRICS` of TD errors [B]: the mean of |d|, and the share with |d| > 1, which the Huber loss clips."""
    size = td_error.abs()
    return dict(zip(TD_METRICS, (size.mean().item(), (size > 1.0).float().mean().item()), strict=True))
