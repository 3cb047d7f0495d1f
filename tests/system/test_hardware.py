"""Memory limits of fake control groups, and the messages about memory and devices that a machine does not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from wn_dqn.errors import UsageError
from wn_dqn.system import hardware as machine
from wn_dqn.system.hardware import GIB, _cgroup_memory_left, find_device, num_cores, prepare_torch, require_memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def write_group(
    folder: Path, limit: str | int, usage: int, cache: int = 0, *, version: int = 2, statistics: str | None = None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limit_name, usage_name, cache_name = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }[version]
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / usage_name).write_text(f"{usage}\n")
    own_cache = "" if version == 2 else "inactive_file 1\n"  # version 1 counts the children's apart
    (folder / "memory.stat").write_text(
        f"anon 5\n{own_cache}{cache_name} {cache}\n" if statistics is None else statistics
    )


def memory_left(tmp_path: Path, own: str) -> list[int]:
    (tmp_path / "own").write_text(own)
    return _cgroup_memory_left(tmp_path / "root", tmp_path / "own")


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_all_groups_around_the_process(tmp_path: Path, version: int) -> None:
    """The limit less what is in use, of which file pages that nobody uses can be had back."""
    own, top = {2: ("0::/a/b/c\n", "root"), 1: ("8:pids:/x\n4:cpu,memory:/a/b/c\n", "root/memory")}[version]
    write_group(tmp_path / top / "a/b/c", 1000, 300, 50, version=version)
    write_group(tmp_path / top / "a/b", "max" if version == 2 else 2**63 - 4096, 700, version=version)
    write_group(tmp_path / top / "a", 800, 790, 15, version=version)
    write_group(tmp_path / top / "elsewhere", 10, 10, version=version)
    left = memory_left(tmp_path, own)
    assert [limit for limit in left if limit < 2**60] == [750, 25]
    assert len(left) == {2: 2, 1: 3}[version]


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    write_group(tmp_path / "root/a", 1000, 1500, 100)
    assert memory_left(tmp_path, "0::/a\n") == [0]


def test_inside_a_container_the_group_is_at_the_root(tmp_path: Path) -> None:
    """Its path is one of the host's, which the container does not see."""
    write_group(tmp_path / "root/memory", 1000, 400, version=1)
    assert memory_left(tmp_path, "4:memory:/docker/0123\n0::/\n") == [600]


@pytest.mark.parametrize("statistics", ["", "anon 1\n"])
def test_without_a_count_of_file_pages_none_can_be_had_back(tmp_path: Path, statistics: str) -> None:
    write_group(tmp_path / "root/a", 1000, 400, statistics=statistics)
    assert memory_left(tmp_path, "0::/a\n") == [600]


def test_files_that_cannot_be_understood_set_no_limit(tmp_path: Path) -> None:
    write_group(tmp_path / "root/a/b", 1000, 400)
    (tmp_path / "root/a/b/memory.current").write_text("many\n")
    write_group(tmp_path / "root/a", 1000, 400, statistics="one\n")
    assert memory_left(tmp_path, "0::/a/b\n") == []


def test_no_control_groups_no_limits(tmp_path: Path) -> None:
    assert memory_left(tmp_path, "0::/a\n3:cpuset:/\n") == []
    assert _cgroup_memory_left(tmp_path, tmp_path / "missing") == []


def test_available_memory_is_the_least_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cgroup_memory_left", lambda: [2**60, 12345, 2**50])
    assert machine.available_memory_bytes() == 12345
    monkeypatch.setattr(machine, "_cgroup_memory_left", list)
    if Path("/proc/meminfo").exists():
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 0 < (machine.available_memory_bytes() or 0) <= total
    else:
        assert machine.available_memory_bytes() is None


def test_num_cores_counts_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5, 7}, raising=False)
    assert num_cores() == 3


@pytest.mark.parametrize("count", [6, None])
def test_where_no_process_has_cores_of_its_own_all_of_the_machine_count(
    count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows, where the number may not be known either."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    monkeypatch.setattr(machine, "_cgroup_cores", list)
    assert num_cores() == (count or 1)


def set_available(monkeypatch: pytest.MonkeyPatch, memory: int | None, cuda_free: int = 0) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: memory)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (cuda_free, 80 * GIB))


