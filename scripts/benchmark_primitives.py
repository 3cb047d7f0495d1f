"""Compares the time of an update with that of the library operations that it needs, for each parameterization.

    python scripts/benchmark_primitives.py
    python scripts/benchmark_primitives.py --params standard,wn --batch 32 --precision bf16

A primitive is one call of torch's own: a convolution or a matrix product, forward for both networks and backward for
the one that learns; ReLU and its gradient; the conversion of frames; one pass of torch's fused AdamW over the
parameters, which moves as many bytes as Adamax; and the normalization of weights or outputs. Each is timed alone, on
tensors with the network's shapes. Updates and primitives alternate, for one parameterization after the other. Ratios
are computed within a round.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wn_dqn.config.files import make_settings
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.envs.atari import atari_spec
from wn_dqn.nn.layers import Layer, layers_of
from wn_dqn.runs.bench import random_batch
from wn_dqn.runs.parts import make_agent
from wn_dqn.system.hardware import num_cores, prepare_torch

SPEC = atari_spec("Space Invaders", map(str, range(6)))
CPU = torch.device("cpu")
aten = torch.ops.aten
Call = Callable[[], object]


def seconds_of(call: Call) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s


def both(size: int | tuple[int, int]) -> list[int]:
    """Height and width."""
    return [size, size] if isinstance(size, int) else list(size)


def products(layer: Layer, x: Tensor, y: Tensor, dtype: torch.dtype, *, first: bool) -> Iterator[Call]:
    """Forward twice, and backward: to the weights, to the bias and, after the first layer, to the input."""
    full = 0.01 * torch.randn(layer.direction_shape)
    x, dy, w, b = (tensor.to(dtype) for tensor in (x, torch.randn_like(y), full, torch.zeros(y.shape[1])))
    if dtype != torch.float32:  # three times: for both networks, and the gradient on its way back
        yield from (lambda: full.to(dtype), lambda: full.to(dtype), lambda: w.float())
    if w.ndim == 2:
        yield from (lambda: F.linear(x, w, b), lambda: F.linear(x, w, b))
        yield from (lambda: dy.t().mm(x), lambda: dy.sum(0), lambda: dy.mm(w))
        return
    stride, padding = (both(getattr(layer, name)) for name in ("stride", "padding"))
    yield from (lambda: F.conv2d(x, w, b, stride, padding), lambda: F.conv2d(x, w, b, stride, padding))
    where = [b.shape[0]], stride, padding, [1, 1], False, [0, 0], 1
    yield lambda: aten.convolution_backward(dy, x, w, *where, [not first, True, True])


def rectifiers(y: Tensor, dtype: torch.dtype) -> Iterator[Call]:
    y, dy = y.to(dtype), torch.randn_like(y).to(dtype)
    yield from (lambda: F.relu_(y), lambda: F.relu_(y), lambda: aten.threshold_backward(dy, y, 0))


def normalized_weights(param: str, w: Tensor) -> Iterator[Call]:
    """w = g v/||v|| and its gradient; or the norm that an update restores; or weight standardization's moments."""
    v, gain = w.detach().clone(), torch.ones(w.shape[0], *[1] * (w.ndim - 1))
    if param in ("wn", "wn-exp", "wn-mean-only-bn", "wn-projected", "wn-all"):
        out, norm = aten._weight_norm_interface(v, gain, 0)
        yield lambda: aten._weight_norm_interface(v, gain, 0)
        yield lambda: aten._weight_norm_interface_backward(out, v, gain, norm, 0)
    if param == "ws":
        rows = v.flatten(1)
        size = [rows.shape[1]]
        _, mean, rstd = aten.native_layer_norm(rows, size, None, None, 0.0)
        yield lambda: aten.native_layer_norm(rows, size, None, None, 0.0)
        yield lambda: aten.native_layer_norm_backward(rows, rows, size, mean, rstd, None, None, [True, False, False])
    if param in ("wn-projected", "wn-all", "ln-wn-projected"):
        yield from (lambda: torch.linalg.vector_norm(v), lambda: torch.mul(v, 1.0))


