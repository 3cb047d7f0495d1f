"""The library is a guest in its process: it changes nothing that others rely on, and handles no signal."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import CPU, settings_for

from wn_dqn.runs.launch import train_run
from wn_dqn.runs.policy import load_policy
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system import hardware
from wn_dqn.system.hardware import computing_on
from wn_dqn.system.progress import ProgressReporter

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of Catch that asked for determinism."""
    folder = tmp_path_factory.mktemp("process") / "run"
    settings = settings_for(learning={"total_steps": 80, "deterministic": True})
    assert train_run(settings, folder, CPU, ProgressReporter()) == 0
    return folder


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Two threads: more than `prepare_torch` would leave, where it sees one core. Afterwards, all is as it was."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = torch.get_num_threads(), cudnn.allow_tf32, cublas.allow_tf32
    torch.set_num_threads(2)
    yield
    threads, cudnn.allow_tf32, cublas.allow_tf32 = before
    torch.set_num_threads(threads)


def process_state() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32),
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


def test_loading_and_asking_a_policy_changes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "num_cores", lambda: 1)
    monkeypatch.setattr(hardware, "_keep_freed_memory", lambda: pytest.fail("the allocator was changed"))
    before = process_state()
    policy = load_policy(run, "last", CPU)
    assert policy.q_values(torch.zeros((2, 4, 84, 84), dtype=torch.uint8)).shape == (2, 3)
    assert process_state() == before


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_the_precision_of_a_gpu_ends_with_its_context(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if what runs inside fails. Only tf32 lets float32 be rounded."""
    monkeypatch.setattr(torch.cuda, "device", lambda _device: nullcontext())
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    cudnn.allow_tf32, cublas.allow_tf32 = False, True

    def fail() -> None:
        assert [cudnn.allow_tf32, cublas.allow_tf32] == [precision == "tf32"] * 2
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), computing_on(CUDA, precision):
        fail()
    assert [cudnn.allow_tf32, cublas.allow_tf32] == [False, True]


@pytest.mark.survives("training in a thread", "it trains, and handles no signal")
def test_a_thread_trains_and_handles_no_signal(tmp_path: Path) -> None:
    """Python lets only the main thread handle signals: a handler would raise ValueError."""
    handlers, statuses = process_state()["handlers"], []
    settings = settings_for(learning={"total_steps": 80})

    def train() -> None:
        statuses.append(train_run(settings, tmp_path / "run", CPU, ProgressReporter()))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(120)
    assert statuses == [0]
    assert RunDirectory(tmp_path / "run").read_status()["status"] == "finished"
    assert process_state()["handlers"] == handlers


def test_only_the_command_handles_signals(pytestconfig: pytest.Config) -> None:
    """And processes of our own: one that tests a checkpoint among many, and one that plays a game among many."""
    package = pytestconfig.rootpath / "wn_dqn"
    handling = {
        path.relative_to(package).as_posix(): len(found)
        for path in package.rglob("*.py")
        if (found := re.findall(r"signal\.signal\(", path.read_text(encoding="utf-8")))
    }
    in_processes = {"runs/reevaluation.py", "envs/gymnasium_env.py", "sweeps/tied.py"}
    assert set(handling) == {"cli/signals.py", "sweeps/stopping.py", *in_processes}  # both are the command's own
    assert all(handling[path] == 1 for path in in_processes)
