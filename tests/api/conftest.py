"""A run that all tests of the API may read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_runs import SMALL_NETWORK, network_of, settings_for, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 320 steps, evaluated after 120, 240 and 320."""
    folder = tmp_path_factory.mktemp("runs") / "Catch"
    with network_of(SMALL_NETWORK):
        assert train(settings_for(), folder) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(trained, tmp_path / "runs" / "Catch")
