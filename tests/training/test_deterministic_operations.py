"""No operation of a training is one that torch refuses on a GPU whose kernels have to be deterministic.

tests/gpu trains such runs, where there is a GPU. This is what can be held without one: the names of the operations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL_NETWORK, network_of, settings_for, train
from torch.utils._python_dispatch import TorchDispatchMode

# From the list of torch.use_deterministic_algorithms, "will throw a RuntimeError": on CUDA, names of the dispatcher.
REFUSED = {
    *("cumsum", "cumsum_", "histc", "bincount", "kthvalue", "median", "nanmedian", "put", "put_"),
    *("adaptive_max_pool2d_backward", "max_pool2d_with_indices_backward", "avg_pool3d_backward", "nll_loss2d_forward"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward"),
    *("reflection_pad1d_backward", "replication_pad1d_backward", "replication_pad2d_backward"),
    *("_embedding_bag_dense_backward", "_ctc_loss", "grid_sampler_2d_backward", "scatter_reduce"),
}
RAINBOW = {
    "agent": "double-c51",
    "network": {"dueling": True, "noisy": True},
    "replay": {"priority_exponent": 0.5},
    "learning": {"n_steps": 3, "deterministic": True},
}


class Names(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", [{"learning": {"deterministic": True}}, RAINBOW], ids=["dqn", "rainbow"])
def test_a_training_needs_no_operation_without_a_deterministic_kernel(changes: dict[str, Any], tmp_path: Path) -> None:
    """From the initialization to the last evaluation, every instrument included."""
    settings = settings_for(**changes, evaluation={"curvature_products": 4})
    with network_of(SMALL_NETWORK), Names() as names:
        assert train(settings, tmp_path / "run") == 0
    assert {"convolution_backward", "_linalg_svd"} <= names.seen
    assert not names.seen & REFUSED


def test_a_refused_operation_is_seen() -> None:
    with Names() as names:
        torch.ones(3).cumsum(0)
    assert names.seen & REFUSED == {"cumsum"}
