"""The benchmark of the paper's other systems: what it compares is the same model."""

from __future__ import annotations

import math

import pytest
import torch
from load_script import load_script

from wn_dqn.paper.settings import ARMS, make_paper_settings

BENCHMARK = load_script("benchmark_paper")


@pytest.mark.parametrize("system", list(ARMS))
def test_both_models_of_an_arm_have_the_same_weights_and_learn(system: str) -> None:
    """Matrices and convolutions, that is: torch's batch normalization and LSTM have parameters of their own beside."""
    for param in ARMS[system]:
        settings = make_paper_settings(system, param, "official", width=2, glimpses=2, batch_size=4)
        sizes = []
        for ours in (True, False):
            training = BENCHMARK.Training(settings, torch.device("cpu"), ours=ours)
            before = [p.detach().clone() for p in training.system.parameters()]
            assert training.step_s() > 0.0
            after = list(training.system.parameters())
            assert all(p.isfinite().all() for p in after)
            assert any(not torch.equal(p, old) for p, old in zip(after, before, strict=True))
            numels = (p.numel() for p in after if p.ndim > 1 and math.prod(p.shape[1:]) > 1)
            sizes.append(sorted(numels))
        assert sizes[0] == sizes[1], param
