"""Fresh games with networks of runs: what is printed, what the run keeps, and what does not change it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import wn_dqn
from small_runs import settings_for, train
from torch import nn

from wn_dqn import __version__
from wn_dqn.cli import main as cli
from wn_dqn.config.games import find_game
from wn_dqn.errors import UsageError
from wn_dqn.evaluation import protocols
from wn_dqn.evaluation.protocols import PROTOCOLS, changed_protocol, find_protocol
from wn_dqn.interop import import_run
from wn_dqn.nn.networks import NatureNetwork
from wn_dqn.nn.standard import PLAIN
from wn_dqn.runs.records import read_reevaluations
from wn_dqn.runs.reevaluation import Report, append_to_run, checkpoint_paths, evaluate_policy, read_records
from wn_dqn.system.progress import ProgressReporter

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reevaluation") / "run"
    assert train(settings_for(), folder) == 0
    return folder


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["wn-dqn", "evaluate", *map(str, args), "--device", "cpu"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, *capsys.readouterr()


def records(run: Path) -> list[dict[str, Any]]:
    path = run / "reevaluations.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    return found


def test_many_checkpoints_whatever_the_number_of_jobs(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same games are played by one process and by two; each outcome is kept by the run."""
    outcomes, kept = [], []
    for jobs in (1, 2):
        args = (run, "--all", "--protocol", "nature", "--games", 12, "--jobs", jobs, "--seed", 5)
        status, out, _ = command(capsys, monkeypatch, *args, "--json")
        assert status == 0
        outcomes.append(json.loads(out))
        lines = sorted(records(run), key=lambda record: record["checkpoint"])
        assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.pop("utc")) for record in lines)
        kept.append(lines)
    assert outcomes[0] == outcomes[1]
    assert kept[0] == kept[1]
    paths = sorted((run / "checkpoints").glob("step-*"))
    assert [Path(outcome["policy"]) for outcome in outcomes[0]] == paths
    assert len(paths) == len(kept[0]) > 1
    assert len({tuple(outcome["scores"]) for outcome in outcomes[0]}) > 1
    for record, outcome in zip(kept[0], outcomes[0], strict=True):
        returns = np.array(outcome["scores"])
        assert record == {
            "checkpoint": Path(outcome["policy"]).name,
            "steps": int(Path(outcome["policy"]).name[5:15]),
            "protocol": "nature with games 12",
            "protocol_settings": {
                "epsilon": 0.05, "steps": None, "games": 12, "max_game_frames": 18_000,
                "repeat_action_probability": 0.0, "full_action_set": False, "max_noop_frames": 30,
            },
            "games": 12, "mean": pytest.approx(returns.mean()), "std": pytest.approx(returns.std(ddof=1)),
            "median": np.median(returns), "seed": 5, "returns": returns.tolist(), "wn_dqn_version": __version__,
        }  # fmt: skip


