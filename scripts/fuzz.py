"""Tries, for a number of minutes, to make the program lose data, hang, fill the memory or end in a traceback.

    python scripts/fuzz.py --seed 0 --minutes 15
    python scripts/fuzz.py --seed 0 --trial 1234       # repeats one trial, and keeps its folder

A trial is a folder with a run of one second, a fault in it, and a command in a forked process. Trials cycle through
classes: damaged, forged and oversized files, links, streams, limits, kills, configs, command lines, imports. A trial
depends only on its number and the seed. The command must end by itself, in time, within 2 GiB, without a traceback, and
with one line if it failed. A run that went on must equal an undisturbed one to the last bit. A run that was refused
must not have changed. Other files must never be touched. At the first failure, the script prints the command that
repeats the trial, and ends with status 1.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib
import json
import os
import pkgutil
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process has one thread, and sums must not depend on it

import click
import torch
import torch._dynamo
import uvicorn
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

import wn_dqn
import wn_dqn_agents
from wn_dqn.cli import main as cli
from wn_dqn.config.files import dump_yaml, make_settings, setting_help
from wn_dqn.errors import RunError
from wn_dqn.evaluation import rollout
from wn_dqn.runs import checkpoint, doctor, launch
from wn_dqn.runs.experiment import Experiment
from wn_dqn.system import progress

MAX_BYTES = 2 * 2**30
MAX_SECONDS = 120.0
FAILED = 70  # a traceback, in the process of a trial
CONFIG: dict[str, Any] = {
    "game": "CatchVector",
    "replay": {"capacity": 120},
    "network": {"hidden": [8], "init_batch_size": 16},
    "learning": {"total_steps": 96, "start_steps": 32, "batch_size": 8, "target_period_steps": 40},
    "exploration": {"decay_steps": 100},
    "evaluation": {"epoch_steps": 48, "steps": 40, "num_envs": 3, "held_out_states": 16},
    "output": {"log_period_steps": 24, "checkpoint_period_steps": 32},
}
TRAIN = ["train", "--config", "c.yaml", "--run-dir", "run", "--device", "cpu"]
GO_ON = [*TRAIN, "--steps", "144"]
VOLATILE = ("speed/steps_per_s", "speed/updates_per_s", "time/train_s", "train_s")
UNVERIFIED = ("status.json", ".lock", "provenance.json")
"""files of a run that others may change without any loss"""
VICTIM = b"mine\n"

NUMBERS = [0, 1, -1, 2, 3, 7, 16, 1000, 10**6, 10**12, 10**12 + 1, 2**31, 2**63 - 1, 2**63, 10**400]
FLOATS = [0.0, 0.5, 1.0, -0.5, 1.5, 1e-300, 1e39, 1e300, float("inf"), float("-inf"), float("nan"), 1e6]
SHORT_TEXTS = r"""
nan 1e400 1e6 0x10 1_0 [/b] [lr=1e-4] $\frac{$ wn dqn auto Catch CatchVector Pong ../.. / : x:y a:b:c
gymnasium: gymnasium:CartPole-v1 gymnasium:no_module:X-v0 no.module:nothing
"""
TEXTS = ["", " ", "x" * 300, "9" * 400, "\x1b[31m", "\u202e", "é", "%YAML 1.3", "&a [*a]", "{a: b", "catch vector"]
TEXTS += SHORT_TEXTS.split()
NASTY: list[Any] = [None, True, False, *NUMBERS, *FLOATS, *TEXTS]
NASTY += [[], [1], [[]], ["x"], [2**63], {}, {"a": 1}, {1: 2}]
ARGUMENTS = """
0 1 2 -1 1.5 inf -inf true null [] 90s 1h none best last cpu cuda cuda:7 meta nature paper machado2018
run run/config.yaml run/checkpoints c.yaml p.yaml a.png a.svg a.html a.gif a.webm a.safetensors
network.pt seed=1 a.b=c = a= a=[1 -- -o learning.total_steps=1e400
"""
WORDS = [*TEXTS, *ARGUMENTS.split()]
WORDS += ["x" * 5000, "9" * 400 + "s", "no such file", "no\udcffrun", "network.hidden=[1,2]", "[1,2"]


class Failure(Exception):  # noqa: N818 - a failure of the tested program
    """Something happened that must never happen. The message states it."""


@dataclass
class Ended:
    """A command that has ended."""

    status: int
    """exit status; minus the number of the signal that ended it"""
    err: str


# ---- processes -------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], object], *, seconds: float = MAX_SECONDS) -> int:
    """Do `work` in a forked process. Returns its status. Raises Failure if it hangs or takes too much memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except SystemExit as exit_:
            os._exit(exit_.code if isinstance(exit_.code, int) else 1)
        except BaseException:  # noqa: BLE001 - the parent reports it
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(FAILED)
    began_s = time.monotonic()
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            if usage.ru_maxrss * 1024 > MAX_BYTES:
                raise Failure(f"memory: {usage.ru_maxrss / 2**20:.1f} GiB")
            return os.waitstatus_to_exitcode(status)
        failure = None
        if time.monotonic() - began_s > seconds:
            failure = f"hang: still there after {seconds:.0f} s"
        elif resident_bytes(child) > MAX_BYTES:
            failure = "memory: more than 2 GiB"
        if failure:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise Failure(failure)
        time.sleep(0.002)


def resident_bytes(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has just ended
        return 0


def asked(work: Callable[[], Any]) -> Any:
    """The result of `work`, as JSON values, computed in a forked process."""
    with tempfile.TemporaryFile("w+") as file:

        def write() -> None:
            json.dump(work(), file)
            file.flush()

        if forked(write) != 0:
            raise Failure("wrong load: what the command left cannot be read")
        file.seek(0)
        return json.load(file)


Setup = Callable[[], object]


def command(*args: str, setup: Setup = lambda: None, streams: tuple[str, str, str] = ("null", "file", "file")) -> Ended:
    """Run ``wn-dqn ARGS`` in a forked process. Raises Failure for a traceback, or an error that is not one line."""
    err = Path("err")

    def work() -> None:
        redirect(streams, err)
        setup()
        sys.argv = ["wn-dqn", *args]
        sys.stdin, sys.stdout, sys.stderr = (stream(n) for n in range(3))  # type: ignore[assignment]
        cli.main()

    err.write_bytes(b"")
    status = forked(work)
    printed = err.read_text(errors="replace")
    if "Traceback" in printed or status == FAILED:
        raise Failure("traceback:\n" + printed[-3000:])
    if status < 0 and -status not in (signal.SIGKILL,):
        raise Failure(f"signal {-status}")
    if status not in (0, 1, 2, 3, -signal.SIGKILL, 128 + 2):
        raise Failure(f"exit status {status}: {printed[-500:]}")
    last = printed.splitlines()[-1] if printed.strip() else ""
    # If its output is a closed pipe, a command ends silently, like any other program.
    if status in (1, 2) and streams[2] == "file" and streams[1] != "broken" and not last.startswith("wn-dqn: "):
        raise Failure(f"exit status {status} without a line that says why: {printed[-500:]!r}")
    if len(last) > 20_000:
        raise Failure(f"a line of {len(last):,} characters")
    return Ended(status, printed)


def stream(number: int) -> Any:
    try:
        os.fstat(number)
    except OSError:
        return None
    return os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", errors="surrogateescape", closefd=False)


def redirect(streams: tuple[str, str, str], err: Path) -> None:
    """Redirect the standard streams: to null, a file, /dev/full, or a closed pipe; or close them."""
    for number, kind in enumerate(streams):
        if kind == "closed":
            os.close(number)
            continue
        if kind == "broken":
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, number)
            continue
        path = {"null": os.devnull, "full": "/dev/full", "file": str(err) if number == 2 else "out"}[kind]
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if kind == "file" else 0)), number)


