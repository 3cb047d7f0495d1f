"""What macOS and Windows lack is not needed, what they do not allow is not written, and no text depends on them."""

from __future__ import annotations

import ast
import ntpath
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from small_runs import settings_for

from wn_dqn.config.files import dump_yaml, make_settings
from wn_dqn.config.games import all_games
from wn_dqn.config.registry import AGENTS, PARAMETERIZATIONS
from wn_dqn.runs.run_directory import default_name, portable_name
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.training.callbacks import Stop

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

from wn_dqn.cli import main
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
    wn_dqn(2, *train, "--steps", "400")
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
    before, request = signal.getsignal(signal.SIGHUP), StopRequest(None)
    with request.listening():
        request.check()
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Stop) as stop:
            request.check()
    assert stop.value.args == ("SIGHUP", 129)
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_nohup_is_respected() -> None:
    request = StopRequest(None)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with request.listening():
            signal.raise_signal(signal.SIGHUP)
            request.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_other_than_the_main_one_trains_without_signals() -> None:
    outcomes: list[str] = []

    def listen() -> None:
        with StopRequest(None).listening():
            outcomes.append("listening")

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert outcomes == ["listening"]


def is_allowed_on_windows(name: str) -> bool:
    """By Python's own rule for Windows: all of it from 3.13 on, the names of devices before that."""
    if hasattr(ntpath, "isreserved"):
        return not ntpath.isreserved(name)
    return not PureWindowsPath(name).is_reserved() and not name.endswith((".", " "))


@given(text=st.text(max_size=20) | st.text(alphabet='conauxlpt1². :"\\/<>|?*\x1f', max_size=8))
@example(text="")
@example(text="..")
@example(text="CON")
@example(text="con .txt")
@example(text="Lpt².x")
@example(text="COM0")
@example(text='a<b>c:d"e/f\\g|h?i*j\0k\n')
@example(text="end. . ")
def test_a_portable_name_is_allowed_everywhere_and_keeps_what_is(text: str) -> None:
    name = portable_name(text)
    assert name not in ("", ".", "..")
    assert not set(name) & {*'<>:"/\\|?*', *map(chr, range(32))}
    assert not name.endswith((".", " "))
    assert is_allowed_on_windows(name)
    assert portable_name(name) == name
    if text and is_allowed_on_windows(text) and not set(text) & {*'<>:"/\\|?*', *map(chr, range(32))}:
        assert name == text


def test_default_names_are_what_they_were_and_portable() -> None:
    """For every game, parameterization and agent."""
    names = set()
    settings = make_settings({"game": "Catch"})
    for game in ("Catch", *all_games()):
        for param in PARAMETERIZATIONS:
            for agent in AGENTS:
                name = default_name(settings.model_copy(update={"game": game, "param": param, "agent": agent}))
                assert name == f"{game}-{param}{'' if agent == 'dqn' else f'-{agent}'}-seed0"
                names.add(name.lower())  # Windows and macOS do not tell case apart
    assert len(names) == (1 + len(all_games())) * len(PARAMETERIZATIONS) * len(AGENTS)


def calls_that_depend_on_the_system(source: str) -> list[str]:
    """Text read or written without an encoding, or written without a newline, as the source has it."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {keyword.arg for keyword in call.keywords}
        constants = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        mode = next((text for text in constants if set(text) <= set("rwaxbt+")), "r")
        text = {"read_text": True, "write_text": True, "open": "b" not in mode}.get(name, "text" in given)
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func) in (
            "os.open",
            "Image.open",
            "webbrowser.open",
        ):
            text = False
        writes = name == "write_text" or (name == "open" and bool(set(mode) & set("wax+")))
        if text and ("encoding" not in given or (writes and "newline" not in given)):
            found.append(ast.unparse(call))
    return found


def test_text_is_read_and_written_with_its_encoding_and_newline() -> None:
    sources = [path for folder in ("wn_dqn", "agents", "scripts") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path): calls_that_depend_on_the_system(path.read_text(encoding="utf-8")) for path in sources}
    assert {path: calls for path, calls in found.items() if calls} == {}
    for bad in ('p.read_text()', 'p.write_text(x, encoding="utf-8")', 'open(p)', 'p.open("a", encoding="utf-8")',
                'run(c, text=True)'):  # fmt: skip
        assert calls_that_depend_on_the_system(bad) == [ast.unparse(ast.parse(bad))]


def test_the_workflow_tests_every_python_that_is_promised() -> None:
    workflow = YAML(typ="safe").load(ROOT / ".github" / "workflows" / "test.yml")
    matrix = workflow["jobs"]["newest"]["strategy"]["matrix"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    label = "Programming Language :: Python :: "
    promised = {line.removeprefix(label) for line in project["classifiers"] if line.startswith(label)}
    assert promised <= set(matrix["python"])
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
