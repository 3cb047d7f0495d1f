"""Tests that nothing is lost: sweeps whose children, driver and Ray nodes are killed equal plain runs to the bit.

    python scripts/prove_sweeps.py local ray driver many

`local` kills children at random. `ray` makes a cluster of two nodes on this machine, and kills all processes of a node
while it trains. `driver` kills the driver on such a cluster, and starts it again. `many` makes a sweep of 1,000 cells,
and measures plan, status and the driver's memory. `overhead` compares --jobs 2 with the same runs by hand, in turns.
Kills are by SIGKILL. Needs the extra wn-dqn[ray]; everything is bound to 127.0.0.1. Some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wn_dqn.errors import UsageError
from wn_dqn.runs.status import holder, read_status
from wn_dqn.sweeps.cells import Cell, read_manifest

_COMMAND = (sys.executable, "-m", "wn_dqn")
_STUDY = """\
base: catch-vector
directory: {folder}
set: {{ learning.total_steps: {steps}, output.save_replay: true, output.checkpoint_period_steps: 1000 }}
grid: {{ param: [standard, wn], seed: 0-{last} }}
"""
_ANSWER_S = 300.0


def write_study(folder: str, steps: int, seeds: int) -> Path:
    path = Path(f"{folder}.yaml")
    path.write_text(_STUDY.format(folder=folder, steps=steps, last=seeds - 1))
    return path


def sweep(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*_COMMAND, "sweep", *words])


def finish(process: subprocess.Popen[bytes]) -> None:
    status = process.wait(_ANSWER_S)
    if status:
        raise SystemExit(f"the sweep ended with status {status}")


def saved_steps(cell: Cell) -> int:
    """Steps of its newest checkpoint."""
    return int(read_status(cell.folder).get("saved_steps") or 0)


def cells_of(folder: str) -> list[Cell]:
    """The cells of a sweep; empty before there is a manifest."""
    with contextlib.suppress(UsageError):
        return list(read_manifest(Path(folder)).cells)
    return []


def running(cells: list[Cell]) -> list[tuple[Cell, int]]:
    """The cells that are in training and have saved something, each with its process."""
    found = []
    for cell in cells:
        words = holder(cell.folder).split()
        if words[:1] == ["process"] and (read_status(cell.folder).get("saved_steps") or 0) > 0:
            found.append((cell, int(words[1])))
    return found


def when_running(folder: str, count: int = 1) -> list[tuple[Cell, int]]:
    """Wait until `count` cells of a sweep are in training and have saved something."""
    until_s = time.monotonic() + _ANSWER_S
    while time.monotonic() < until_s:
        if len(found := running(cells_of(folder))) >= count:
            return found
        time.sleep(0.1)
    raise SystemExit("nothing was trained in time")


def digest(run: Path) -> str:
    """A digest of the newest checkpoint: its tensors, and everything else that must agree."""
    checkpoint = max((run / "checkpoints").glob("step-*"))
    hashed = hashlib.sha256(checkpoint.name.encode())
    for file in sorted(checkpoint.glob("*.safetensors")):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


def require_same(folder: Path, plain: Path) -> None:
    names = [cell.name for cell in read_manifest(folder).cells]
    states = [read_status(folder / name).get("status") for name in names]
    same = [digest(folder / name) == digest(plain / name) for name in names]
    resumed = sum("resumed from" in (folder / name / "train.log").read_text() for name in names)
    print(
        f"{folder}: {states.count('finished')} of {len(names)} finished, {resumed} of them went on from a checkpoint;"
    )
    print(f"  {sum(same)} of {len(names)} final checkpoints are bit-equal to those of plain runs", flush=True)
    if not all(same) or states.count("finished") < len(names):
        raise SystemExit("not all are the same")


def train_by_hand(folder: Path) -> None:
    """Every command of the manifest in `folder`, one after another."""
    for cell in read_manifest(folder).cells:
        subprocess.run([*_COMMAND, *cell.command], check=True, stderr=subprocess.DEVNULL)


def prove_local(steps: int, seeds: int, generator: random.Random) -> None:
    process = sweep("run", str(write_study("local", steps, seeds)), "--jobs", "2")
    killed: dict[str, int] = {}  # at which checkpoint; one that has saved nothing since is spared
    kills = 0
    while process.poll() is None and kills < 8:
        victims = [
            (cell, trainer)
            for cell, trainer in running(cells_of("local"))
            if saved_steps(cell) > killed.get(cell.name, 0)
        ]
        if victims:
            cell, trainer = generator.choice(victims)
            killed[cell.name] = saved_steps(cell)
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainer, signal.SIGKILL)
                kills += 1
        time.sleep(2 * generator.random())
    finish(process)
    print(f"local: {kills} children were killed")
    require_same(Path("local"), Path("plain"))


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """A head without cores and two nodes of one core, all on 127.0.0.1."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    from ray.cluster_utils import Cluster

    common = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**common, "num_cpus": 0, "include_dashboard": False})
    try:
        made.workers = [made.add_node(num_cpus=1, memory=4 * 2**30, **common) for _ in range(2)]
        yield made
    finally:
        made.shutdown()