# ---- what is wrong with a run ----------------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` cut, flipped, overwritten, doubled or replaced."""
    kind, at = rng.randrange(8), rng.randrange(len(data) + 1)
    length = rng.choice((1, 1, 2, 8, 100, 5000))
    match kind:
        case 0:
            return data[:at]
        case 1:
            return data[:at] + rng.randbytes(length) + data[at:]
        case 2:
            return data[:at] + rng.randbytes(length) + data[at + length :]
        case 3:
            return data[:at] + bytes(length) + data[at + length :]
        case 4:
            return data[:at] + data[at + length :]
        case 5:
            return data[:at] + data[at : at + length] * rng.choice((2, 50)) + data[at + length :]
        case 6:
            return rng.choice((b"", b"\n\n\n", b"[" * 100_000, b"{" * 1000, b"\xff\xfe", bytes(70_000), b"9" * 10_000))
        case _:
            flipped = bytearray(data or b"\0")
            for _ in range(rng.choice((1, 3, 20))):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)


def replace_file(path: Path, rng: random.Random) -> str:
    """Replace a file by something else. Returns a description of it."""
    kind = rng.choice(
        ("damaged", "damaged", "damaged", "damaged", "gone", "pipe", "folder", "device", "loop", "sparse")
    )
    data = path.read_bytes()
    path.unlink()
    match kind:
        case "damaged":
            path.write_bytes(damaged(data, rng))
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "/dev/tty", "/dev/random")))
        case "loop":
            path.symlink_to(path.name)
        case "sparse":
            path.touch()
            os.truncate(path, 2**40)
    return kind


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file and link in a run but those that anybody may change."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in UNVERIFIED or path.name == "damaged-provenance.json":
            continue
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = path.read_bytes() if path.stat().st_size < 2**30 else "large"
        elif not path.is_dir():
            found[str(path)] = "special"
    return found


