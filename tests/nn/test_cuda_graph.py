"""CUDA graphs without a GPU: a stand-in records a function's operations once and runs the record ever after.

Whatever depends on Python state, on the host reading a result, or on memory that moves would show here: the record
knows nothing but the tensors it was made with. tests/gpu has the same comparison on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from small_runs import agent_for
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wn_dqn.config.files import make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.nn import kernels
from wn_dqn.nn.cuda_graph import WARM_UP_CALLS, CudaGraph
from wn_dqn.replay.transitions import TransitionBatch
from wn_dqn_agents.dqn import DQN


class FakeGraph:
    """What torch.cuda.CUDAGraph is to a GPU: operations with the memory that they read and write."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        with torch.inference_mode():
            for function, args, kwargs, outputs in self.operations:
                new = tree_leaves(function(*args, **kwargs))
                for old, value in zip(outputs, new, strict=True):
                    if isinstance(old, Tensor) and old is not value and old.data_ptr() != value.data_ptr():
                        old.copy_(value)


class Recorder(TorchDispatchMode):
    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()
        self.graph = graph
        self.changed: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert function is not torch.ops.aten._local_scalar_dense.default, "the host reads a result"
        assert function is not torch.ops.aten.nonzero.default, "a shape depends on values"
        if function._schema.is_mutable or "batch_norm" in function.__name__:  # whose schema hides what it changes
            for tensor in filter(lambda each: isinstance(each, Tensor), tree_leaves((args, kwargs))):
                self.changed.append((tensor, tensor.clone()))
        outputs = function(*args, **kwargs)
        self.graph.operations.append((function, args, kwargs, tree_leaves(outputs)))
        return outputs


@contextmanager
def capture(graph: FakeGraph, stream: object) -> Iterator[None]:
    """Record; and put back what was changed, since a capture runs nothing."""
    with Recorder(graph) as recorder:
        yield
    with torch.inference_mode():
        for tensor, before in reversed(recorder.changed):
            tensor.copy_(before)


class FakeStream:
    def wait_stream(self, other: FakeStream) -> None: ...


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(kernels, "find_kernels", lambda: kernels.Found(None))  # for CPUs only
    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)  # a capture runs nothing, the stand-in's does


def minibatch(number: int, size: int = 4) -> TransitionBatch:
    generator = torch.Generator().manual_seed(number)
    frames = torch.randint(0, 256, (size, 5, 84, 84), dtype=torch.uint8, generator=generator)
    action = torch.randint(0, 3, (size,), generator=generator)
    return TransitionBatch(
        frames[:, :4], action, torch.rand(size, generator=generator), torch.full((size,), 0.9), frames[:, 1:]
    )


def make_agent(param: str, *, dueling: bool = False) -> DQN:
    # Mnih's optimizer: torch's Adamax keeps its count of steps on the host unless it is on a GPU.
    optimizer, network = {"name": "rmsprop-nature"}, {"dueling": dueling}
    settings = make_settings({"game": "Catch", "param": param, "optimizer": optimizer, "network": network})
    agent: DQN = agent_for(settings, 3)
    agent.initialize(minibatch(99, 32).obs)
    return agent


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize(
    ("param", "changed"),
    [
        *((param, "") for param in PARAMETERIZATIONS if param not in ("ws", "ln", "wn-all")),
        ("wn", "dueling"),
        ("wn", "weighted"),
    ],
)
def test_a_graphed_agent_learns_what_an_eager_one_does(param: str, changed: str) -> None:
    eager, graphed = (make_agent(param, dueling=changed == "dueling") for _ in range(2))
    graphed._run_update = CudaGraph(graphed._update)
    for number in range(WARM_UP_CALLS + 5):
        weight = torch.tensor([1.0, 0.1 * number, 0.5, 0.2]) if changed == "weighted" else None
        batch = minibatch(number)._replace(weight=weight)
        expected, given = eager.update(batch), graphed.update(batch)
        torch.testing.assert_close(given.loss, expected.loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(given.mean_q, expected.mean_q, rtol=1e-5, atol=1e-6)
        if number == WARM_UP_CALLS + 2:  # periods stay outside: the graph reads the target network where it is
            eager.update_target()
            graphed.update_target()
    for (name, ours), theirs in zip(graphed.online.named_parameters(), eager.online.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=f"{name} differs")


@pytest.mark.usefixtures("fake_cuda")
def test_a_graph_for_every_shape_and_outputs_that_live_until_the_next_call() -> None:
    total = torch.zeros(())

    def add(x: Tensor, y: Tensor) -> tuple[Tensor]:
        total.add_(x.sum() + y.sum())
        return (x + y,)

    graph = CudaGraph(add)
    for size in (2, 3):
        for call in range(1, WARM_UP_CALLS + 3):
            before = total.item()
            (z,) = graph(torch.full((size,), float(call)), torch.ones(size))
            assert z.tolist() == [call + 1.0] * size
            assert total.item() == before + size * (call + 1)  # every call counts once, the capturing one, too
    (first,) = graph(torch.zeros(2), torch.zeros(2))
    (second,) = graph(torch.ones(2), torch.ones(2))
    assert first is second


@pytest.mark.usefixtures("fake_cuda")
def test_acting_from_a_graph_sees_new_parameters() -> None:
    agent = make_agent("standard")
    agent._run_forward = CudaGraph(agent._forward)
    obs = minibatch(0).obs
    for number in range(WARM_UP_CALLS + 3):
        given = agent.q_values(obs)
        torch.testing.assert_close(given, agent.online(obs), rtol=1e-5, atol=1e-6)
        agent.update(minibatch(number))
        assert not torch.equal(given, agent.online(obs))
