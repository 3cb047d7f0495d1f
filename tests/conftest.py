"""What all tests share: no waiting for the disk, no progress, a small network, and how much is run."""

from __future__ import annotations

import os

# The networks here see a handful of observations at a time, and tests run side by side: a second thread would only
# wait for a core, and sums would depend on how many there are. Programs that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import torch
from small_runs import NATURE, SMALL_NETWORK, network_of

from wn_dqn.config.registry import AGENTS, NETWORKS, PARAMETERIZATIONS
from wn_dqn.system import progress

torch.set_num_threads(1)

# WN_DQN_TESTS=all runs everything (`make test-all`); otherwise tests marked `thorough` are left out, and hypothesis
# tries fewer examples. No example has a time limit: a machine may be slow.
EVERYTHING = os.environ.get("WN_DQN_TESTS") == "all"
TIMELESS: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("daily", max_examples=40, stateful_step_count=10, **TIMELESS)
hypothesis.settings.register_profile("all", max_examples=200, stateful_step_count=15, **TIMELESS)
hypothesis.settings.load_profile("all" if EVERYTHING else "daily")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `make test-all` runs; begin with the long ones where workers share the tests."""
    left_out = [] if EVERYTHING else [item for item in items if item.get_closest_marker("thorough")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    if hasattr(config, "workerinput"):  # a long test that came last would have one worker wait for another
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """`os.fsync` checks its argument and returns.

    It protects from a power cut, which no test can make. Tests of when it is called put a function of their own in its
    place, and programs that tests start have the real one.
    """

    def fsync(descriptor: int) -> None:
        os.fstat(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_progress_lines() -> Iterator[None]:
    """A slow machine prints lines of progress where a fast one prints none. Here none prints any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "LINE_PERIOD_S", float("inf"))
        yield


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """Networks of this module have few units: for tests of what does not depend on the layers' sizes."""
    with network_of(SMALL_NETWORK):
        yield


@pytest.fixture
def nature_network() -> Iterator[None]:
    """The real network, in a module that otherwise has the small one."""
    with network_of(NATURE):
        yield


@pytest.fixture
def own_rows() -> Iterator[None]:
    """What is registered within is gone afterwards."""
    before = [(rows, dict(rows)) for rows in (AGENTS, NETWORKS, PARAMETERIZATIONS)]
    yield
    for rows, saved in before:
        rows.clear()
        rows.update(saved)  # type: ignore[arg-type]
