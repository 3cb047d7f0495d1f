"""Text for a person."""

from __future__ import annotations

import pytest

from wn_dqn.system.text import time_text


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (16.3 / 3600, "16 seconds"),
        (119 / 3600, "119 seconds"),
        (0.5, "30 minutes"),
        (2.0, "2.0 hours"),
        (47.9, "47.9 hours"),
        (76.8, "3.2 days"),
    ],
)
def test_a_time_in_the_unit_that_a_person_would_choose(hours: float, text: str) -> None:
    assert time_text(hours) == text
