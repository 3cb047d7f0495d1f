"""Weight-normalized layers against torch's own weight norm, the paper's equations and hand-computed training."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from wn_dqn.nn.weight_norm import WeightNormConv2d, WeightNormLinear, first_order, norm_of

Layer = WeightNormLinear | WeightNormConv2d


class Case(NamedTuple):
    make: Callable[..., Layer]
    """the layer under test, given a dtype"""
    make_plain: Callable[..., nn.Module]
    """torch's layer of the same shape"""
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    """x, w, b -> y"""
    input_shape: tuple[int, ...]


CASES = {
    "linear": Case(
        lambda **kw: WeightNormLinear(7, 5, **kw),
        lambda **kw: nn.Linear(7, 5, **kw),
        F.linear,
        (6, 7),
    ),
    "conv": Case(
        lambda **kw: WeightNormConv2d(2, 3, 3, **kw),
        lambda **kw: nn.Conv2d(2, 3, 3, **kw),
        F.conv2d,
        (2, 2, 5, 4),
    ),
    "strided padded conv": Case(
        lambda **kw: WeightNormConv2d(2, 3, 4, stride=2, padding=1, **kw),
        lambda **kw: nn.Conv2d(2, 3, 4, stride=2, padding=1, **kw),
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
        (2, 2, 5, 6),
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Such small tensors spend their time waiting for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def randomized(layer: Layer, seed: int = 1) -> Layer:
    """The layer with normally distributed parameters."""
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(random(*parameter.shape, seed=10 * seed + i))
    return layer


def make(case: Case, dtype: torch.dtype = torch.float64, seed: int = 1) -> Layer:
    return randomized(case.make(dtype=dtype), seed)


def backward(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and dL/dx for L = sum(sin(y)); leaves the parameters' gradients in the layer."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.sin().sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


def per_unit(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product per output unit."""
    return (a * b).flatten(1).sum(dim=1)


@each_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=["f32", "f64"])
def test_equals_torch_weight_norm_in_value_and_gradient(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    layer = make(case, dtype)
    oracle: Any = weight_norm(case.make_plain(dtype=dtype))
    with torch.no_grad():
        oracle.parametrizations.weight.original0.copy_(per_unit(layer.g, layer.v))
        oracle.parametrizations.weight.original1.copy_(layer.v)
        oracle.bias.copy_(layer.bias)
    x = random(*case.input_shape, dtype=dtype)
    y, dx = backward(layer, x)
    oracle_y, oracle_dx = backward(oracle, x)
    parametrization = oracle.parametrizations.weight
    pairs = {
        "y": (y, oracle_y),
        "w": (layer.weight, oracle.weight),
        "dL/dx": (dx, oracle_dx),
        "dL/dg": (layer.g.grad, parametrization.original0.grad.flatten()),
        "dL/dv": (layer.v.grad, parametrization.original1.grad),
        "dL/db": (layer.bias.grad, oracle.bias.grad),
    }
    for name, (ours, theirs) in pairs.items():
        scale = theirs.abs().max().item()  # of the tensor: float32 rounds sums by their largest terms
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(scale, 1.0), msg=f"{name} differs")


@each_case
def test_gradients_are_equation_3(case: Case) -> None:
    layer = make(case)
    x = random(*case.input_shape)
    _, dx = backward(layer, x)
    v, g = layer.v.detach(), layer.g.detach()
    v_norm = v.flatten(1).square().sum(dim=1).sqrt()
    w = (per_unit(g / v_norm, v) * v).requires_grad_()
    b, x = layer.bias.detach().requires_grad_(), x.requires_grad_()
    case.apply(x, w, b).sin().sum().backward()
    dw = w.grad
    dg = dot(dw, v) / v_norm
    dv = per_unit(g / v_norm, v) * dw - per_unit(g * dg / v_norm**2, v) * v
    for ours, by_hand in ((layer.g.grad, dg), (layer.v.grad, dv), (layer.bias.grad, b.grad), (dx, x.grad)):
        torch.testing.assert_close(ours, by_hand, rtol=1e-12, atol=1e-12)


@each_case
def test_weight_has_norm_g_and_the_direction_of_v(case: Case) -> None:
    layer = make(case)
    w = layer.weight.detach()
    torch.testing.assert_close(w.flatten(1).norm(dim=1), layer.g.detach().abs())
    torch.testing.assert_close(layer.v_norm().detach(), layer.v.detach().flatten(1).norm(dim=1))
    cosine = dot(w, layer.v.detach()) / (w.flatten(1).norm(dim=1) * layer.v_norm().detach())
    torch.testing.assert_close(cosine, layer.g.detach().sign())


@each_case
def test_gradient_of_v_is_orthogonal_to_v(case: Case) -> None:
    layer = make(case)
    backward(layer, random(*case.input_shape))
    dv, v = layer.v.grad, layer.v.detach()
    assert dv is not None
    assert dv.flatten(1).norm(dim=1).min() > 1e-3
    cosine = dot(dv, v) / (dv.flatten(1).norm(dim=1) * v.flatten(1).norm(dim=1))
    assert cosine.abs().max() < 1e-13


@each_case
@given(scale=st.floats(1e-3, 1e3))
def test_scaling_v_leaves_the_function_and_scales_its_gradient_inversely(case: Case, scale: float) -> None:
    layer, scaled = make(case), make(case)
    with torch.no_grad():
        scaled.v.mul_(scale)
    x = random(*case.input_shape)
    y, dx = backward(layer, x)
    scaled_y, scaled_dx = backward(scaled, x)
    torch.testing.assert_close(scaled_y, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scaled_dx, dx, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scaled.g.grad, layer.g.grad, rtol=1e-12, atol=1e-12)
    assert scaled.v.grad is not None
    torch.testing.assert_close(scaled.v.grad * scale, layer.v.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_training_equals_hand_computed_updates(kind: str) -> None:
    """Ten steps of SGD on half the squared error, beside NumPy; the convolution's kernel is as large as its input."""
    n, out, lr = 8, 3, 0.02
    layer: Layer
    if kind == "linear":
        layer, shape = WeightNormLinear(12, out, dtype=torch.float64), (n, 12)
    else:
        layer, shape = WeightNormConv2d(3, out, 2, dtype=torch.float64), (n, 3, 2, 2)
    randomized(layer)
    x, y = random(*shape, seed=5), random(n, out, seed=6)
    v, g, b = (p.detach().reshape(out, -1).squeeze(1).numpy().copy() for p in (layer.v, layer.g, layer.bias))
    rows, targets = x.flatten(1).numpy(), y.numpy()
    optimizer = torch.optim.SGD(layer.parameters(), lr)
    for _ in range(10):
        optimizer.zero_grad()
        ((layer(x).flatten(1) - y) ** 2).sum().div(2).backward()
        optimizer.step()
        norm = np.sqrt((v**2).sum(axis=1))
        w = (g / norm)[:, None] * v
        error = rows @ w.T + b - targets
        dw = error.T @ rows
        dg = (dw * v).sum(axis=1) / norm
        dv = (g / norm)[:, None] * dw - (g * dg / norm**2)[:, None] * v
        v, g, b = v - lr * dv, g - lr * dg, b - lr * error.sum(axis=0)
    np.testing.assert_allclose(layer.v.detach().flatten(1).numpy(), v, rtol=1e-11)
    np.testing.assert_allclose(layer.g.detach().numpy(), g, rtol=1e-11)
    np.testing.assert_allclose(layer.bias.detach().numpy(), b, rtol=1e-11)


@each_case
def test_gradcheck(case: Case) -> None:
    layer = make(case)
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *parameters: Tensor) -> Any:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    inputs = (random(*case.input_shape), *layer.parameters())
    assert torch.autograd.gradcheck(function, tuple(tensor.detach().clone().requires_grad_() for tensor in inputs))


@each_case
def test_gradients_without_a_gradient_of_the_input(case: Case) -> None:
    layer, other = make(case), make(case)
    x = random(*case.input_shape)
    layer(x).sin().sum().backward()
    backward(other, x)
    assert x.grad is None
    for ours, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


@each_case
def test_a_new_layer_is_zero_but_has_a_direction(case: Case) -> None:
    layer = case.make()
    assert not layer(random(*case.input_shape, dtype=torch.float32)).any()
    assert {name: parameter.dtype for name, parameter in layer.named_parameters()} == {
        "v": torch.float32,
        "g": torch.float32,
        "bias": torch.float32,
    }
    assert (layer.v_norm() > 0).all()


@each_case
def test_deepcopy_is_equal_and_independent(case: Case) -> None:
    layer = make(case)
    clone = copy.deepcopy(layer)
    x = random(*case.input_shape)
    y = layer(x).detach()
    assert torch.equal(clone(x), y)
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.add_(1.0)
    assert torch.equal(layer(x), y)
    assert not torch.allclose(clone(x), y)


@each_case
@pytest.mark.parametrize(
    "round_trip",
    [lambda state: pickle.loads(pickle.dumps(state)), lambda state: load_tensors(dump_tensors(state))],
    ids=["pickle", "safetensors"],
)
def test_state_dict_round_trip(case: Case, round_trip: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    layer, other = make(case, torch.float32), make(case, torch.float32, seed=2)
    x = random(*case.input_shape, dtype=torch.float32)
    assert not torch.equal(other(x), layer(x))
    state = round_trip(layer.state_dict())
    assert set(state) == {"v", "g", "bias"}
    other.load_state_dict(state)
    assert torch.equal(other(x), layer(x))


CHANGES: dict[str, Callable[[Layer], Any]] = {
    "an optimizer's step": lambda layer: step(layer),
    "a copy into v": lambda layer: layer.v.detach().copy_(torch.randn_like(layer.v)),
    "v.data": lambda layer: layer.v.data.copy_(torch.randn_like(layer.v)),
    "another v.data": lambda layer: setattr(layer.v, "data", torch.randn_like(layer.v)),
    "numpy": lambda layer: np.copyto(layer.v.detach().numpy(), torch.randn_like(layer.v).numpy()),
    "loading": lambda layer: layer.load_state_dict({**layer.state_dict(), "v": torch.randn_like(layer.v)}),
    "assigning": lambda layer: layer.load_state_dict(
        {**layer.state_dict(), "v": torch.randn_like(layer.v)}, assign=True
    ),
    "another dtype": lambda layer: layer.double(),
    "initialization": lambda layer: layer.set_direction_(torch.randn_like(layer.v)),
}


def step(layer: Layer) -> None:
    layer.v.grad = torch.randn_like(layer.v)
    torch.optim.SGD([layer.v], lr=1.0).step()


@pytest.mark.survives("writes to v that torch does not see", "a layer computes with the v that it has")
@each_case
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_layer_computes_with_the_v_that_it_has(case: Case, change: str, mode: Callable[[], Any]) -> None:
    """However v was changed, counted by torch or not."""
    layer = make(case)
    x = random(*case.input_shape)
    for _ in range(2):
        with mode():
            before = layer(x)
        with torch.no_grad():
            CHANGES[change](layer)
            x = x.to(layer.v.dtype)
            v = layer.v.detach()
            w = v * per_unit(layer.g.detach() / v.flatten(1).norm(dim=1), v)
            expected = case.apply(x, w, layer.bias)
        with mode():
            torch.testing.assert_close(layer(x).detach(), expected)
        assert change == "another dtype" or not torch.allclose(before, expected.to(before.dtype))


def test_scaling_v_behind_torchs_back_changes_nothing() -> None:
    layer = WeightNormLinear(3, 1)
    layer.set_weight_(torch.tensor([[3.0, 4.0, 0.0]]), torch.zeros(1))
    x = torch.tensor([[1.0, 0.0, 0.0]])
    with torch.no_grad():
        assert layer(x).item() == pytest.approx(3.0)
        layer.v.data.mul_(10.0)
        assert layer(x).item() == pytest.approx(3.0)
    with torch.inference_mode():
        assert layer(x).item() == pytest.approx(3.0)
        made_here = WeightNormLinear(3, 1)
        made_here.set_weight_(torch.tensor([[3.0, 4.0, 0.0]]), torch.zeros(1))
        assert made_here(x).item() == pytest.approx(3.0)


@each_case
def test_a_whole_layer_can_be_pickled(case: Case) -> None:
    layer = make(case)
    x = random(*case.input_shape)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("gcc")), reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif(
    os.environ.get("ATEN_CPU_CAPABILITY") == "default",
    reason="torch.compile writes code for vectors, and this setting leaves out what declares them",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize("name", [pytest.param("linear", marks=pytest.mark.thorough), "strided padded conv"])
def test_compiled_layer_is_the_same_function(name: str) -> None:
    case = CASES[name]
    layer = make(case)
    compiled: Any = torch.compile(copy.deepcopy(layer), fullgraph=True)
    x = random(*case.input_shape)
    y, dx = backward(layer, x)
    compiled_y, compiled_dx = backward(compiled, x)
    torch.testing.assert_close(compiled_y, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(compiled_dx, dx, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(compiled.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def functional(layer: Layer) -> Callable[..., Any]:
    """x and the layer's parameters, in their order -> y."""
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *parameters: Tensor) -> Any:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return function


@pytest.mark.survives("second derivatives, and `torch.func`", "as of torch's own weight norm")
@each_case
def test_second_derivatives(case: Case) -> None:
    layer = make(case)
    inputs = [each.detach().clone().requires_grad_() for each in (random(*case.input_shape), *layer.parameters())]
    assert torch.autograd.gradgradcheck(functional(layer), inputs)


def plain_function(x: Tensor, v: Tensor, g: Tensor, bias: Tensor) -> Tensor:
    """What autograd sees of w = g v/||v||."""
    return x @ (v * (g / v.square().sum(dim=1).sqrt()).unsqueeze(1)).T + bias


def test_torch_func_grad_is_autograds() -> None:
    """First and second derivatives, taken by torch.func of torch.func."""
    layer = make(CASES["linear"])
    inputs = (random(6, 7), *(parameter.detach() for parameter in layer.parameters()))

    def loss(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *tensors: function(*tensors).sin().sum()

    def penalty(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        gradients = torch.func.grad(loss(function), argnums=(0, 1, 2, 3))
        return lambda *tensors: sum((each.square().sum() for each in gradients(*tensors)), torch.zeros(()))

    for derived in (loss, penalty):
        ours, theirs = (
            torch.func.grad(derived(function), argnums=(0, 1, 2, 3))(*inputs)
            for function in (functional(layer), plain_function)
        )
        for our, their in zip(ours, theirs, strict=True):
            assert their.abs().max() > 1e-3
            torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mapped", range(4), ids=["x", "v", "g", "bias"])
def test_vmap_is_a_loop(mapped: int) -> None:
    """Over each input alone, of values and of gradients: per-sample gradients, ensembles."""
    layer = make(CASES["linear"])
    inputs = [random(6, 7), *(parameter.detach() for parameter in layer.parameters())]
    inputs[mapped] = torch.stack([inputs[mapped], 2 * inputs[mapped] + 1, inputs[mapped] - 3])
    in_dims = tuple(0 if i == mapped else None for i in range(4))
    gradients = torch.func.grad(lambda *tensors: functional(layer)(*tensors).sin().sum(), argnums=(0, 1, 2, 3))
    for function in (functional(layer), gradients):
        together = torch.func.vmap(function, in_dims)(*inputs)
        for i in range(3):
            alone = function(*(each[i] if j == mapped else each for j, each in enumerate(inputs)))
            for ours, theirs in zip(together, alone, strict=True) if isinstance(alone, tuple) else [(together, alone)]:
                torch.testing.assert_close(ours[i], theirs, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_the_same_whether_or_not_it_is_differentiated_again() -> None:
    first, second = make(CASES["linear"], torch.float32), make(CASES["linear"], torch.float32)
    x = random(6, 7, dtype=torch.float32)
    first(x).sin().sum().backward()
    gradients = torch.autograd.grad(second(x).sin().sum(), list(second.parameters()), create_graph=True)
    for parameter, gradient in zip(first.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: WeightNormLinear(5, 3), lambda: WeightNormConv2d(2, 3, 2)])
def test_a_held_norm_is_the_norm_until_it_is_held_again(make: Any) -> None:
    """And no longer than the next `set_direction_` or `set_weight_`."""
    layer, generator = make(), torch.Generator().manual_seed(0)
    layer.set_direction_(torch.randn(layer.direction_shape, generator=generator))
    norm = layer.v_norm().clone()
    layer.hold_()
    with torch.no_grad():
        layer.v.mul_(2.0)
    assert torch.equal(layer.v_norm(), norm)
    layer.hold_()
    assert torch.equal(layer.v_norm(), norm_of(layer.v))
    layer.set_weight_(torch.randn(layer.direction_shape, generator=generator), torch.zeros(3))
    assert torch.equal(layer.v_norm(), norm_of(layer.v))


@pytest.mark.parametrize("channels_last", [False, True])
@given(out=st.integers(1, 5), fan_in=st.integers(1, 6), batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_first_order_is_the_same_function_and_gradient(
    channels_last: bool, out: int, fan_in: int, batch: int, seed: int
) -> None:
    """Against the plain formula in float64, with a unit of weight zero among the others."""
    generator = torch.Generator().manual_seed(seed)
    for layer, x in (
        (WeightNormLinear(fan_in, out), torch.randn(batch, fan_in, generator=generator)),
        (WeightNormConv2d(fan_in, out, 2), torch.randn(batch, fan_in, 3, 3, generator=generator)),
    ):
        weight = torch.randn(layer.v.shape, generator=generator)
        weight[0] = 0.0
        layer.set_weight_(weight, torch.randn(out, generator=generator))
        if channels_last:
            layer.to(memory_format=torch.channels_last) if layer.v.ndim == 4 else None
        exact = copy.deepcopy(layer).double()
        with first_order():
            y = layer(x)
        dy = torch.randn(y.shape, generator=generator)
        y.backward(dy)
        exact(x.double()).backward(dy.double())
        torch.testing.assert_close(y.double(), exact(x.double()), rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(layer.parameters(), exact.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5)


def test_first_order_ends_with_its_block_and_belongs_to_its_thread() -> None:
    """Otherwise a second derivative, here of another thread, would be wrong in silence."""
    layer = WeightNormConv2d(2, 3, 2)
    layer.set_direction_(torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0)))

    def operation() -> str:
        return type(layer.weight.grad_fn).__name__

    seen: list[str] = []
    with contextlib.suppress(ZeroDivisionError), first_order():
        assert "WeightNorm" in operation()
        thread = threading.Thread(target=lambda: seen.append(operation()))
        thread.start()
        thread.join()
        raise ZeroDivisionError
    assert seen == ["MulBackward0"]
    assert operation() == "MulBackward0"
