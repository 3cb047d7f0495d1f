"""What all tests share: one thread, and no line of progress."""

from __future__ import annotations

import os

# The networks here see a handful of observations at a time, and tests run side by side: a second thread would only
# wait for a core. Programs that tests start inherit this. `make test-arithmetics` asks for two all the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import pytest
import torch

from wn_dqn import progress

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def no_progress_lines() -> Iterator[None]:
    """A slow machine prints lines of progress where a fast one prints none. Here none prints any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "LINE_PERIOD_S", float("inf"))
        yield