def test_a_table_of_many(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and checkpoints may be mixed; each is tested once."""
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    first = sorted((run / "checkpoints").glob("step-*"))[0]
    args = (first, run, last, "--checkpoint", "last", "--protocol", "nature", "--games", 1, "--jobs", 1)
    status, out, _ = command(capsys, monkeypatch, *args)
    assert status == 0
    assert out.startswith("protocol nature with games 1, seed 0\n")
    assert all(out.replace("\n", "").count(f"{path.name} ") == 1 for path in (first, last))
    assert [record["std"] for record in records(run)] == [None, None]  # JSON has no NaN


@pytest.mark.survives("such a name on a terminal", "its escape sequences are written out")
def test_a_table_of_runs_with_odd_names(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a mark of rich's nor an escape sequence is taken for what it means."""
    monkeypatch.chdir(tmp_path)
    names = ["a[/b]", "b\x1b[31m:smile:"]
    for name in names:
        shutil.copytree(run, name)
    status, out, _ = command(capsys, monkeypatch, *names, "--protocol", "nature", "--games", 1, "--jobs", 1)
    assert status == 0
    assert "a[/b]/checkpoints" in out
    assert "b\\x1b[31m:smile:/checkpoints" in out
    assert "\x1b" not in out
    status, out, _ = command(capsys, monkeypatch, names[1], "--protocol", "nature", "--games", 1)
    assert out.startswith("Catch: b\\x1b[31m:smile:/checkpoints")


def test_what_checkpoints_are_meant(run: Path, tmp_path: Path) -> None:
    paths = sorted((run / "checkpoints").glob("step-*"))
    assert checkpoint_paths([run], "last", all_of_a_run=False) == [paths[-1]]
    assert checkpoint_paths([run], "last", all_of_a_run=True) == paths
    assert checkpoint_paths([paths[0], run], "last", all_of_a_run=True) == paths
    with pytest.raises(UsageError, match="is not a run directory"):
        checkpoint_paths([run, tmp_path], "best", all_of_a_run=True)


def a_report(run: Path) -> Report:
    report = evaluate_policy(None, find_game("Catch"), PROTOCOLS["nature"], 8, 0, ProgressReporter())
    return replace(report, checkpoint=sorted((run / "checkpoints").glob("step-*"))[-1], trained_steps=320)


def test_only_a_run_keeps_records(run: Path, tmp_path: Path) -> None:
    """A line that was cut stays alone; a folder that cannot be written to is reported, and is no error."""
    report = a_report(run)
    path = run / "reevaluations.jsonl"
    path.write_text('{"checkpoint": "step-00')
    assert append_to_run(report) is None
    assert append_to_run(report) is None
    lines = path.read_text().splitlines()
    assert lines[0] == '{"checkpoint": "step-00'
    assert [json.loads(line)["returns"] for line in lines[1:]] == 2 * [report.result.scores]
    path.unlink()
    assert append_to_run(replace(report, checkpoint=None)) is None
    (tmp_path / "step-0000000320").mkdir()
    assert append_to_run(replace(report, checkpoint=tmp_path / "step-0000000320")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000320"]
    path.mkdir()  # nobody can append to that, root neither
    assert append_to_run(report) == f"this outcome is not kept in {path}: Is a directory"
    path.rmdir()


def test_a_damaged_line_is_named_and_the_others_are_used(run: Path, tmp_path: Path) -> None:
    """By `export`, `plot` and `card`. Two newlines, which older versions could write, damage nothing."""
    report = a_report(run)
    assert append_to_run(report) is None
    path = run / "reevaluations.jsonl"
    (kept,) = path.read_text().splitlines()
    path.write_bytes(f"{kept}\n\n[1]\n{kept[:30]}\n".encode() + b"\xff\n" + f'{kept}\n{{"steps": 1'.encode())
    expected = [f"{path} is damaged in line {number}: that test is left out" for number in (3, 4, 5, 7)]
    assert report.checkpoint is not None
    assert read_records(report.checkpoint) == ([json.loads(kept)] * 2, expected)
    warned = "".join(f"wn-dqn: {problem}\n" for problem in expected)
    network = tmp_path / "network.safetensors"
    status, _, err = wn_dqn("export", str(run), "-o", str(network), "--checkpoint", "last")
    assert (status, err) == (0, warned)
    assert json.loads((tmp_path / "network.safetensors.json").read_text())["scores"] == [json.loads(kept)] * 2
    for arguments in (("plot", str(run), "-o", str(tmp_path / "curve.svg")), ("card", str(run))):
        status, _, err = wn_dqn(*arguments)
        assert status == 0
        assert err.startswith(warned)
    path.unlink()


class TestProtocols:
    """Protocols of one's own."""

    def test_a_file(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "short.yaml"
        path.write_text("epsilon: 0.25\ngames: 7\nmax_noop_frames: 0\n")
        assert find_protocol(str(path)).name == "short"
        args = (run, "--protocol", path, "--epsilon", 1, "--sticky", 0.5, "--noops", 3, "--time-limit", "90s")
        status, out, _ = command(capsys, monkeypatch, *args, "--json")
        (record,) = records(run)
        assert status == 0
        assert record["protocol_settings"] == json.loads(out)["protocol_settings"] == {
            "epsilon": 1.0, "steps": None, "games": 7, "max_game_frames": 5_400, "repeat_action_probability": 0.5,
            "full_action_set": False, "max_noop_frames": 3,
        }  # fmt: skip
        assert record["protocol"].startswith("short with epsilon 1.0, ")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epsilon: 0.1\ngames: 1\nmax_game_frame: 5", "unknown key 'max_game_frame'; did you mean max_game_frames"),
            ("epsilon: 2\ngames: 1", "epsilon: Input should be less than or equal to 1"),
            ("epsilon: .nan\ngames: 1", "epsilon: Input should be"),
            ("epsilon: '0.1'\ngames: 1", "epsilon: Input should be a valid number"),
            ("epsilon: 0.1\ngames: 0", "games: Input should be greater than 0"),
            ("epsilon: 0.1\ngames: true", "games: Input should be a valid integer"),
            ("games: 1", "epsilon: "),
            ("epsilon: 0.1", "a protocol ends after a number of steps or of games: give one of the two"),
            ("- epsilon", "must be a mapping of settings, not a list"),
            ("epsilon: [", "is not valid YAML"),
        ],
    )
    def test_mistakes_in_a_file(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        with pytest.raises(UsageError, match=re.escape(message)) as caught:
            find_protocol(str(path))
        assert str(path) in str(caught.value)

    def test_a_changed_protocol_says_so(self) -> None:
        nature = PROTOCOLS["nature"]
        assert changed_protocol(nature, epsilon=0.05) is nature
        changed = changed_protocol(nature, epsilon=0.01, max_game_frames=None)
        assert changed.name == "nature with epsilon 0.01, max_game_frames None"
        assert changed_protocol(changed, games=3).name == f"{changed.name}, games 3"
        assert (changed.epsilon, changed.max_game_frames, changed.games) == (0.01, None, 30)


def test_a_worker_that_dies_is_told(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is killed for its memory."""
    monkeypatch.setattr("wn_dqn.runs.reevaluation._begin_worker", _die)
    status, out, err = command(capsys, monkeypatch, run, "--all", "--jobs", 2)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == (
        "wn-dqn: a process that tested checkpoints died; with fewer --jobs there is more memory"
    )


def _die(_device: str) -> None:
    os._exit(9)


ORPHANS = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from wn_dqn.runs import reevaluation

def play_for_ever():
    os.write(1, b"%d\\n" % os.getpid())  # whole: print() writes the line's end apart where Python does not buffer
    while True:
        signal.pause()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=reevaluation._begin_worker, initargs=("cpu",)) as executor:
        for _ in range(2):
            executor.submit(play_for_ever)
"""


@pytest.mark.survives("a test in several processes whose command is killed", "its processes end, too")
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to end a process with")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command(number: signal.Signals, tmp_path: Path) -> None:
    """Their standard output is the command's: it ends when the last of them has."""
    program = tmp_path / "program.py"
    program.write_text(ORPHANS)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as command:
        assert command.stdout is not None
        workers: list[int] = []
        try:
            workers += [int(command.stdout.readline()) for _ in range(2)]
            command.send_signal(number)
            command.communicate(timeout=60)
        except BaseException:
            command.kill()
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            raise
    assert command.returncode == -number


@pytest.mark.survives(
    "a policy that never starts its game, in a test of games without a time limit",
    "games are truncated after an hour of play; the name of the protocol and the output say so",
)
def test_a_policy_that_never_starts_its_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of zeros presses no button in Breakout. The hour is four seconds here."""
    monkeypatch.setattr(protocols, "LONGEST_GAME_FRAMES", 240)
    network = NatureNetwork(PLAIN, (4, 84, 84), 4)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    settings = import_run.settings_for_network({"game": "Breakout", "param": "standard"}, network)
    import_run.import_run(settings, tmp_path / "run", network, CPU)
    args = ["evaluate", str(tmp_path / "run"), "--games", "3", "--num-envs", "2", "--epsilon", "0", "--device", "cpu"]
    status, out, _ = wn_dqn(*args)
    assert status == 0
    assert "max_game_frames 240" in out
    assert "3 of these games were truncated and count with the score they had." in out
    (test,), _ = read_reevaluations(tmp_path / "run")
    assert (test.games, test.mean, test.record["protocol_settings"]["max_game_frames"]) == (3, 0.0, 240)