@pytest.mark.parametrize("available", [6 * GIB, None])
def test_a_run_that_fits(monkeypatch: pytest.MonkeyPatch, available: int | None) -> None:
    """An unknown amount of memory is no reason to refuse."""
    set_available(monkeypatch, available)
    require_memory(5 * GIB, GIB, 7000, CPU)


def test_the_message_names_a_capacity_that_fits_and_does(monkeypatch: pytest.MonkeyPatch) -> None:
    set_available(monkeypatch, 3 * GIB)
    with pytest.raises(UsageError) as caught:
        require_memory(7000 * 1_000_000, GIB, 7000, CPU)
    assert str(caught.value) == (  # 2 GiB / 7000 bytes = 306,783
        "too little memory: the replay buffer takes 6.5 GiB, 2.0 GiB are left for it; --set replay.capacity=306000 fits"
    )
    require_memory(7000 * 306_000, GIB, 7000, CPU)


@pytest.mark.parametrize("available", [GIB + 6_999_999, GIB // 2])
def test_the_message_where_not_even_a_small_replay_fits(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    set_available(monkeypatch, available)
    with pytest.raises(UsageError, match=r"0\.0 GiB are left for it; not even a small one fits$"):
        require_memory(GIB, GIB, 7000, CPU)


def test_on_a_gpu_the_replay_must_fit_there_beside_two_gib_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    set_available(monkeypatch, GIB, cuda_free=10 * GIB)
    require_memory(8 * GIB, GIB, 7000, CUDA)  # more than this machine's own memory has
    with pytest.raises(UsageError, match=r"^too little memory of cuda:0: .* takes 8\.5 GiB, 8\.0 GiB are left"):
        require_memory(8 * GIB + GIB // 2, GIB, 7000, CUDA)


def test_on_a_gpu_the_rest_must_fit_in_the_machines_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    set_available(monkeypatch, GIB // 2, cuda_free=10 * GIB)
    with pytest.raises(UsageError, match=r"^too little memory: 1\.0 GiB needed, 0\.5 GiB available$"):
        require_memory(GIB, GIB, 7000, CUDA)


@pytest.mark.parametrize(("count", "expected"), [(0, "cpu"), (2, "cuda")])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, count: int, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    assert find_device("auto") == torch.device(expected)


def test_named_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [find_device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:1")] == [
        torch.device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:1")
    ]


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_here(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UsageError, match=f"^no device {name}: torch sees {count} CUDA devices; use --device cpu$"):
        find_device(name)


@pytest.mark.parametrize(
    "name",
    [
        "gpu",
        "",
        "cuda:x",
        "cuda:-1",
        "mps",
        "meta",
        "Auto",
        "cuda:128",
    ],
)
def test_no_device_at_all(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=r"^(unknown|no) device .*; (valid: auto, cpu, cuda|use --device cpu)"):
        find_device(name)


@pytest.mark.parametrize("version", [1, 2])
def test_cores_are_what_the_quota_of_every_group_allows(tmp_path: Path, version: int) -> None:
    top = tmp_path / ("root/cpu" if version == 1 else "root")
    for group, quota in (("a/b", 250_000), ("a", -1)):
        (top / group).mkdir(parents=True, exist_ok=True)
        if version == 1:
            (top / group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (top / group / "cpu.cfs_period_us").write_text("100000\n")
        else:
            (top / group / "cpu.max").write_text(f"{'max' if quota < 0 else quota} 100000\n")
    (tmp_path / "own").write_text("5:cpu,cpuacct:/a/b\n" if version == 1 else "0::/a/b\n")
    assert machine._cgroup_cores(tmp_path / "root", tmp_path / "own") == [3]  # two and a half


def test_no_quota_and_no_groups_leave_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine._cgroup_cores(tmp_path, tmp_path / "none") == []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5, 7}, raising=False)
    for quotas, expected in (([], 3), ([1, 3], 1), ([0], 1)):
        monkeypatch.setattr(machine, "_cgroup_cores", lambda quotas=quotas: quotas)
        assert num_cores() == expected


def test_torch_takes_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        for threads, cores, expected in ((4, 2, 2), (2, 4, 2)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(machine, "num_cores", lambda cores=cores: cores)
            prepare_torch(CPU, "float32")
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_tf32_is_a_gpus() -> None:
    with pytest.raises(UsageError, match="use float32 or bf16"):
        prepare_torch(CPU, "tf32")