def outcome() -> dict[str, Any]:
    """The result of the run: its tables without times, and the newest checkpoint's tensors."""

    def work() -> dict[str, Any]:
        tables: dict[str, Any] = {}
        for name in ("metrics.csv", "evaluations.csv"):
            with (Path("run") / name).open(newline="") as file:
                tables[name] = [{k: v for k, v in row.items() if k not in VOLATILE} for row in csv.DictReader(file)]
        newest = checkpoint.list_checkpoints(Path("run/checkpoints"))[-1]
        state = checkpoint.load_checkpoint(newest.path)
        digest = hashlib.sha256()
        for part in ("online", "target", "optimizer"):
            add_to(digest, state["agent"][part])
        return {"steps": newest.steps, "tables": tables, "tensors": digest.hexdigest()}

    return dict(asked(work))


def add_to(digest: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key in sorted(value):
            digest.update(key.encode())
            add_to(digest, value[key])
    else:
        digest.update(value.numpy().tobytes())


@dataclass
class Bench:
    """The initial state of all trials."""

    folder: Path
    """with `run` of 96 steps, `c.yaml`, and `network.pt` to import"""
    whole: dict[str, Any]
    """the outcome of 144 steps without any disturbance"""

    def copy_to(self, folder: Path) -> None:
        shutil.copytree(self.folder, folder, symlinks=True)


def make_bench(folder: Path) -> Bench:
    """Create the run, and train a copy of it to its end."""
    folder.mkdir()
    os.chdir(folder)
    Path("c.yaml").write_text(dump_yaml(CONFIG))
    if command(*TRAIN).status != 0 or command("evaluate", "run", "--games", "2", "--device", "cpu").status != 0:
        raise Failure("the run without any disturbance fails: " + Path("err").read_text())
    forked(write_network)
    shutil.copytree("run", "kept")
    if command(*GO_ON).status != 0:
        raise Failure("the run without any disturbance does not go on: " + Path("err").read_text())
    whole = outcome()
    shutil.rmtree("run")
    Path("kept").rename("run")
    return Bench(folder, whole)


def write_network() -> None:
    """Write a network of Catch to import, in three file formats."""
    from wn_dqn.envs.catch import SPEC
    from wn_dqn.nn.networks import NatureNetwork
    from wn_dqn.nn.standard import PLAIN

    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape, generator=generator)
        for name, tensor in NatureNetwork(PLAIN, SPEC.obs_shape, 3).state_dict().items()
    }
    torch.save(state, "network.pt")
    Path("network.safetensors").write_bytes(save_safetensors(state))
    with zipfile.ZipFile("network.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.pth", Path("network.pt").read_bytes())


def require_whole(bench: Bench, *, but: str = "") -> None:
    """Raise Failure unless the run has ended like an undisturbed one."""
    found = outcome()
    for key, value in bench.whole.items():
        if found[key] != value and key != but:
            raise Failure(f"wrong load or lost row: {key} is {str(found[key])[:600]}, not {str(value)[:600]}")


def require_victim() -> None:
    for name in ("victim", "victims/file"):
        if Path(name).read_bytes() != VICTIM:
            raise Failure(f"touched victim: {name} is {Path(name).read_bytes()[:50]!r}")
    if sorted(os.listdir("victims")) != ["file"]:
        raise Failure(f"touched victim: {sorted(os.listdir('victims'))}")


def plant_victims() -> None:
    Path("victim").write_bytes(VICTIM)
    Path("victims").mkdir()
    Path("victims/file").write_bytes(VICTIM)


# ---- classes of trials -----------------------------------------------------------------------------------------------


