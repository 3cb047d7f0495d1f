"""It learns: Catch, a small pixel game in Atari's clothes, from its frames. The bars come from learning.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from learning import MECHANISMS, NATURE_NETWORK, mean_return_after_training


@pytest.mark.thorough  # .ci/run runs it with every arithmetic; the narrow network below learns the same every day
@pytest.mark.slow
def test_the_nature_network_solves_catch(tmp_path: Path) -> None:
    """With weight normalization."""
    assert mean_return_after_training(NATURE_NETWORK, 0, tmp_path) >= NATURE_NETWORK.bar


# Rainbow has all of these at once, except that it learns distributions.
OF_RAINBOW = ("Double DQN", "dueling heads", "3-step returns", "prioritized replay")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough if name in OF_RAINBOW else ()) for name in MECHANISMS]
)
def test_catch_is_learned(name: str, tmp_path: Path) -> None:
    """With each parameterization and agent of its own mathematics, by a narrow network."""
    assert mean_return_after_training(MECHANISMS[name], 0, tmp_path) >= MECHANISMS[name].bar