def normalized_outputs(param: str, y: Tensor, dtype: torch.dtype, *, last: bool) -> Iterator[Call]:
    """Normalization of a layer's outputs, and its gradient; that by layers is in the target network, too."""
    y, dy, units = y.to(dtype), torch.randn_like(y).to(dtype), y.shape[1]
    ones, zeros = torch.ones(units), torch.zeros(units)
    if param in ("bn", "wn-all"):
        _, mean, rstd = aten.native_batch_norm(y, ones, zeros, zeros, ones, True, 0.1, 1e-5)
        yield lambda: aten.native_batch_norm(y, ones, zeros, zeros, ones, True, 0.1, 1e-5)
        yield lambda: aten.native_batch_norm_backward(
            dy, y, ones, zeros, ones, mean, rstd, True, 1e-5, [True, True, True]
        )
    if param in ("mean-only-bn", "wn-mean-only-bn"):
        dims = [dim for dim in range(y.ndim) if dim != 1]
        for tensor in (y, dy):  # y - mean, and its gradient, dy - mean
            yield from (lambda tensor=tensor: tensor.mean(dims, keepdim=True), lambda tensor=tensor: tensor - 1.0)
    if param.startswith("ln") and not last:
        shape = list(y.shape[1:])
        gain, shift = torch.ones(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
        _, mean, rstd = aten.native_layer_norm(y, shape, gain, shift, 1e-5)
        yield lambda: aten.native_layer_norm(y, shape, gain, shift, 1e-5)
        yield lambda: aten.native_layer_norm(y, shape, gain, shift, 1e-5)
        yield lambda: aten.native_layer_norm_backward(dy, y, shape, mean, rstd, gain, shift, [True, True, True])


def spectral(param: str, name: str, w: Tensor) -> Iterator[Call]:
    """One power iteration and the division by sigma, with its gradient, of the one layer that `sn` normalizes."""
    if param == "sn" and name == "hidden":
        v = w.detach().clone()
        yield from (lambda: v @ v[0], lambda: v.t() @ v[:, 0], lambda: v / 2.0, lambda: v / 2.0)


def primitives(network: Any, param: str, obs: Tensor, dtype: torch.dtype) -> list[Call]:
    """All calls that an update of `network` on `obs` [B, *obs_shape] needs."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    layers = layers_of(network)
    hooks = [
        layer.register_forward_hook(lambda _, given, y, name=name: seen.update({name: (given[0].clone(), y.clone())}))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        network(obs)
    for hook in hooks:
        hook.remove()
    calls: list[Call] = [lambda: obs.to(dtype) / 255.0] * 2
    for number, (name, layer) in enumerate(layers.items()):
        x, y = seen[name]
        last, weight = number == len(layers) - 1, torch.randn(layer.direction_shape)
        calls += products(layer, x, y, dtype, first=number == 0)
        calls += normalized_weights(param, weight)
        calls += normalized_outputs(param, y, dtype, last=last)
        calls += spectral(param, name, weight)
        calls += () if last else rectifiers(y, dtype)
    copies = [nn.Parameter(p.detach().clone()) for p in network.parameters()]
    for p in copies:
        p.grad = torch.randn_like(p)
    calls.append(torch.optim.AdamW(copies, fused=True).step)
    return calls


@click.command(help=__doc__)
@click.option("--params", default=",".join(PARAMETERIZATIONS), show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--precision", default="float32", show_default=True, help="float32 or bf16")
@click.option("--rounds", default=30, show_default=True)
def main(params: str, batch: int, precision: str, rounds: int) -> None:
    prepare_torch(CPU, "float32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    minibatch = random_batch(SPEC, batch, CPU)
    agents: dict[str, Any] = {}
    calls: dict[str, list[Call]] = {}
    for param in params.split(","):
        settings = make_settings({"game": "SpaceInvaders", "param": param, "learning": {"precision": precision}})
        agents[param] = make_agent(settings, SPEC, CPU)
        agents[param].initialize(minibatch.obs)
        calls[param] = primitives(agents[param].online, param, minibatch.obs, dtype)
    took: dict[str, list[tuple[float, float]]] = {param: [] for param in agents}
    for turn in range(rounds + 2):  # the first two warm up
        for param, agent in agents.items():
            update_s = seconds_of(lambda agent=agent: agent.update(minibatch))
            primitives_s = sum(map(seconds_of, calls[param]))
            if turn >= 2:
                took[param].append((update_s, primitives_s))
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {num_cores()} cores, {torch.get_num_threads()} threads, {precision}, minibatches of {batch}")
    print("| parameterization | update, ms | primitives, ms | update / primitives (quartiles) |")
    print("|---|---:|---:|---|")
    for param, pairs in took.items():
        update_ms, primitives_ms = (1e3 * statistics.median(each) for each in zip(*pairs, strict=True))
        low, ratio, high = statistics.quantiles([update_s / alone_s for update_s, alone_s in pairs], n=4)
        print(f"| `{param}` | {update_ms:.1f} | {primitives_ms:.1f} | {ratio:.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main()
