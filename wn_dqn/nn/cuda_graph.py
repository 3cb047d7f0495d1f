"""A function of tensors, replayed from a CUDA graph: the same inputs, the same outputs, one launch.

The network is small. In eager mode, a GPU spends most of an update waiting for the launches of a hundred kernels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

Outputs = TypeVar("Outputs", bound=tuple[Tensor, ...])

WARM_UP_CALLS = 3
"""number of eager calls before the capture, in which libraries allocate workspaces and the optimizer its state"""


class CudaGraph(Generic[Outputs]):
    """Calls `function`, which may depend only on its inputs and on tensors that are changed in place.

    Every set of input shapes has its own graph. Eager calls have the same effect as replayed ones: a function that
    changes parameters changes them once per call. Outputs are in the graph's memory, and the next call overwrites them.
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
        # Use the stream of the capture: autograd remembers the stream on which a parameter first got a gradient.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs


@contextlib.contextmanager
def beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the work inside on `stream`, concurrently with the code after it, until :func:`wait_for`.

    If `stream` is None, the work runs in the usual order. In a CUDA graph it becomes a branch. Results are the same.
    """
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


def wait_for(stream: torch.cuda.Stream | None) -> None:
    """Make the following work wait for the work on `stream`."""
    if stream is not None:
        torch.cuda.current_stream().wait_stream(stream)


class _Captured(Generic[Outputs]):
    def __init__(self, function: Callable[..., Outputs], inputs: tuple[Tensor, ...], stream: torch.cuda.Stream) -> None:
        self._inputs = tuple(torch.empty_like(each, memory_format=torch.contiguous_format) for each in inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):  # records the function without running it
            self._outputs = function(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> Outputs:
        """The outputs for `inputs` of the captured shapes, in the graph's memory."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._outputs