def damaged_files(bench: Bench, rng: random.Random) -> None:
    """Files of a run damaged, gone or replaced: refused and as it was, or equal to one that was not disturbed."""
    paths = [path for path in files_of(Path("run")) if "tfevents" not in path.name]
    for path in rng.sample(paths, rng.choice((1, 1, 1, 2, 3))):
        if path.parent.exists():
            replace_file(path, rng)
    for reader in (
        ["checkpoint", "verify", "run"],
        ["card", "run"],
        ["evaluate", "run", "--games", "1", "--device", "cpu"],
    ):
        if rng.random() < 0.3:
            command(*reader)
    before = contents(Path("run"))
    ended = command(*GO_ON)
    if "could not be saved" in ended.err:  # a folder has the name of a file that was to be written
        for path in [path for path in Path("run/replay").iterdir() if path.is_dir()]:
            path.rmdir()
        ended = command(*GO_ON)
    if ended.status == 0:
        require_whole(bench)
    elif contents(Path("run")) != before:
        changed = [key for key in before if contents(Path("run")).get(key) != before[key]]
        raise Failure(f"lost: the run was refused, and yet {changed} changed")


def reports(bench: Bench, rng: random.Random) -> None:
    """Tables, records and a config that are damaged or forged, read by what reports."""
    name = rng.choice(
        ("metrics.csv", "evaluations.csv", "reevaluations.jsonl", "provenance.json", "status.json", "config.yaml")
    )
    path = Path("run") / name
    leave_few_columns(Path("run"))
    if name.endswith("csv") and rng.random() < 0.7:
        rows = [line.split(",") for line in path.read_text().splitlines()]
        for _ in range(rng.choice((1, 2, 5))):
            row = rng.choice(rows)
            row[rng.randrange(len(row))] = str(rng.choice((*NASTY, 1e308, -1e308, "1" * 200_000)))
        path.write_text("".join(",".join(row) + "\n" for row in rows), errors="replace")
    elif name.endswith(("json", "jsonl")) and rng.random() < 0.7:
        path.write_text(json.dumps(mutated_tree(json.loads(path.read_bytes()), rng)))
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))
    args = [["plot", "run", "-o", "a.svg", "--smooth", "3"], ["report", "run", "-o", "a.html", "--price-per-hour", "1"]]
    args += [
        ["card", "run"],
        ["checkpoint", "list", "run"],
        ["export", "run", "--format", "safetensors", "-o", "a.safetensors"],
    ]
    for each in rng.sample(args, 2):
        command(*each)


def leave_few_columns(run: Path) -> None:
    """A report draws every column of the metrics, in seconds."""
    rows = [line.split(",")[:6] for line in (run / "metrics.csv").read_text().splitlines()]
    (run / "metrics.csv").write_text("".join(",".join(row) + "\n" for row in rows))


