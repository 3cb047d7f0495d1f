"""The optimizers against a scalar reference and torch's own, and the round trip of their state."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wn_dqn.config.schema import OptimizerSettings
from wn_dqn.nn.optimizers import OPTIMIZERS, Adamax, RMSpropNature, load_optimizer_state, optimizer_state

SHAPES = [(8, 4, 3, 3), (5, 8), (5,)]
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def settings(name: str, **values: Any) -> OptimizerSettings:
    return OptimizerSettings(name=name, **{"learning_rate": 1e-3, "beta1": 0.5, "epsilon": 0.01, **values})


def parameters(memory_format: torch.memory_format = torch.contiguous_format) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [nn.Parameter(tensor.to(memory_format=memory_format) if tensor.ndim == 4 else tensor) for tensor in tensors]


def train(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    """Steps along gradients that depend on nothing but the step's number."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in params:
            param.grad = torch.empty_like(param).copy_(torch.randn(param.shape, generator=generator))
        optimizer.step()


def gradient(step: int) -> float:
    """Noise around a trend, with a run of zeros."""
    return 0.0 if 40 <= step < 50 else 0.5 + math.sin(step**2)


def test_rmsprop_nature_equals_a_scalar_reference() -> None:
    lr, rho, epsilon = 0.01, 0.95, 0.01
    param = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))
    optimizer = RMSpropNature([param], lr, rho, epsilon)
    x, mean, square = 0.3, 0.0, 0.0
    for step in range(100):
        d = gradient(step)
        param.grad = torch.tensor([d], dtype=torch.float64)
        optimizer.step()
        mean = rho * mean + (1 - rho) * d
        square = rho * square + (1 - rho) * d**2
        x -= lr * d / math.sqrt(square - mean**2 + epsilon)
        assert param.item() == pytest.approx(x, rel=1e-13)


def test_rmsprop_nature_is_not_torch_rmsprop() -> None:
    """The first step: 0.1 / sqrt(0.05 - 0.05^2 + 0.01) against 0.1 / (sqrt(0.05 - 0.05^2) + 0.01)."""
    ours, theirs = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    ours.grad = theirs.grad = torch.ones(1)
    RMSpropNature([ours], lr=0.1, rho=0.95, epsilon=0.01).step()
    torch.optim.RMSprop([theirs], lr=0.1, alpha=0.95, eps=0.01, centered=True).step()
    assert ours.item() == pytest.approx(-0.1 / math.sqrt(0.0575), rel=1e-6)
    assert theirs.item() == pytest.approx(-0.1 / (math.sqrt(0.0475) + 0.01), rel=1e-6)


def test_rmsprop_nature_updates_every_element_on_its_own() -> None:
    """Whatever the shapes and memory formats, and parameters without a gradient are left alone."""
    params, lonely = parameters(torch.channels_last), nn.Parameter(torch.ones(2))
    elements = [nn.Parameter(value.detach().clone()) for param in parameters() for value in param.flatten()[:3]]
    optimizer = RMSpropNature([*params, lonely], lr=0.01, rho=0.9, epsilon=0.1)
    element_optimizer = RMSpropNature(elements, lr=0.01, rho=0.9, epsilon=0.1)
    for step in range(5):
        train(optimizer, params, range(step, step + 1))
        grads = [value for param in params for value in param.grad.flatten()[:3]]  # type: ignore[union-attr]
        for element, grad in zip(elements, grads, strict=True):
            element.grad = grad.clone()
        element_optimizer.step()
    moved = torch.stack([value for param in params for value in param.flatten()[:3]])
    torch.testing.assert_close(moved, torch.stack(elements), rtol=1e-6, atol=1e-7)  # type: ignore[arg-type]
    assert lonely.tolist() == [1.0, 1.0]


def test_adamax_is_torchs_with_the_papers_momentum() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = OPTIMIZERS["adamax"](ours, OptimizerSettings(learning_rate=3e-4, beta1=0.5, epsilon=1e-8))
    assert type(optimizer) is Adamax
    assert {key: optimizer.defaults[key] for key in ("lr", "betas", "eps", "weight_decay", "maximize")} == {
        "lr": 3e-4,
        "betas": (0.5, 0.999),
        "eps": 1e-8,
        "weight_decay": 0,
        "maximize": False,
    }
    train(optimizer, ours, range(20))
    train(torch.optim.Adamax(theirs, lr=3e-4, betas=(0.5, 0.999), eps=1e-8, foreach=False), theirs, range(20))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(512, 3136), (70_001,), (64, 32, 40, 40)])
def test_adamax_has_the_bits_of_torchs(shape: tuple[int, ...]) -> None:
    """Also where a second thread helps; one dimension, channels last."""
    generator = torch.Generator().manual_seed(0)
    memory_format = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    start = torch.randn(shape, generator=generator).to(memory_format=memory_format)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = OPTIMIZERS["adamax"]([ours], OptimizerSettings(learning_rate=3e-4, beta1=0.5, epsilon=1e-8))
    reference = torch.optim.Adamax([theirs], lr=3e-4, betas=(0.5, 0.999), eps=1e-8, foreach=False)
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=generator).to(memory_format=memory_format)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    assert torch.equal(ours, theirs)
    for key, value in reference.state[theirs].items():
        assert torch.equal(optimizer.state[ours][key], value), key