def kill_node(raylet: int) -> int:
    """Kill a node like a power cut: its raylet, its workers, and their runs. Returns the number of processes."""
    import psutil

    node = psutil.Process(raylet)
    node.suspend()  # it starts no worker while they are counted
    processes = [node, *node.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return len(processes)


def prove_ray(steps: int, seeds: int) -> None:
    with cluster() as made:
        process = sweep("run", str(write_study("ray", steps, seeds)), "--on", "ray", "--address", made.address)
        when_running("ray", 2)
        killed = kill_node(made.workers[0].all_processes["raylet"][0].process.pid)
        print(f"ray: a node was killed, its raylet and {killed - 1} other processes", flush=True)
        finish(process)
    require_same(Path("ray"), Path("plain"))


def prove_driver(steps: int, seeds: int) -> None:
    with cluster() as made:
        words = ("run", str(write_study("driver", steps, seeds)), "--on", "ray", "--address", made.address)
        process = sweep(*words)
        when_running("driver", 2)
        process.kill()
        process.wait()
        print("driver: it was killed, and is started again", flush=True)
        finish(sweep(*words))
    require_same(Path("driver"), Path("plain"))


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time, both in seconds, of work that child processes do."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    wall_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def time_of(*words: str) -> str:
    """The median wall time, and processor time, of three `sweep` commands, as text."""
    command = [*_COMMAND, "sweep", *words]
    took = [spent(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(3)]
    wall_s, processor_s = (statistics.median(each) for each in zip(*took, strict=True))
    return f"{wall_s:.2f} s ({processor_s:.2f} s of processors)"


def measure_many() -> None:
    """1,000 cells of which 999 are finished, and one is trained."""
    path = write_study("many", 20_000, 500)
    subprocess.run(
        [*_COMMAND, "sweep", "run", str(path), "--on", "slurm", "--dry-run"], check=True, capture_output=True
    )
    cells = read_manifest(Path("many")).cells
    finished = json.dumps({"status": "finished", "steps": 20_000, "saved_steps": 20_000})
    for cell in cells[1:]:
        cell.folder.mkdir()
        (cell.folder / "status.json").write_text(finished)
        (cell.folder / ".lock").touch()
    plan, status = time_of("plan", str(path)), time_of("status", "many")
    process = sweep("run", str(path))
    when_running("many")
    memory = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line)
    finish(process)
    peak_mib = int(memory.split()[1]) / 1024
    print(f"many: {len(cells):,} cells; plan {plan}, status {status}, driver's peak {peak_mib:.0f} MiB")


def train_two_at_a_time(cells: Sequence[Cell], folder: str) -> None:
    """Do the work of `--jobs 2` on two cores with xargs."""
    commands = [shlex.join([*_COMMAND, *cell.command, "--run-dir", f"{folder}/{cell.name}"]) for cell in cells]
    by_two = ["xargs", "-P2", "-I{}", "sh", "-c", "{} 2> /dev/null"]
    given = "\n".join(map(shlex.quote, commands))
    subprocess.run(by_two, input=given, text=True, check=True, env={**os.environ, "WN_DQN_CORES": "1"})


def measure_overhead(pairs: int) -> None:
    """The same four runs by `--jobs 2`, and two at a time by hand, in turns; who begins changes from pair to pair.

    Other work on the machine disturbs wall time. Processor time shows what the sweep itself adds.
    """
    ratios: list[tuple[float, float]] = []
    for number in range(pairs):
        path = write_study(f"jobs{number}", 30_000, 2)
        subprocess.run(
            [*_COMMAND, "sweep", "run", str(path), "--on", "slurm", "--dry-run"], check=True, capture_output=True
        )
        cells = read_manifest(Path(f"jobs{number}")).cells
        ways: dict[str, Callable[[], None]] = {
            "--jobs 2": lambda path=path: finish(sweep("run", str(path), "--jobs", "2")),
            "by hand": lambda cells=cells, number=number: train_two_at_a_time(cells, f"hand{number}"),
        }
        took = {name: spent(ways[name]) for name in sorted(ways, reverse=bool(number % 2))}
        wall, processor = (took["--jobs 2"][i] / took["by hand"][i] for i in range(2))
        ratios.append((wall, processor))
        shown = ", ".join(
            f"{name} {wall_s:.1f} s ({cpu_s:.1f} s of processors)" for name, (wall_s, cpu_s) in took.items()
        )
        print(f"overhead: {shown}; ratios {wall:.3f} and {processor:.3f}", flush=True)
    wall, processor = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"overhead: median ratio {wall:.3f} of wall time, {processor:.3f} of processor time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["local", "ray", "driver", "many", "overhead"])
    parser.add_argument("--steps", type=int, default=20_000, help="of a run")
    parser.add_argument("--seeds", type=int, default=4, help="of each of two parameterizations")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--pairs", type=int, default=3, help="of measurements of the overhead")
    args = parser.parse_args()
    os.environ["WN_DQN_CORES"] = "1"  # the last bits depend on the number of threads
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if {"local", "ray", "driver"} & {*args.what}:
            study = str(write_study("plain", args.steps, args.seeds))
            subprocess.run(
                [*_COMMAND, "sweep", "run", study, "--on", "slurm", "--dry-run"], check=True, stdout=subprocess.DEVNULL
            )
            train_by_hand(Path("plain"))
        if "local" in args.what:
            prove_local(args.steps, args.seeds, random.Random(args.seed))
        if "ray" in args.what:
            prove_ray(args.steps, args.seeds)
        if "driver" in args.what:
            prove_driver(args.steps, args.seeds)
        if "many" in args.what:
            measure_many()
        if "overhead" in args.what:
            measure_overhead(args.pairs)


if __name__ == "__main__":
    main()
