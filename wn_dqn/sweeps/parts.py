"""What a sweep file and a manifest both say of a sweep."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A part of a file: typed, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Halving(Part):
    """Successive halving (Jamieson & Talwalkar 2016): the worse cells of each comparison stop early."""

    metric: str = Field(pattern=r"^evaluation/\w+$", description="a column of evaluations.csv; larger is better")
    keep: float = Field(gt=0, lt=1, description="the share of the compared settings that go on, rounded up")
    at_steps: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)] = Field(
        description="agent steps at which cells are compared, by the first evaluation there or later"
    )


class Resources(Part):
    """What a cell takes of a cluster."""

    cpus: int = Field(1, gt=0, description="cores")
    gpus: float = Field(0.0, ge=0, description="a share of a GPU, or several; SLURM gives whole ones")
    memory_gib: float | None = Field(None, gt=0, description="null: what the plan says")
