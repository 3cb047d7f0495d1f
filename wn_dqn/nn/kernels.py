"""Compiles and loads kernels.c, which does in one pass through memory what torch does in several passes.

Kernels do not change results, only speed. They are used if a test on this machine gives the same numbers as torch. If
not, or if there is no C compiler, torch does the work. The compiled library is kept in the user's cache folder.
``WN_DQN_KERNELS=0`` in the environment turns the kernels off.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wn_dqn.errors import first_line
from wn_dqn.system import reading
from wn_dqn.system.durable import write_durably
from wn_dqn.system.reading import KIB, MIB

_SOURCE = Path(__file__).with_name("kernels.c")
_COMPILE = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fopenmp", "-fPIC", "-c")
_TIME_LIMIT_S = 10.0  # compiling takes about a second
_MAX_BYTES = 16 * MIB  # upper limit for a library, which has about 20,000

_DIGEST = ".sha256"
SWITCHED_OFF = "WN_DQN_KERNELS is 0"
"""the reason why there are no kernels if the user has turned them off"""

_Adamax = Sequence[Sequence[Tensor]]
"""Parameters, their gradients, and the two moments of the gradients: the mean and the largest size."""

KeptNorm = float | Tensor
"""the norm of each unit's vector, the rows of a parameter [out, ...]; a tensor []: that of the whole parameter"""


def adamax_(
    tensors: _Adamax,
    betas: tuple[float, float],
    eps: float,
    step_sizes: Sequence[float],
    kept_norms: Sequence[KeptNorm] | None = None,
) -> None:
    """Do one step of Adamax in place (Kingma & Ba 2015, algorithm 2, with torch's eps). Gradients do not change.

    m = beta1 m + (1 - beta1) d; u = max(beta2 u, |d| + eps); x -= step_size m / u, with x, d, m and u from the four
    lists of `tensors`, in this order. A step size is the learning rate divided by 1 - beta1^t. Afterwards every x is
    scaled to its kept norm, as in :func:`restore_norm_`, unless that is None.
    """
    kernels = _kernels() if all(map(_alike, *tensors)) else None
    (kernels.adamax_ if kernels else _torch_adamax_)(tensors, betas, eps, step_sizes, kept_norms)


def restore_norm_(param: Tensor, norm: KeptNorm) -> None:
    """Scale `param` [out, ...] to its kept norm `norm`. Zero vectors stay 0. The norm is computed in float64."""
    dim = tuple(range(param.ndim)) if isinstance(norm, Tensor) else tuple(range(1, param.ndim))
    actual = torch.linalg.vector_norm(param, dim=dim, keepdim=True, dtype=torch.float64)
    param.mul_((norm / actual.masked_fill(actual == 0.0, 1.0)).to(param.dtype))


def _alike(param: Tensor, *others: Tensor) -> bool:
    """Whether all are float32 CPU tensors with the same dense layout."""
    strides = param.stride()
    dense = param.is_contiguous() or param.is_contiguous(memory_format=torch.channels_last)
    return (
        dense
        and _is_plain(param, torch.float32)
        and all(each.stride() == strides and _is_plain(each, torch.float32) for each in others)
    )


