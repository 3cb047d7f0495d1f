"""What macOS and Windows lack is not needed, what they do not allow is not written, and no text depends on them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import settings_for

from wn_dqn.cli.signals import stopping_on_signals
from wn_dqn.config.files import dump_yaml
from wn_dqn.errors import STOPPED
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.training.host import Stop

ROOT = Path(__file__).resolve().parents[2]

# Run in a process of its own, in an empty folder, with a config as its argument. Other packages take what they need
# first; what is missing from then on is missing for this one.
WITHOUT = """
import ctypes, os, shutil, signal, sys
from pathlib import Path

import click, cv2, filelock, gymnasium, matplotlib.pyplot, rich.live, ruamel.yaml, safetensors.torch, tensorboard
import torch._dynamo, torch.utils.tensorboard
import ale_py.vector_env

torch.set_num_threads(1)
for module in ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[module] = None
for name in (
    "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fork", "geteuid", "getloadavg", "getpgid", "getuid", "killpg",
    "mkfifo", "nice", "pread", "pwrite", "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "sysconf",
    "uname",
):
    delattr(os, name)
for name in ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "alarm", "pause"):
    delattr(signal, name)

original_library, original_open, original_path_open = ctypes.CDLL, os.open, Path.open


def library(name, *args, **kwargs):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return original_library(name, *args, **kwargs)


def open_(path, *args, **kwargs):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return original_open(path, *args, **kwargs)


def path_open(path, *args, **kwargs):
    if path.parts[:2] in (("/", "proc"), ("/", "sys")):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return original_path_open(path, *args, **kwargs)


ctypes.CDLL, os.open, Path.open = library, open_, path_open
shutil._use_fd_functions = False  # where it may open folders, it does
Path.read_text = lambda path, encoding, errors="strict": path.read_bytes().decode(encoding, errors)
Path.read_bytes = lambda path: path_open(path, "rb").read()

from wn_dqn.cli.main import main
from wn_dqn.system.hardware import available_memory_bytes
from wn_dqn.runs.run_directory import RunDirectory


def wn_dqn(expected, *args):
    sys.argv = ["wn-dqn", *args]
    try:
        main()
    except SystemExit as end:
        assert end.code == expected, (args, end.code)


assert available_memory_bytes() is None
train = ["train", "--config", sys.argv[1], "--run-dir", "run"]
wn_dqn(0, *train, "--steps", "120")
wn_dqn(0, *train)
with RunDirectory(Path("run")).locked():
    wn_dqn(3, *train, "--steps", "400")
wn_dqn(0, "evaluate", "run", "--games", "2")
wn_dqn(0, "checkpoint", "verify", "run")
wn_dqn(0, "card", "run")
wn_dqn(0, "play", "run", "-o", "game.gif", "--max-frames", "9")
for command in ("evaluate", "doctor", "report", "export", "import"):
    wn_dqn(0, command, "--help")
"""


def test_nothing_is_needed_that_other_systems_lack(tmp_path: Path) -> None:
    """No fcntl, no SIGHUP, no /proc, no folder that can be opened, ...: training, resume and all the rest work."""
    config = tmp_path / "config.yaml"
    settings = settings_for(learning={"total_steps": 160})
    config.write_bytes(dump_yaml(settings.model_dump()).encode())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(config)],
        cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "is in use by process" in done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_terminal_that_closes_stops_the_run_as_sigterm_does() -> None:
    """And may send its signal twice."""
    before, request = signal.getsignal(signal.SIGHUP), StopRequest()
    with stopping_on_signals(request):
        request.check()
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Stop) as stop:
            request.check()
    assert stop.value.args == ("SIGHUP", STOPPED)
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_nohup_is_respected() -> None:
    request = StopRequest()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_on_signals(request):
            signal.raise_signal(signal.SIGHUP)
            request.check()
    finally:
        signal.signal(signal.SIGHUP, before)
