"""What the training loop does when: periods, schedules and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPlan:
    """All numbers that the loop knows. Steps are agent steps, summed over all environments."""

    seed: int
    total_steps: int
    start_steps: int
    """steps of random play before learning starts"""
    update_period_steps: int
    """one update per so many transitions, whatever the number of environments"""
    target_period_updates: int
    epoch_steps: int
    """an evaluation follows each epoch"""
    log_period_steps: int
    checkpoint_period_steps: int
    init_batch_size: int
    """transitions in the batch of the initialization"""
    held_out_states: int
    """states on which mean max-Q is followed"""
    epsilon: Callable[[int], float]
    """of the exploring policy, as a function of the step"""
    learning_rate: Callable[[int], float] | None = None
    """as a function of the step; None: as the optimizer was made"""
    normalize_observations: bool = False
    """whether the network is kept told of the mean and variance of what the training games have shown"""
    curvature_products: int = 0
    """of the loss's Hessian with a vector, at each evaluation; 0: curvature is not measured"""
