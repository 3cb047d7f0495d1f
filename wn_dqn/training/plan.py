"""The plan of the training loop: periods, schedules and the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPlan:
    """All numbers of the loop. Steps are agent steps, summed over all environments."""

    seed: int
    total_steps: int
    start_steps: int
    """steps of random play before learning starts"""
    update_period_steps: int
    """one update per this number of transitions, for any number of environments"""
    target_period_updates: int
    epoch_steps: int
    """an evaluation follows each epoch"""
    log_period_steps: int
    checkpoint_period_steps: int
    init_batch_size: int
    """transitions in the batch of the initialization"""
    held_out_states: int
    """number of states on which mean max-Q is measured"""
    epsilon: Callable[[int], float]
    """epsilon of the exploring policy, as a function of the step"""
    learning_rate: Callable[[int], float] | None = None
    """the learning rate as a function of the step; None leaves the optimizer's"""
    normalize_observations: bool = False
    """whether the network normalizes observations by their running mean and variance"""
    curvature_products: int = 0
    """number of Hessian-vector products at each evaluation; 0 turns the measurement of curvature off"""