def mutated_tree(tree: Any, rng: random.Random) -> Any:
    """A JSON value with something else in a place or two."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        place, keys = tree, list(range(len(tree))) if isinstance(tree, list) else list(tree)
        while keys:
            key = rng.choice(keys)
            inner = place[key]
            keys = (
                list(range(len(inner))) if isinstance(inner, list) else list(inner) if isinstance(inner, dict) else []
            )
            if not keys or rng.random() < 0.3:
                if rng.random() < 0.15:
                    del place[key]
                elif isinstance(place, dict) and rng.random() < 0.1:
                    place[rng.choice(("x", "", "\ud800", "steps"))] = inner
                else:
                    place[key] = rng.choice(
                        (*NASTY[:-1], "\ud800", 1e308, "x" * 20_000, 10**4000 if rng.random() < 0.1 else 5)
                    )
                break
            place = inner
    return tree


def forged_checkpoints(bench: Bench, rng: random.Random) -> None:
    """Checkpoints of another content, with hashes that are right."""
    for path in sorted(Path("run/checkpoints").iterdir()):
        state, tensors = path / "state.json", path / "tensors.safetensors"
        if rng.random() < 0.6:
            state.write_text(json.dumps(mutated_tree(json.loads(state.read_bytes()), rng)))
        else:
            tensors.write_bytes(forged_tensors(tensors.read_bytes(), rng))
        manifest = json.loads((path / "manifest.json").read_bytes())
        for file in (state, tensors):
            data = file.read_bytes()
            manifest["files"][file.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if rng.random() < 0.3:
            mutated_tree(manifest, rng)
        manifest.pop("sha256", None)
        text = json.dumps({**manifest, "sha256": checkpoint._digest(manifest)})
        (path / "manifest.json").write_text(text)
    for args in (
        ["checkpoint", "verify", "run"],
        ["evaluate", "run", "--games", "1", "--device", "cpu", "--json"],
        GO_ON,
    ):
        if rng.random() < 0.7:
            command(*args, setup=bounded_games)


def forged_tensors(data: bytes, rng: random.Random) -> bytes:
    """Tensors with other shapes, types, names and numbers."""
    tensors = load_safetensors(data)
    for name in rng.sample(sorted(tensors), rng.choice((1, 1, 2))):
        tensor = tensors[name]
        match rng.randrange(6):
            case 0:
                del tensors[name]
            case 1:
                tensors[f"{name}x"] = tensors.pop(name)
            case 2:
                tensors[name] = tensor.to(
                    rng.choice((torch.float64, torch.int64, torch.uint8, torch.bfloat16, torch.bool))
                )
            case 3:
                tensors[name] = torch.zeros(rng.choice(((), (0,), (1,), (3, 8), (8,), (100_000,))), dtype=tensor.dtype)
            case 4 if tensor.is_floating_point():
                tensors[name] = torch.full_like(tensor, rng.choice((float("nan"), float("inf"), 1e30, -1.0)))
            case _:
                tensors[name] = torch.full_like(tensor, 1 if tensor.dtype == torch.bool else 99)
    return bytes(save_safetensors({name: tensor.contiguous() for name, tensor in tensors.items()}))


def bounded_games() -> None:
    """A forged setting may ask for any number of games: after some steps, an evaluation is refused."""
    original = rollout._Record.add

    def add(record: Any, step: Any) -> None:
        original(record, step)
        if record.total_steps > 3000:
            raise RunError("it is long enough")

    rollout._Record.add = add  # type: ignore[assignment, method-assign]


LINK_NAMES = [
    *(".lock", ".config.yaml.tmp", ".status.json.tmp", "config.yaml", "status.json", "provenance.json", "metrics.csv"),
    *("evaluations.csv", "reevaluations.jsonl", ".reevaluations.jsonl.lock", "model_card.md", "curve.png"),
    *("events.out.tfevents.1.host.1", "replay/held_out.arrays", "replay/tail-0000000000-0000000096.arrays"),
]


def links(bench: Bench, rng: random.Random) -> None:
    """Links where the program writes: no file behind one is touched."""
    plant_victims()
    names = rng.sample(LINK_NAMES, rng.choice((1, 2, 3)))
    for name in names:
        path = Path("run") / name
        if path.is_dir():
            continue
        path.unlink(missing_ok=True)
        path.symlink_to(Path("victim").absolute())
    if rng.random() < 0.4:
        folder = Path("run") / rng.choice(
            ("replay", "checkpoints", "replay/segment-00000099.arrays", "checkpoints/step-0000000001")
        )
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.symlink_to(Path("victims").absolute())
    command(*GO_ON)
    command("evaluate", "run", "--games", "1", "--device", "cpu")
    command("card", "run")
    require_victim()


OUTPUTS = [
    ("plot", "run", ("png", "svg", "pdf")),
    ("report", "run", ("html",)),
    ("play", "run", ("gif", "webm")),
    ("export", "run", ("safetensors", "tex", "yaml", "json")),
]


def outputs(bench: Bench, rng: random.Random) -> None:
    """Files of others where a command is asked to write."""
    plant_victims()
    name, source, suffixes = rng.choice(OUTPUTS)
    target = Path(f"mine.{rng.choice(suffixes)}")
    signs = (
        VICTIM,
        b"<html>mine",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a" + bytes(9),
        b"%PDF-1.4\n",
        b"<svg>mine</svg>",
        b"{}",
    )
    kind = rng.choice(("file", "link", "folder", "run"))
    if kind == "file":
        target.write_bytes(rng.choice(signs))
    elif kind == "link":
        target.symlink_to("victim")
    elif kind == "folder":
        target.mkdir()
    else:
        target = rng.choice(files_of(Path("run")))
    before = target.read_bytes() if target.is_file() else None
    extra = {"play": ["--max-frames", "3", "--device", "cpu"], "export": ["--format", "safetensors"]}.get(name, [])
    command(name, source, *extra, "-o", str(target))
    if before is not None and target.read_bytes() != before:
        raise Failure(f"touched victim: {target}")
    require_victim()


def streams(bench: Bench, rng: random.Random) -> None:
    """Standard streams that are closed, full or broken: the run ends as it would have."""
    kinds = tuple(rng.choice(("null", "file", "full", "broken", "closed")) for _ in range(3))
    kinds = ("null" if kinds[0] in ("full", "broken", "file") else kinds[0], *kinds[1:])
    ended = command(*GO_ON, streams=kinds)  # type: ignore[arg-type]
    if ended.status != 0:
        raise Failure(f"streams {kinds}: exit status {ended.status}: {ended.err[-500:]}")
    require_whole(bench)
    before = Path("run/reevaluations.jsonl").read_bytes().count(b"\n")
    command("evaluate", "run", "--games", "1", "--device", "cpu", streams=kinds)  # type: ignore[arg-type]
    if Path("run/reevaluations.jsonl").read_bytes().count(b"\n") != before + 1:
        raise Failure(f"lost row: streams {kinds}, and the test is not kept")


def limits(bench: Bench, rng: random.Random) -> None:
    """Files that may not grow past a size, as on a full disk: later the run goes on, and nothing is lost."""
    size = rng.choice((1, 100, 1000, 2000, 5000, 10_000, 20_000, 50_000))

    def setup() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    if rng.random() < 0.3:
        shutil.rmtree("run")
    records = Path("run/reevaluations.jsonl")
    before = records.read_bytes() if records.exists() else b""
    command(*GO_ON, setup=setup, streams=("null", "null", "null"))
    if records.exists():
        command("evaluate", "run", "--games", "1", "--device", "cpu", setup=setup, streams=("null", "null", "null"))
        if not records.read_bytes().startswith(before) or not records.read_bytes().endswith(b"\n"):
            raise Failure("lost row: a record was cut")
    ended = command(*GO_ON)
    if ended.status != 0:
        raise Failure(f"after a limit of {size} bytes the run does not go on: {ended.err[-500:]}")
    require_whole(bench)


CALLS = [
    (os, "fsync"),
    (os, "ftruncate"),
    (Path, "replace"),
    (Path, "rename"),
    (Path, "unlink"),
    (Experiment, "after_step"),
]


def kills(bench: Bench, rng: random.Random) -> None:
    """Killed or stopped at any moment, up to three times: the run goes on, and ends in the same bits."""
    if rng.random() < 0.5:
        shutil.rmtree("run")
    for _ in range(rng.choice((1, 1, 2, 3))):
        called = rng.choice(CALLS)
        sent = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        number, late = rng.randrange(20), rng.random() < 0.5
        command(*GO_ON, setup=functools.partial(die_at, *called, number, sent, late=late))
    ended = command(*GO_ON)
    if ended.status != 0:
        raise Failure(f"a run that was killed does not go on: {ended.err[-500:]}")
    require_whole(bench)


def die_at(owner: Any, name: str, number: int, sent: int, *, late: bool) -> None:
    """Send this process a signal before, or after, the `number`-th call of a function."""
    original, calls = getattr(owner, name), Counter[str]()

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        if not late and calls[name] == number:
            os.kill(os.getpid(), sent)
        result = original(*args, **kwargs)
        if late and calls[name] == number:
            os.kill(os.getpid(), sent)
        return result

    setattr(owner, name, call)


def tampered(bench: Bench, rng: random.Random) -> None:
    """Something of a run changed while it trains: stopped with one line, or ended as it would have."""
    step, path = rng.choice((104, 112, 120, 128)), rng.choice(files_of(Path("run")))
    if "tfevents" in path.name:
        return
    kind = rng.choice(("damage", "remove", "move", "lock"))

    def tamper() -> None:
        if kind == "move":
            Path("run").rename("elsewhere")
        elif kind == "lock":
            Path("run/.lock").unlink()
        elif path.exists():
            data = path.read_bytes()
            path.unlink()
            if kind == "damage":
                path.write_bytes(damaged(data, rng))

    def setup() -> None:
        original = Experiment.after_step

        def after_step(self: Any, state: Any) -> None:
            original(self, state)
            if state.steps == step:
                tamper()

        Experiment.after_step = after_step  # type: ignore[method-assign]

    ended = command(*GO_ON, setup=setup)
    if kind == "move" and (ended.status == 0 or Path("run").exists()):
        raise Failure("a run that was moved was begun again where it was")
    if ended.status == 0 and command(*GO_ON).status == 0:
        require_whole(bench)


def configs(bench: Bench, rng: random.Random) -> None:
    """Any value of any setting, and damaged texts: settings, or one line."""
    data: dict[str, Any] = json.loads(json.dumps(CONFIG))
    keys = [key for key, _, _ in setting_help()]
    for key in rng.sample(keys, rng.choice((1, 1, 2, 5))):
        *sections, last = key.split(".")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = rng.choice(NASTY)
    try:
        text = dump_yaml(data).encode()
    except (ValueError, TypeError):
        text = repr(data).encode(errors="replace")
    if rng.random() < 0.4:
        text = damaged(text, rng)
    if rng.random() < 0.1:
        text = aliases(rng)
    Path("c.yaml").write_bytes(text)
    command(*TRAIN[:-4], "--run-dir", "new", "--device", "cpu", setup=nothing_long)
    shutil.copy("c.yaml", "run/config.yaml")
    command(
        *rng.choice((["checkpoint", "list", "run"], ["card", "run"], ["evaluate", "run", "--games", "1"])),
        setup=bounded_games,
    )


def aliases(rng: random.Random) -> bytes:
    """Aliases of aliases, perhaps merged, perhaps within themselves."""
    lines = ["a0: &a0 {x: 1, y: [1, 2]}"]
    for number in range(1, rng.choice((2, 5, 12))):
        names = [
            f"*a{rng.randrange(max(number - 2, 0), number + (rng.random() < 0.02))}" for _ in range(rng.choice((1, 9)))
        ]
        inner = ", ".join(names)
        lines.append(f"a{number}: &a{number} " + (f"{{<<: [{inner}]}}" if rng.random() < 0.5 else f"[{inner}]"))
    return "\n".join([*lines, "game: CatchVector"]).encode()


def protocols(bench: Bench, rng: random.Random) -> None:
    """Any value of any field of a protocol."""
    fields = ["name", "epsilon", "steps", "games", "max_game_frames", "repeat_action_probability", "full_action_set"]
    data = {"epsilon": 0.1, "games": 1} | {
        name: rng.choice(NASTY) for name in rng.sample(fields, rng.choice((1, 2, 3)))
    }
    try:
        text = dump_yaml(data).encode()
    except (ValueError, TypeError):
        text = repr(data).encode(errors="replace")
    Path("p.yaml").write_bytes(damaged(text, rng) if rng.random() < 0.3 else text)
    command("evaluate", "run", "--protocol", "p.yaml", "--device", "cpu", setup=bounded_games)


def nothing_long() -> None:
    """Replace the slow parts of commands: training, long evaluations, and waiting for a reader of the live page."""
    bounded_games()
    launch.train_run = lambda settings, *_args, **_kwargs: 0 * len(dump_yaml(settings.model_dump()))
    doctor.examine = lambda _device: iter(["fine"])  # type: ignore[assignment]
    uvicorn.Server.run = lambda *_args, **_kwargs: None  # type: ignore[method-assign]


def command_lines(bench: Bench, rng: random.Random) -> None:
    """Any options with any values."""
    group: Any = cli.cli
    args: list[str] = []
    while isinstance(group, click.Group):
        name = rng.choice([*group.commands])
        args.append(name)
        group = group.commands[name]
    if args[0] == "play":
        args += ["--max-frames", "3"]
    chosen = rng.sample(group.params, min(rng.choice((0, 1, 1, 2, 3, 99)), len(group.params)))
    for param in [param for param in group.params if param in chosen or (param.required and rng.random() < 0.9)]:
        if param.name in ("help", "max_frames", "jobs") or ("plugin" in str(param.name) and rng.random() < 0.9):
            continue  # an invalid plugin hides all other mistakes
        if isinstance(param, click.Argument):
            args.append(rng.choice(("network.pt" if args[0] == "import" else "run",) * 9 + (rng.choice(WORDS),)))
        elif getattr(param, "is_flag", False):
            args.append(param.opts[0])
        else:
            args += [param.opts[0], value_for(param, rng)]
    if "onnx" in args or (args[0] == "export" and "--format" not in args):
        args += ["--format", "safetensors"]
    command(*args, setup=nothing_long)


def value_for(param: click.Parameter, rng: random.Random) -> str:
    """A value for an option: of its type, more often than not."""
    if param.name in ("output", "out", "run_dir"):
        return rng.choice(("new", "a.png", "a.svg", "a.gif", "a.html", "a.safetensors", "x" * 300, "", "no/where"))
    if rng.random() < 0.4:
        return rng.choice(WORDS)
    if isinstance(param.type, click.Choice):
        return str(rng.choice(param.type.choices))
    if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType):
        return rng.choice(("0", "1", "2", "7", "0.5", "1e3"))
    return rng.choice(("cpu", "best", "last", "48", "CatchVector", "Catch", "paper", "90s", "wn", "learning.seed=1"))


def imports(bench: Bench, rng: random.Random) -> None:
    """Damaged networks to import."""
    name = rng.choice(("network.pt", "network.safetensors", "network.zip"))
    path = Path(name)
    data = path.read_bytes()
    near = rng.choice((1000, 2000, len(data)))  # headers and pickles are at the beginning, or at the end
    if rng.random() < 0.5:
        path.write_bytes(damaged(data[:near], rng) + data[near:])
    elif rng.random() < 0.8:
        path.write_bytes(data[:-near] + damaged(data[-near:], rng))
    else:
        replace_file(path, rng)
    ended = command("import", name, "-o", "new", "--game", rng.choice(("Catch", "Catch", "Pong", "CatchVector")))
    if ended.status == 0 and command("checkpoint", "verify", "new").status != 0:
        raise Failure("wrong load: what was imported cannot be verified")
    if ended.status != 0 and Path("new").exists():
        raise Failure("a run was begun with a network that was refused")


def names(bench: Bench, rng: random.Random) -> None:
    """Runs and games with names that are markup, escapes, or no text."""
    odd = (
        "[/b]",
        "[lr=1e-4]",
        "a\udcffb",
        "\x1b[31mred",
        "$\\frac{$",
        "{x}",
        "-x",
        "a b\nc",
        "é\u202e",
        "%s%n",
        "<b>&amp;",
    )
    name = rng.choice(odd)
    leave_few_columns(Path("run"))
    Path(name).parent.mkdir(exist_ok=True)
    Path("run").rename(name)
    Path("matplotlibrc").write_text("axes.grid: maybe\nfont.size: 400\n")
    where = f"./{name}"
    args = [
        ["plot", where, "-o", "a.svg"],
        ["report", where, "-o", "a.html"],
        ["card", where],
        ["checkpoint", "verify", where],
    ]
    args += [
        ["evaluate", where, "--games", "1", "--device", "cpu"],
        ["play", where, "--max-frames", "2", "-o", "a.gif"],
    ]
    for each in rng.sample(args, 2):
        ended = command(*each)
        if ended.status != 0:
            raise Failure(f"a run called {name!r}: {ended.err[-500:]}")
        if any(
            not char.isprintable() and char not in "\n\t"
            for char in Path("out").read_text(errors="surrogateescape") + ended.err
        ):
            raise Failure(f"a run called {name!r} prints what cannot be shown")


CLASSES: dict[str, Callable[[Bench, random.Random], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        *(damaged_files, command_lines, configs, forged_checkpoints, reports, kills, imports, links),
        *(outputs, streams, limits, tampered, protocols, names),
    )
}


# ---- the whole -------------------------------------------------------------------------------------------------------


def run_trial(bench: Bench, folder: Path, seed: int, number: int) -> None:
    """Run the trial with this number in `folder`. Raises Failure if something is wrong."""
    name = class_of(number)
    bench.copy_to(folder)
    os.chdir(folder)
    CLASSES[name](bench, random.Random(f"{seed} {number}"))


def class_of(number: int) -> str:
    return list(CLASSES)[number % len(CLASSES)]


def import_everything() -> None:
    """Import all modules once, because each trial is a fork of this process."""
    make_settings(CONFIG)
    for package in (wn_dqn, wn_dqn_agents):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def stop(message: str) -> NoReturn:
    print(message, flush=True)
    sys.exit(1)


def numbers(trial: int | None, minutes: float) -> Iterator[int]:
    """The given trial, or all trials from the first on, until the time is over."""
    if trial is not None:
        yield trial
        return
    end_s, number = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end_s:
        yield number
        number += 1


@click.command()
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of all trials.")
@click.option("--minutes", type=float, default=1.0, show_default=True, help="Duration of the test.")
@click.option("--trial", type=int, help="Repeat the trial of this number, and keep its folder.")
def main(seed: int, minutes: float, trial: int | None) -> None:
    """Try to break the program; exit status 1 at the first trial that does."""
    import_everything()
    torch.set_num_threads(1)
    progress.LINE_PERIOD_S = float("inf")
    root = Path(tempfile.mkdtemp(prefix="wn-dqn-fuzz-"))
    os.environ.update(XDG_CACHE_HOME=str(root / "cache"), WN_DQN_KERNELS="0", HOME=str(root))
    # Without fsync: power cuts are not tested, and the disk's time would count.
    with mock.patch.object(os, "fsync", lambda descriptor: os.fstat(descriptor)):
        bench = make_bench(root / "bench")
        made: Counter[str] = Counter()
        for number in numbers(trial, minutes):
            folder = root / f"trial-{number}"
            try:
                run_trial(bench, folder, seed, number)
            except Failure as failure:
                print(f"{class_of(number)}: {failure}\n\nafter {made.total()} trials; {folder} is kept. To repeat:")
                stop(f"python scripts/fuzz.py --seed {seed} --trial {number}")
            made[class_of(number)] += 1
            os.chdir(root)
            if trial is None:
                shutil.rmtree(folder, ignore_errors=True)
    for name in CLASSES:
        print(f"{name:20} {made[name]:6} trials, 0 failures")
    print(f"{'together':20} {made.total():6} trials, 0 failures, seed {seed}")
    if trial is None:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
