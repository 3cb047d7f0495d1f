"""The machine's hardware: cores, memory (with the limits of cgroups), and the device for torch.

Torch is imported inside the functions that need it, because a sweep uses this module and must stay small.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wn_dqn.errors import UsageError

if TYPE_CHECKING:
    import torch

GIB = 2**30
CORES_VARIABLE = "WN_DQN_CORES"
"""the environment variable with which a sweep sets the number of cores of each run"""


def num_cores() -> int:
    """The number of cores that this process may use, by its affinity, its cgroup's quota, and `CORES_VARIABLE`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = os.environ.get(CORES_VARIABLE, "")
    return max(1, min([cores, *_cgroup_cores(), *([int(granted)] if granted.isdecimal() else [])]))


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """The CPU quota in cores of every cgroup (versions 2 and 1) of this process that has one."""
    cores = []
    for version, group in _cgroups("cpu", root, own):
        try:
            if version == 2:
                quota, period = _text(group / "cpu.max").split()
            else:
                quota, period = (_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
            if quota not in ("max", "-1"):
                cores.append(math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # the root group has no such files
    return cores


def _cgroups(controller: str, root: Path, own: Path) -> Iterator[tuple[int, Path]]:
    """The folders of this process's cgroups with the `controller`, and their versions."""
    try:
        lines = _text(own).splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        folder = (root / controller if controllers else root) / path.lstrip("/")
        for group in (folder, *folder.parents):
            yield (1 if controllers else 2), group


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def available_memory_bytes() -> int | None:
    """The free memory for this process in bytes, the minimum over the machine and its cgroups; None if unknown."""
    limits = []
    try:
        for line in _text(Path("/proc/meminfo")).splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except OSError:
        pass  # not Linux
    limits += _cgroup_memory_left()
    return min(limits, default=None)


def _cgroup_memory_left(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """The free memory of every cgroup (versions 2 and 1) of this process that has a limit."""
    left = []
    for version, group in _cgroups("memory", root, own):
        limit_name = "memory.max" if version == 2 else "memory.limit_in_bytes"
        usage_name = "memory.current" if version == 2 else "memory.usage_in_bytes"
        try:
            limit, usage = _text(group / limit_name).strip(), int(_text(group / usage_name))
            statistics = dict(line.split() for line in _text(group / "memory.stat").splitlines())
        except (OSError, ValueError):
            continue  # the root group has no such files
        page_cache = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
        if limit != "max":
            left.append(max(int(limit) - usage + page_cache, 0))
    return left


def find_device(name: str) -> torch.device:
    """The device with the name `auto`, `cpu`, `cuda` or `cuda:N`. Raises UsageError if it does not exist here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; valid: auto, cpu, cuda, cuda:0, ...")
    if device.type == "cpu" and device.index:
        raise UsageError(f"no device {name}: there is one cpu; use --device cpu")
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise UsageError(f"no device {name}: torch sees {torch.cuda.device_count()} CUDA devices; use --device cpu")
    return device


def prepare_torch(device: torch.device, precision: str, *, deterministic: bool = False) -> None:
    """Set up this whole process for training or evaluation on `device`. Call it before a network is built.

    Commands and training call it. Code that only loads a network does not. Raises UsageError if `device` does not
    support `precision`.
    """
    import torch

    if precision == "tf32" and device.type != "cuda":
        raise UsageError("precision tf32 needs a GPU; use float32 or bf16 on a cpu")
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)  # streams and graphs belong to the current device
        _allow_tf32(precision == "tf32")
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
        torch.use_deterministic_algorithms(deterministic)
    else:
        _keep_freed_memory()
    torch.set_num_threads(min(torch.get_num_threads(), num_cores()))  # torch ignores a container's quota


@contextlib.contextmanager
def computing_on(device: torch.device, precision: str) -> Iterator[None]:
    """Compute on `device` with `precision` inside this context, and restore the process's settings afterwards.

    Only a GPU has such settings: unless `precision` is tf32, float32 must not be rounded.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        _allow_tf32(precision == "tf32")
        with torch.cuda.device(device):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _allow_tf32(allowed: bool) -> None:
    import torch

    # By default, torch allows TF32 in convolutions, so that float32 would not mean float32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory: every update frees and allocates the same 50 MB.

    By default, glibc returns them to the kernel, which costs thousands of page faults per update, one for every 4 KB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows needs the name of a library
        return  # another C library, with its own policy
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


def require_memory(replay_bytes: int, other_bytes: int, bytes_per_transition: int, device: torch.device) -> None:
    """Raise UsageError, with the largest possible replay capacity, if a run does not fit into memory.

    `replay_bytes` are needed on `device`, `other_bytes` in host memory.
    """
    import torch

    available = available_memory_bytes()
    needed = other_bytes + (replay_bytes if device.type == "cpu" else 0)
    where, replay_room = "memory", None if available is None else available - other_bytes
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        replay_room = free - 2 * GIB  # the networks, their activations and CUDA's own
        where = f"memory of {device}"
        if available is not None and available < needed:
            raise UsageError(f"too little memory: {needed / GIB:.1f} GiB needed, {available / GIB:.1f} GiB available")
    if replay_room is not None and replay_bytes > replay_room:
        fits = max(replay_room // bytes_per_transition // 1000 * 1000, 0)
        raise UsageError(
            (
                f"too little {where}: the replay buffer takes {replay_bytes / GIB:.1f} GiB, "
                f"{max(replay_room, 0) / GIB:.1f} GiB are left for it; "
            )
            + (f"--set replay.capacity={fits} fits" if fits else "not even a small one fits")
        )