def unit_interval(stacks: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 [B, 4, H, W] divided by 255, in channels_last."""
    _, frames, height, width = stacks.shape
    in_a_row = frames == 4 and stacks.stride()[1:] == (height * width, width, 1)
    if in_a_row and dtype == torch.float32 and _is_plain(stacks, torch.uint8) and (kernels := _kernels()):
        return kernels.unit_interval(stacks)
    return _torch_unit_interval(stacks, dtype)


def _torch_adamax_(
    tensors: _Adamax,
    betas: tuple[float, float],
    eps: float,
    step_sizes: Sequence[float],
    kept_norms: Sequence[KeptNorm] | None = None,
) -> None:
    for param, grad, mean, largest, step_size in zip(*tensors, step_sizes, strict=True):
        mean.lerp_(grad, 1.0 - betas[0])
        torch.maximum(largest.mul_(betas[1]), grad.abs().add_(eps), out=largest)
        param.addcdiv_(mean, largest, value=-step_size)
    if kept_norms is not None:
        for param, norm in zip(tensors[0], kept_norms, strict=True):
            restore_norm_(param, norm)


def _torch_unit_interval(stacks: Tensor, dtype: torch.dtype) -> Tensor:
    if stacks.is_cuda:
        return stacks.to(dtype=dtype, memory_format=torch.channels_last).div_(255.0)
    # Convert to channels_last by stacking the frames again: on a CPU that is faster than a permuted copy.
    return torch.stack(stacks.unbind(1), dim=-1).permute(0, 3, 1, 2).to(dtype).div_(255.0)


def _kernels() -> Kernels | None:
    return None if torch.compiler.is_compiling() else find_kernels().kernels


def _is_plain(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether it is an ordinary CPU tensor, and not the placeholder of a tracer."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.is_cpu and tensor.dtype == dtype


class Kernels:
    """The compiled functions. They take only the tensors that they support."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        self._adamax, self._unit_interval = library.adamax, library.unit_interval
        self._adamax.argtypes = [integer, *[pointer] * 8, *[number] * 3]
        self._unit_interval.argtypes = [*[pointer] * 2, *[integer] * 3]
        self._adamax.restype = self._unit_interval.restype = None

    def adamax_(
        self,
        tensors: _Adamax,
        betas: tuple[float, float],
        eps: float,
        step_sizes: Sequence[float],
        kept_norms: Sequence[KeptNorm] | None,
    ) -> None:
        """See :func:`adamax_`."""
        params, _, means, largest = tensors
        count = len(params)
        pointers, sizes, steps = ctypes.c_void_p * count, ctypes.c_int64 * count, ctypes.c_float * count
        addresses = [pointers(*map(Tensor.data_ptr, each)) for each in tensors]
        numels = sizes(*map(Tensor.numel, params))
        kept: Sequence[KeptNorm | None] = kept_norms or [None] * count
        units = sizes(*map(_units, params, kept))
        norms = (ctypes.c_double * count)(*(float(norm or 0.0) for norm in kept))
        self._adamax(count, *addresses, numels, steps(*step_sizes), units, norms, 1.0 - betas[0], betas[1], eps)
        torch.autograd.graph.increment_version((*params, *means, *largest))  # as torch's in-place operations do

    def unit_interval(self, stacks: Tensor) -> Tensor:
        """See :func:`unit_interval`. The four frames of a stack must be contiguous."""
        out = torch.empty(stacks.shape, dtype=torch.float32, memory_format=torch.channels_last)
        batch, _, height, width = stacks.shape
        self._unit_interval(stacks.data_ptr(), out.data_ptr(), batch, height * width, stacks.stride(0))
        return out


def _units(param: Tensor, norm: KeptNorm | None) -> int:
    """The number of rows of `param` whose norms are kept; 0 keeps the norm of the whole parameter, -1 keeps none."""
    return -1 if norm is None else 0 if isinstance(norm, Tensor) else len(param)


class Found(NamedTuple):
    """The outcome of :func:`find_kernels`."""

    kernels: Kernels | None
    why_not: str = ""


@functools.cache
def find_kernels() -> Found:
    """The kernels, or the reason why there are none. The first call on a machine compiles them, in a second."""
    if os.environ.get("WN_DQN_KERNELS") == "0":
        return Found(None, SWITCHED_OFF)
    try:
        kernels = Kernels(_library())
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").splitlines() or [f"exit status {error.returncode}"]
        return Found(None, f"{error.cmd[0]} failed: {said[0]}")
    except subprocess.TimeoutExpired as error:
        return Found(None, f"{error.cmd[0]} has not ended after {error.timeout:.0f} s")
    except (OSError, ValueError) as error:  # ValueError: CC is not a valid command
        return Found(None, first_line(error))
    if not _agree_with_torch(kernels):
        return Found(None, "as compiled here they round otherwise than torch")
    return Found(kernels)


def _library() -> ctypes.CDLL:
    """kernels.c as a library, from the cache if possible. Raises OSError or SubprocessError if that fails."""
    # Different machines may share a home folder, and -march=native depends on the machine.
    built_from = (_SOURCE.read_text(encoding="utf-8"), _COMPILE, _compiler(), platform.machine(), _cpu_features())
    name = f"kernels-{hashlib.sha256(repr(built_from).encode()).hexdigest()[:16]}.so"
    folder = _cache_folder()
    if folder is None:  # compile for this process alone
        with tempfile.TemporaryDirectory() as temporary:
            return _compiled(Path(temporary), name)
    with contextlib.suppress(OSError):  # not there yet
        # Loading an incomplete library ends the process with a bus error.
        if reading.sha256(folder / name, _MAX_BYTES) == reading.read_text(folder / (name + _DIGEST), KIB):
            return ctypes.CDLL(str(folder / name))
    return _compiled(folder, name)


def _cpu_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _cache_folder() -> Path | None:
    """The folder for compiled kernels; None if no folder is writable."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "wn_dqn"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None


def _compiled(folder: Path, name: str) -> ctypes.CDLL:
    """Compile kernels.c, and move it and its SHA-256 into `folder` atomically: other processes may do the same."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        objects, library = f"{work}/kernels.o", f"{work}/kernels.so"
        # Linked without -fopenmp, so that it uses the OpenMP that torch has loaded, and not a second one.
        for command in ([*_COMPILE, str(_SOURCE), "-o", objects], ["-shared", objects, "-o", library]):
            _run([*_compiler(), *command], Path(work))
        data = reading.read_bytes(Path(library), _MAX_BYTES)
    write_durably(folder / (name + _DIGEST), hashlib.sha256(data).hexdigest().encode())
    write_durably(folder / name, data)
    return ctypes.CDLL(str(folder / name))


def _run(command: list[str], work: Path) -> None:
    """Run a compiler. Raises CalledProcessError if it fails, TimeoutExpired if it or a child does not end in time."""
    with (work / "output").open("w+b") as output:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process:
            try:
                status = process.wait(_TIME_LIMIT_S)
            except subprocess.TimeoutExpired:
                if hasattr(os, "killpg"):  # it may have started other processes
                    os.killpg(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has none
                process.kill()
                raise
        if status:
            output.seek(0)
            raise subprocess.CalledProcessError(status, command, stderr=output.read(10_000))


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or "cc")


def _agree_with_torch(kernels: Kernels) -> bool:
    """Whether both functions give torch's numbers, for all kinds of values, also at the end of a thread's loop."""
    pixels = torch.arange(2 * 4 * 99 * 99).remainder(256).to(torch.uint8).view(2, 4, 99, 99)
    same = torch.equal(kernels.unit_interval(pixels), _torch_unit_interval(pixels, torch.float32))
    generator = torch.Generator().manual_seed(0)
    odd = torch.tensor([0.0, -0.0, 1e-40, 1e-30, torch.inf, -torch.inf, torch.nan])
    kept: tuple[Sequence[KeptNorm] | None, ...] = (None, [1.0], [torch.tensor(3.0)])
    for beta1, norms in itertools.product((0.1, 0.5, 0.9), kept):  # torch's lerp has two formulas
        param, grad, mean, largest = torch.randn(4, 80_003, generator=generator)
        grad.pow_(9)  # from 1e-30 to 1e5
        largest.abs_()
        for place, tensor in enumerate((grad, mean, largest)):
            tensor[7 * place : 7 * place + 7] = odd
        grad[21:28], largest[21:28] = odd, torch.nan
        if norms is not None:  # they would make every sum NaN or infinite
            grad[:28], mean[:28], largest[:28] = 1.0, 1.0, 1.0
        ours = [[each.view(7, -1)] for each in (param, grad, mean, largest)]
        theirs = [[each.clone()] for (each,) in ours]
        for step, tensors in ((kernels.adamax_, ours), (_torch_adamax_, theirs)):
            step(tensors, (beta1, 0.999), 1e-8, [1e-3], norms)
        same &= all(_same(our, their) for (our,), (their,) in zip(ours, theirs, strict=True))
    return same


def _same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether all numbers are equal. The sign of a zero is ignored: torch's own differs within one tensor."""
    return torch.allclose(ours, theirs, rtol=0.0, atol=0.0, equal_nan=True)
