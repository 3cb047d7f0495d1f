"""Schedules of agent steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearSchedule:
    """`start` until `begin_steps`, then linear to `end` over `decay_steps`, then constant."""

    start: float
    end: float
    begin_steps: int
    decay_steps: int

    def __call__(self, steps: int) -> float:
        fraction = min(max((steps - self.begin_steps) / self.decay_steps, 0.0), 1.0)
        return (1.0 - fraction) * self.start + fraction * self.end
