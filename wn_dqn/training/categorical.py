"""The pure mathematics of C51: Q-learning of distributions (Bellemare, Dabney & Munos 2017, section 4).

Shapes: B transitions, A actions, N atoms. The distribution of the return of an action is softmax(logits) on the atoms
of a :class:`wn_dqn.nn.value_distribution.Support`; its mean is the Q-value.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from wn_dqn.nn.value_distribution import Support
from wn_dqn.training.q_learning import Reduction, reduced


def categorical_target(
    reward: Tensor, discount: Tensor, next_logits: Tensor, choosing_q: Tensor, support: Support
) -> Tensor:
    """Target probabilities [B, N]: r + discount Z(s', a*), projected onto the atoms (algorithm 1).

    `reward` and `discount` are [B], `next_logits` [B, A, N]. a* is the action with the largest `choosing_q` [B, A]. In
    C51 these are the same network's Q-values, in Double C51 the online network's. If `discount` is 0, all probability
    is at r.
    """
    probabilities = chosen(next_logits, choosing_q.argmax(dim=1)).softmax(dim=1)
    returns = reward.unsqueeze(1) + discount.unsqueeze(1) * support.atoms(probabilities)
    return project(returns, probabilities, support)


def project(returns: Tensor, probabilities: Tensor, support: Support) -> Tensor:
    """Probabilities [B, N] on the atoms, from `probabilities` [B, M] of `returns` [B, M].

    Equation 7: each return is first clipped to [v_min, v_max]. Its probability is then divided between the two
    neighbouring atoms, in proportion to their nearness, which preserves the mean:
    (Phi p)_i = sum_j clip(1 - |[x_j] - z_i| / step, 0, 1) p_j. It is computed as this sum and not by a scatter, so that
    a GPU always adds in the same order.
    """
    place = (returns.clamp(support.v_min, support.v_max) - support.v_min) / support.step  # [B, M], in steps from v_min
    index = Support(0.0, support.num_atoms - 1.0, support.num_atoms).atoms(place)
    share = (1.0 - (place.unsqueeze(2) - index).abs()).clamp_(min=0.0)  # [B, M, N]
    return (share * probabilities.unsqueeze(2)).sum(dim=1)


def divergence(logits: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """The KL divergences [B] of softmax(logits of the action taken) from `target` [B, N]; logits are [B, A, N].

    The gradient equals that of the cross-entropy, which the paper minimizes. Unlike the cross-entropy, the divergence
    is 0 for a perfect prediction. Rainbow uses it as the priority (Hessel et al. 2018, "The integrated agent").
    """
    return F.kl_div(chosen(logits, action).log_softmax(dim=1), target, reduction="none").sum(dim=1)


def categorical_loss(
    logits: Tensor, action: Tensor, target: Tensor, *, reduction: Reduction, weight: Tensor | None = None
) -> Tensor:
    """The loss []: :func:`divergence` times `weight` [B], if given, summed or averaged over B.

    With a fixed `reduction`, it is a :class:`wn_dqn.training.q_learning.Loss` of logits [B, A, N] and target
    probabilities [B, N].
    """
    return reduced(divergence(logits, action, target), weight, reduction)


def chosen(logits: Tensor, action: Tensor) -> Tensor:
    """The logits [B, N] of actions int64 [B], from [B, A, N]."""
    return logits.gather(1, action.view(-1, 1, 1).expand(-1, 1, logits.shape[2])).squeeze(1)