def test_adamax_by_hand() -> None:
    """m = (1 - b1) sum of b1^k d, corrected by 1 - b1^t; u = max(b2 u, |d| + epsilon); x -= lr m / u."""
    param = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = OPTIMIZERS["adamax"]([param], settings("adamax", learning_rate=0.1, epsilon=1e-8))
    x, m, u = 0.0, 0.0, 0.0
    for step in range(100):
        d = gradient(step)
        param.grad = torch.tensor([d], dtype=torch.float64)
        optimizer.step()
        m, u = 0.5 * m + 0.5 * d, max(0.999 * u, abs(d) + 1e-8)
        x -= 0.1 * m / (1 - 0.5 ** (step + 1)) / u
        assert param.item() == pytest.approx(x, rel=1e-12)


def test_adamax_salimans_equals_a_scalar_reference() -> None:
    """m = b1 m + (1 - b1) d, not corrected; u = max(b2 u, |d|); x -= lr m / (u + 1e-6)."""
    param = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))
    optimizer = OPTIMIZERS["adamax-salimans"]([param], settings("adamax-salimans", learning_rate=0.01, epsilon=1e-6))
    x, m, u = 0.3, 0.0, 0.0
    for step in range(100):
        d = gradient(step) * (1e-6 if step < 20 else 1.0)  # first as small as epsilon
        param.grad = torch.tensor([d], dtype=torch.float64)
        optimizer.step()
        m, u = 0.5 * m + 0.5 * d, max(0.999 * u, abs(d))
        x -= 0.01 * m / (u + 1e-6)
        assert param.item() == pytest.approx(x, rel=1e-13)


def test_adamax_salimans_differs_from_torchs_by_the_bias_correction() -> None:
    """With large gradients its first step is half torch's, and after many steps they are the same."""
    steps = {}
    for name in ("adamax", "adamax-salimans"):
        param = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = OPTIMIZERS[name]([param], settings(name, learning_rate=0.1, epsilon=1e-6))
        positions = [0.0]
        for _ in range(40):
            param.grad = torch.full((1,), 100.0, dtype=torch.float64)
            optimizer.step()
            positions.append(param.item())
        steps[name] = [after - before for before, after in pairwise(positions)]
    assert steps["adamax-salimans"][0] == pytest.approx(0.5 * steps["adamax"][0], rel=1e-6)
    assert steps["adamax-salimans"][-1] == pytest.approx(steps["adamax"][-1], rel=1e-6)


@pytest.mark.parametrize("name", ["rmsprop-nature", "adamax-salimans"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_own_optimizers_wait_for_no_device(name: str) -> None:
    """Nothing of a step needs the host to know a number, so that a step can be captured in a graph."""
    params = [nn.Parameter(param.detach().cuda()) for param in parameters()]
    optimizer = OPTIMIZERS[name](params, settings(name))
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("adam", lambda params: torch.optim.Adam(params, lr=1e-3, betas=(0.5, 0.999), eps=0.01, foreach=False)),
        ("sgd", lambda params: torch.optim.SGD(params, lr=1e-3, foreach=False)),
    ],
)
def test_the_others_are_torchs(name: str, oracle: Any) -> None:
    ours, theirs = parameters(), parameters()
    train(OPTIMIZERS[name](ours, settings(name)), ours, range(20))
    train(oracle(theirs), theirs, range(20))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-7)


def test_rmsprop_nature_takes_its_settings() -> None:
    optimizer = OPTIMIZERS["rmsprop-nature"](
        parameters(), settings("rmsprop-nature", learning_rate=2.5e-4, rho=0.9, epsilon=0.02)
    )
    assert type(optimizer) is RMSpropNature
    assert optimizer.defaults == {"lr": 2.5e-4, "rho": 0.9, "epsilon": 0.02}


@each_optimizer
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
def test_a_restored_optimizer_continues_bit_for_bit(name: str, memory_format: torch.memory_format) -> None:
    params = parameters(memory_format)
    optimizer = OPTIMIZERS[name](params, settings(name))
    train(optimizer, params, range(5))
    saved = {index: clones(tensors) for index, tensors in optimizer_state(optimizer).items()}
    copies = [nn.Parameter(param.detach().clone()) for param in params]
    restored = OPTIMIZERS[name](copies, settings(name))
    load_optimizer_state(restored, saved)
    for param, state in restored.state.items():
        for tensor in state.values():
            assert tensor.stride() == param.stride() or tensor.ndim == 0
    untouched = {index: clones(tensors) for index, tensors in saved.items()}
    train(optimizer, params, range(5, 12))
    train(restored, copies, range(5, 12))
    for param, copy in zip(params, copies, strict=True):
        assert torch.equal(param, copy)
    assert list(saved) == ([] if name == "sgd" else ["0", "1", "2"])  # plain gradient descent remembers nothing
    assert_same(optimizer_state(restored), optimizer_state(optimizer))
    assert_same(saved, untouched)  # the restored optimizer works on tensors of its own


def clones(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, as a file gives them back."""
    return {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}


def assert_same(state: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> None:
    assert list(state) == list(other)
    for index, tensors in state.items():
        assert tensors.keys() == other[index].keys()
        assert all(torch.equal(tensor, other[index][key]) for key, tensor in tensors.items())


@each_optimizer
def test_the_state_holds_no_settings(name: str) -> None:
    """A resumed run takes them from its config."""
    params = parameters()
    optimizer = OPTIMIZERS[name](params, settings(name, learning_rate=0.1))
    assert optimizer_state(optimizer) == {}
    train(optimizer, params, range(2))
    other = OPTIMIZERS[name](parameters(), settings(name, learning_rate=0.2))
    load_optimizer_state(other, optimizer_state(optimizer))
    assert [group["lr"] for group in other.param_groups] == [0.2]
    load_optimizer_state(other, {})
    assert optimizer_state(other) == {}
