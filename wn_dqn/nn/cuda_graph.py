"""A function of tensors, replayed from a CUDA graph: the same inputs, the same outputs, one launch.

The network is small: eagerly, a GPU spends most of an update waiting for a hundred kernels to be launched one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

Outputs = TypeVar("Outputs", bound=tuple[Tensor, ...])

WARM_UP_CALLS = 3
"""Calls that run eagerly before one is captured: libraries allocate their workspaces, the optimizer its state."""


class CudaGraph(Generic[Outputs]):
    """Calls `function`, which must depend on nothing but its inputs and on tensors that are changed in place.

    Every set of input shapes has a graph of its own. All calls, the eager ones too, are real: a function that changes
    parameters changes them once per call. Outputs are the graph's own memory: the next call overwrites them.
    """

    def __init__(self, function: Callable[..., Outputs]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._captured: dict[tuple[torch.Size, ...], _Captured[Outputs]] = {}
        self._eager_calls: dict[tuple[torch.Size, ...], int] = {}

    def __call__(self, *inputs: Tensor) -> Outputs:
        shapes = tuple(each.shape for each in inputs)
        captured = self._captured.get(shapes)
        if captured is None:
            calls = self._eager_calls[shapes] = self._eager_calls.get(shapes, 0) + 1
            if calls <= WARM_UP_CALLS:
                return self._eagerly(inputs)
            captured = self._captured[shapes] = _Captured(self._function, inputs, self._stream)
        return captured.replay(inputs)

    def _eagerly(self, inputs: tuple[Tensor, ...]) -> Outputs:
        # On the stream that captures: autograd remembers the stream on which a parameter first got a gradient.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs


@contextlib.contextmanager
def beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Work that runs on `stream` beside what follows, until :func:`wait_for`; in its turn if there is no stream.

    In a CUDA graph it becomes a branch. No result depends on it.
    """
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


def wait_for(stream: torch.cuda.Stream | None) -> None:
    """What follows begins when the work on `stream` is done."""
    if stream is not None:
        torch.cuda.current_stream().wait_stream(stream)


class _Captured(Generic[Outputs]):
    def __init__(self, function: Callable[..., Outputs], inputs: tuple[Tensor, ...], stream: torch.cuda.Stream) -> None:
        self._inputs = tuple(torch.empty_like(each, memory_format=torch.contiguous_format) for each in inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):  # records, and runs nothing
            self._outputs = function(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Outputs:
        """The outputs for `inputs` of the captured shapes: the graph's own memory."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._outputs
