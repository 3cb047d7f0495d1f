"""The parts of a sweep that are in both its file and its manifest."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A typed part of a file. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Halving(Part):
    """Successive halving (Jamieson & Talwalkar 2016): the worse cells of each comparison stop early."""

    metric: str = Field(pattern=r"^evaluation/\w+$", description="a column of evaluations.csv; larger is better")
    keep: float = Field(gt=0, lt=1, description="share of the compared settings that continue, rounded up")
    at_steps: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)] = Field(
        description="agent steps at which cells are compared, by the first evaluation there or later"
    )


class Resources(Part):
    """The resources of a cell on a cluster."""

    cpus: int = Field(1, gt=0, description="cores")
    gpus: float = Field(0.0, ge=0, description="number of GPUs, which may be a fraction; SLURM gives whole ones")
    memory_gib: float | None = Field(None, gt=0, description="memory in GiB; null: the plan's estimate")
