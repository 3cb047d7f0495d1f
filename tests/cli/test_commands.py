"""The command: what it prints, what it leaves behind, and how it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
from command import wn_dqn
from hypothesis import given
from hypothesis import strategies as st

from wn_dqn import __version__, api
from wn_dqn.cli.main import cli, main
from wn_dqn.config.files import parse_yaml, setting_help
from wn_dqn.errors import STOPPED
from wn_dqn.evaluation.rollout import Evaluation, GameResult
from wn_dqn.runs import bench, doctor, reevaluation, replay_memory
from wn_dqn.runs.checkpoint import load_checkpoint, save_checkpoint
from wn_dqn.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("small_network")
TINY = [
    *("--game", "Catch", "--device", "cpu", "--num-envs", "4", "--steps", "64"),
    *("--set", "replay.capacity=64", "--set", "network.init_batch_size=16", "--set", "evaluation.held_out_states=8"),
    *("--set", "learning={start_steps: 32, batch_size: 8, target_period_steps: 16}"),
    *("--set", "evaluation={epoch_steps: 32, steps: 48}", "--set", "output.log_period_steps=16"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test begins in an empty folder, without settings in the environment."""
    for name in [name for name in os.environ if name.startswith("WN_DQN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def process(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "wn_dqn", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every path below a folder but the locks of runs, with the bytes of each file."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*") if path.name != ".lock"}


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Catch, for reading."""
    return trained(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(scope="module")
def just_begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its first step, to be copied."""
    return trained(tmp_path_factory.mktemp("cli") / "begun", "--stop-after", "0s")


def trained(run: Path, *options: str) -> Path:
    """A run of Catch; returns its folder."""
    status, out, err = wn_dqn("train", *TINY, "--run-dir", str(run), *options)
    assert (status, out) == (STOPPED if "--stop-after" in options else 0, ""), err
    return run


def saved_settings(run: Path | str) -> dict[str, Any]:
    return parse_yaml((Path(run) / "config.yaml").read_text(), "config.yaml")


def all_commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and those below it, with the words that call them."""
    yield path, command
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from all_commands(below, *path, name)


COMMANDS = dict(all_commands(cli))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_explains_every_option(path: tuple[str, ...]) -> None:
    status, out, err = wn_dqn(*path, "--help")
    assert (status, err) == (0, "")
    for below in COMMANDS:
        assert below[:-1] != path or not below or f"  {below[-1]} " in out
    for param in COMMANDS[path].params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert all(option in out for option in param.opts)
    assert wn_dqn(*path, "-h") == (0, out, "")


def test_version() -> None:
    assert wn_dqn("--version") == (0, f"wn-dqn, version {__version__}\n", "")


def test_without_a_command_it_shows_the_help() -> None:
    status, out, err = wn_dqn()
    assert (status, out) == (2, "")
    assert "Usage:" in err


def test_games() -> None:
    status, out, err = wn_dqn("games", "--json")
    games = {game["name"]: game for game in json.loads(out)}
    assert (status, err, len(games)) == (0, "", 104)
    assert games["SpaceInvaders"] == {
        "rom_id": "space_invaders", "name": "SpaceInvaders", "random": 148.0, "human": 1668.7,
        "paper": {"standard": 1779, "wn": 2179, "mnih2015": 1975},
    }  # fmt: skip
    status, out, err = wn_dqn("games")
    assert (status, err) == (0, "")
    assert "104 games" in out
    assert all(name in out for name in games)


def test_settings_lists_every_setting() -> None:
    status, out, err = wn_dqn("settings")
    assert (status, err) == (0, "")
    for key, default, text in setting_help():
        assert f"{key} = {default}\n    {text}\n" in out


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """With figures that are easy to check: 4 of 5 is 0.80 of the limit, and bf16 takes half the time."""
    loops = {
        "quick": bench.Loop("KungFuMaster", 8, "float32", 4.0, 5.0, 1.5),
        "mine": bench.Loop("Pong", 1, "bf16", 9.0, None, 72.0),
    }
    found = bench.Bench("cpu", 2, 2, {8: 2000.0}, {"float32": 20.0, "bf16": 10.0}, 30.0, {"float32": {8: 5.0}}, loops)
    found.learner["bf16"] = {8: 10.0}
    monkeypatch.setattr(replay_memory, "_SAMPLED_STEPS", 8)
    asked: list[bench.Effort] = []
    monkeypatch.setattr(bench, "measure", lambda device, effort, config, on_stage: asked.append(effort) or found)
    status, out, _ = wn_dqn("doctor", "--device", "cpu")
    assert (status, asked) == (0, [bench.BRIEF])
    for words in (
        __version__,
        "device: cpu",
        "cores: ",
        "memory available: ",
        "float32 20.00 ms, bf16 10.00 ms; take --precision bf16",
        "\n     8             2,000                        5                       10\n",
        "quick (KungFuMaster, N = 8, float32): 4 agent steps/s (0.80 of the smaller limit), 90 minutes\n",
        "mine (Pong, N = 1, bf16): 9 agent steps/s, 3.0 days\n",
        "1.50 times as long with one thread: 2 runs at once, of one thread each, do 1.33",
    ):
        assert words in out


def test_doctor_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure is measured, and the config at hand is one of the trainings."""
    monkeypatch.setattr(bench, "WHOLE", bench.Effort(emulators=(8,), learner=(8,), seconds=0.01, loop_seconds=0.05))
    monkeypatch.setattr(bench, "CONFIGS", ("salimans2016",))
    monkeypatch.setattr(bench, "_REPLAY", 2048)
    monkeypatch.setattr(bench, "_WARM_UP_UPDATES", 1)
    status, out, _ = wn_dqn("doctor", "--bench", "--json", "--config", "cartpole", "--device", "cpu")
    assert status == 0
    found = json.loads(out)
    assert found["update_ms"].keys() == {"float32", "bf16"}
    assert found["learner"].keys() == {"float32", found["fastest_precision"]}
    loop = found["loops"]["salimans2016"]
    assert loop["smaller_limit"] == min(found["emulators"]["8"], found["learner"]["float32"]["8"])
    assert found["loops"]["cartpole"]["smaller_limit"] is None  # another game, another network
    figures = [*found["emulators"].values(), *found["update_ms"].values()]
    assert min(figures + [each["hours"] for each in found["loops"].values()]) > 0


def test_options_of_the_bench_need_it() -> None:
    status, out, err = wn_dqn("doctor", "--json")
    assert (status, out, err) == (2, "", "wn-dqn: --config and --json are options of --bench\n")


def test_a_run_leaves_what_every_tool_reads(tiny_run: Path) -> None:
    assert {"config.yaml", "provenance.json", "status.json", "metrics.csv", "evaluations.csv", "checkpoints"} <= {
        path.name for path in tiny_run.iterdir()
    }
    status = json.loads((tiny_run / "status.json").read_text())
    assert (status["status"], status["steps"]) == ("finished", 64)
    assert [line.split(",")[0] for line in (tiny_run / "metrics.csv").read_text().splitlines()] == [
        "steps", "16", "32", "48", "64",
    ]  # fmt: skip
    assert saved_settings(tiny_run)["learning"]["batch_size"] == 8


def test_a_finished_run_says_so(tiny_run: Path) -> None:
    before = contents(tiny_run)
    status, out, err = wn_dqn("train", *TINY, "--run-dir", str(tiny_run))
    assert (status, out) == (0, "")
    assert err.splitlines()[-1] == f"{tiny_run} is finished: 64 steps; raise --steps to go on"
    assert contents(tiny_run) == before


def test_a_run_is_stopped_continued_and_extended() -> None:
    """By the same command, and by one that asks for more steps."""
    for steps, options, end in ((64, ["--stop-after", "0s"], "paused"), (64, [], "finished"), (72, [], "finished")):
        status, _, err = wn_dqn("train", *TINY, "--steps", str(steps), "--run-dir", "run", *options)
        assert status == (STOPPED if end == "paused" else 0), err
        assert json.loads(Path("run/status.json").read_text())["status"] == end
        assert "model card" not in err  # only a run that is finished has one
        assert Path("run/model_card.md").exists() == (end == "finished")
    steps = [line.split(",")[0] for line in Path("run/evaluations.csv").read_text().splitlines()]
    assert steps == ["steps", "32", "64", "72"]


def test_other_settings_are_refused_with_the_differences(tiny_run: Path) -> None:
    before = contents(tiny_run)
    other = ["--seed", "7", "--param", "standard", "--set", "output.keep_checkpoints=3"]
    status, out, err = wn_dqn("train", *TINY, *other, "--run-dir", str(tiny_run))
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"wn-dqn: {tiny_run} holds a run with other settings (param: wn -> standard; seed: 0 -> 7; "
        "optimizer.learning_rate: 0.0003 -> 0.0001); choose another --run-dir"
    )
    assert contents(tiny_run) == before


@pytest.mark.parametrize("checkpoint", ["best", "last", "64"])
def test_evaluate_prints_json(tiny_run: Path, checkpoint: str) -> None:
    args = ("evaluate", str(tiny_run), "--checkpoint", checkpoint, "--protocol", "nature", "--device", "cpu", "--json")
    status, out, _ = wn_dqn(*args)
    report = json.loads(out)
    assert status == 0
    assert (report["game"], report["param"], report["protocol"], report["games"]) == ("Catch", "wn", "nature", 30)
    assert report["trained_steps"] == (64 if checkpoint != "best" else report["trained_steps"])
    assert len(report["scores"]) == 30
    assert set(report["scores"]) <= {-1.0, 1.0}
    assert report["mean_return"] == pytest.approx(sum(report["scores"]) / 30)
    assert report["game_steps"] == 30 * 6
    assert json.loads(wn_dqn(*args)[1]) == report  # the same seed, the same games
    assert json.loads(wn_dqn(*args, "--seed", "1")[1])["scores"] != report["scores"]


def test_evaluate_takes_a_checkpoint_and_prints_a_table(tiny_run: Path) -> None:
    (path,) = (tiny_run / "checkpoints").glob("step-0000000064")
    status, out, _ = wn_dqn("evaluate", str(path), "--protocol", "nature", "--device", "cpu")
    assert status == 0
    assert all(word in out for word in ("Catch: ", "protocol nature", "mean", "median", "std", "games", "30"))


def test_evaluate_a_random_policy() -> None:
    status, out, _ = wn_dqn("evaluate", "--random", "catch", "--protocol", "nature", "--json")
    report = json.loads(out)
    assert status == 0
    assert (report["policy"], report["param"], report["trained_steps"], report["games"]) == ("random", None, None, 30)


def test_a_network_with_fewer_outputs_than_actions_is_refused(tmp_path: Path) -> None:
    """Breakout's minimal set has 4 of the 18 actions that `machado2018` plays with."""
    status, _, err = wn_dqn(
        "train", *TINY, "--game", "breakout", "--num-envs", "1", "--stop-after", "0s", "--run-dir", "run"
    )
    assert status == STOPPED, err
    assert saved_settings("run")["game"] == "Breakout"
    before = contents(tmp_path)
    status, out, err = wn_dqn("evaluate", "run", "--protocol", "machado2018", "--num-envs", "1", "--device", "cpu")
    assert (status, out) == (2, "")
    assert err == (
        "wn-dqn: protocol machado2018 plays Breakout with 18 actions, but this network has 4 outputs; "
        "train with --set environment.full_action_set=true, or choose another --protocol\n"
    )
    assert contents(tmp_path) == before


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its option."""
    Path("own.yaml").write_text("learning: { discount: 0.5 }\n")
    variables = {
        "GAME": "catch", "PARAM": "standard", "SEED": "5", "STEPS": "72", "NUM_ENVS": "2", "DEVICE": "cpu",
        "CONFIG": "own.yaml", "RUN_DIR": "own/run", "INIT": "nature", "SAVE_REPLAY": "false",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"WN_DQN_{name}", value)
    small = TINY[TINY.index("--set") :]
    status, _, err = wn_dqn("train", *small, "--stop-after", "0s")
    assert status == STOPPED, err
    saved = saved_settings("own/run")
    assert (saved["game"], saved["param"], saved["seed"]) == ("Catch", "standard", 5)
    assert (saved["learning"]["total_steps"], saved["learning"]["discount"]) == (72, 0.5)
    assert (saved["environment"]["num_envs"], saved["network"]["init"]) == (2, "nature")
    assert saved["output"]["save_replay"] is False
    monkeypatch.setenv("WN_DQN_DEVICE", "nowhere")
    assert "unknown device 'nowhere'" in wn_dqn("doctor")[2]


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Option, environment variable, config file, default."""
    Path("own.yaml").write_text(
        "game: Pong\nparam: standard\nseed: 1\nenvironment: { num_envs: 2 }\nlearning: { discount: 0.5 }\n"
    )
    monkeypatch.setenv("WN_DQN_PARAM", "wn")
    monkeypatch.setenv("WN_DQN_SEED", "2")
    monkeypatch.setenv("WN_DQN_NUM_ENVS", "3")
    status, _, err = wn_dqn("train", *TINY, "--config", "own.yaml", "--seed", "3", "--stop-after", "0s")
    assert status == STOPPED, err
    saved = saved_settings("runs/Catch-wn-seed3")
    assert (saved["game"], saved["seed"], saved["environment"]["num_envs"]) == ("Catch", 3, 4)  # option
    assert saved["param"] == "wn"  # environment variable
    assert saved["learning"]["discount"] == 0.5  # config file
    assert saved["exploration"]["final"] == 0.1  # default


def test_set_is_an_option_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WN_DQN_SEED", "2")
    status, _, err = wn_dqn("train", *TINY, "--set", "seed=3", "--stop-after", "0s", "--run-dir", "run")
    assert status == STOPPED, err
    assert saved_settings("run")["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "variable", "saved"),
    [
        ([], None, True),
        (["--no-save-replay"], None, False),
        (["--no-save-replay", "--set", "output.save_replay=true"], None, False),
        (["--set", "output.save_replay=true"], "false", True),
        (["--save-replay"], "false", True),
    ],
)
def test_the_replay_can_be_left_out(
    arguments: list[str], variable: str | None, saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a flag, with the precedence of all options; the folder then holds none."""
    if variable is not None:
        monkeypatch.setenv("WN_DQN_SAVE_REPLAY", variable)
    status, _, err = wn_dqn("train", *TINY, *arguments, "--stop-after", "0s", "--run-dir", "run")
    assert status == STOPPED, err
    assert saved_settings("run")["output"]["save_replay"] is saved
    assert any(Path("run/replay").glob("*.arrays")) is saved


@pytest.mark.parametrize("steps", ["64", "6.4e1", "64e0", "640E-1"])
def test_counts_may_be_written_with_an_exponent(steps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "train", trained := mock.Mock())
    status, _, err = wn_dqn("train", *TINY, "--steps", steps, "--set", "replay.capacity=1e6")
    assert (status, err) == (0, "")
    settings = trained.call_args.args[0]
    assert (settings.learning.total_steps, settings.replay.capacity) == (64, 1_000_000)


Mistake = tuple[list[str], str]
MISTAKES: list[Mistake] = [  # arguments, and a part of the message
    (["trian"], "No such command 'trian'."),
    (["train", "--gmae", "Pong"], "No such option '--gmae'"),
    (["train", "Pong"], "unexpected extra argument"),
    (["train"], "setting 'game' is missing: give --game or put it in the config"),
    (["train", "--game", "Pomg"], "unknown game 'Pomg'; did you mean Pong"),
    (["train", "--game", "xyzzy"], "unknown game 'xyzzy'; `wn-dqn games` lists all"),
    (["train", "--game", "Pong", "--param", "wm"], "(did you mean ws or wn?)"),
    (["train", "--game", "Pong", "--config", "quikc"], "no config 'quikc': neither a file nor a name; did you"),
    (["train", "--game", "Pong", "--seed", "one"], "'one' is not a valid integer"),
    (["train", "--game", "Pong", "--seed", "-1"], "invalid value -1 for seed"),
    (["train", "--game", "Pong", "--steps", "0"], "invalid value 0 for learning.total_steps"),
    (["train", "--game", "Pong", "--steps", "-64"], "invalid value -64 for learning.total_steps"),
    (["train", "--game", "Pong", "--steps", "1.5"], "'1.5' is not a valid integer"),
    (["train", "--game", "Pong", "--steps", "15e-1"], "'15e-1' is not a valid integer"),
    (["train", "--game", "Pong", "--steps", "1e400"], "'1e400' is not a valid integer"),
    (["train", "--game", "Pong", "--set", "learning.total_steps=1.5"], "invalid value 1.5 for learning.total_steps"),
    (["evaluate", "--random", "Pong", "--games", "1e7"], "10000000 is not in the range 1<=x<=1000000"),
    (["train", "--game", "Pong", "--num-envs", "0"], "invalid value 0 for environment.num_envs"),
    (["train", "--game", "Pong", "--num-envs", "2000"], "invalid value 2000 for environment.num_envs"),
    (["train", "--game", "Pong", "--resume", "perhaps"], "'perhaps' is not one of 'auto', 'never'"),
    (["train", "--game", "Pong", "--set", "seed"], "is not of the form section.key=value"),
    (["train", "--game", "Pong", "--set", "learning.x=1"], "unknown setting 'learning.x'"),
    (["train", "--game", "Pong", "--set", "learning.batchsize=1"], "did you mean learning.batch_size"),
    (["train", "--game", "Pong", "--set", "learning.batch_size=[1"], "is not valid YAML"),
    (["train", "--game", "Pong", "--set", "learning.batch_size=many"], "Input should be a valid integer"),
    (["train", "--game", "Pong", "--set", "replay.capacity=9"], "(50,000) must not exceed replay.capacity (9)"),
    (["train", "--game", "Pong", "--set", "learning.batch_size=50001"], "must not exceed learning.start_steps"),
    (["evaluate"], "give a run directory or checkpoint, or --random GAME"),
    (["evaluate", "run", "--random", "Pong"], "give a run directory or checkpoint, or --random GAME"),
    (["evaluate", "nothing"], "nothing is not a run directory: it has no readable config.yaml"),
    (["evaluate", "--random", "Pomg"], "unknown game 'Pomg'; did you mean Pong"),
    (["evaluate", "--random", "Pong", "--protocol", "papr"], "unknown protocol 'papr'; did you mean paper?"),
    (["evaluate", "--random", "Pong", "--num-envs", "0"], "0 is not in the range 1<=x<=1024"),
    (["evaluate", "--random", "Pong", "--seed", "-1"], "-1 is not in the range x>=0"),
    (["evaluate", "--random", "Pong", "--device", "abacus"], "unknown device 'abacus'; valid: auto, cpu, cuda"),
    (["evaluate", "file"], "file cannot be loaded as a policy"),
    (["evaluate", "folder"], "folder is not a run directory"),
    (["doctor", "--device", "cuda:99"], "no device cuda:99"),
]  # fmt: skip
LATE_MISTAKES: list[Mistake] = [  # found when the settings are known
    ([*TINY, "--stop-after", "1d"], "'1d' is not a duration; write it like 90s, 30m or 2h"),
    ([*TINY, "--stop-after", "-5s"], "'-5s' is not a duration"),
    ([*TINY, "--device", "abacus"], "unknown device 'abacus'; valid: auto, cpu, cuda"),
    ([*TINY, "--precision", "tf32"], "tf32"),
    ([*TINY, "--run-dir", "file"], "cannot write to file: File exists; choose another --run-dir"),
    ([*TINY, "--run-dir", "file/run"], "cannot write to file/run: Not a directory"),
    ([*TINY, "--run-dir", "/proc/run"], "cannot write to /proc/run: "),  # read-only, even for root
    ([*TINY, "--run-dir", "folder"], "folder is not a run directory, and not empty (notes is in it)"),
    ([*TINY, "--run-dir", "broken"], "unknown setting 'lerning'; did you mean learning"),
]  # fmt: skip
LATE_MISTAKES = [(["train", *args], message) for args, message in LATE_MISTAKES]


@pytest.fixture
def somebodys_files(tmp_path: Path) -> Path:
    """A file, a folder that is no run, and a run with a damaged config."""
    Path("file").write_text("precious")
    for name, text in (("folder/notes", "precious"), ("broken/config.yaml", "game: Pong\nlerning: {}\n")):
        Path(name).parent.mkdir()
        Path(name).write_text(text)
    return tmp_path


def assert_refused(folder: Path, args: list[str], message: str, expected: int = 2) -> str:
    """The `expected` exit status, the message last, and nothing created or overwritten; returns standard error."""
    before = contents(folder)
    status, out, err = wn_dqn(*args)
    assert (status, out) == (expected, "")
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("wn-dqn: ")
    assert contents(folder) == before
    return err


@pytest.mark.parametrize(("args", "message"), MISTAKES, ids=[" ".join(args) for args, _ in MISTAKES])
def test_a_mistake_is_one_line_and_changes_nothing(somebodys_files: Path, args: list[str], message: str) -> None:
    assert len(assert_refused(somebodys_files, args, message).splitlines()) == 1


@pytest.mark.parametrize(("args", "message"), LATE_MISTAKES, ids=[" ".join(args[-2:]) for args, _ in LATE_MISTAKES])
def test_a_mistake_found_late_is_one_line_and_changes_nothing(
    somebodys_files: Path, args: list[str], message: str
) -> None:
    assert len(assert_refused(somebodys_files, args, message).splitlines()) == 1


def test_too_large_a_replay_leaves_no_folder(tmp_path: Path) -> None:
    assert_refused(
        tmp_path, ["train", *TINY, "--set", "replay.capacity=1000000000", "--run-dir", "run"], "too little memory"
    )


@pytest.mark.parametrize("args", [["evaluate"], ["train", "--game", "Pong", "--config"]])
def test_too_long_a_name(args: list[str]) -> None:
    assert wn_dqn(*args, "a" * 300)[0] == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root and Windows may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    Path("run").mkdir(mode=0o500)
    assert_refused(tmp_path, ["train", *TINY, "--run-dir", "run"], "cannot write to run: Permission denied")


def test_a_run_directory_in_use_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create()
    with run.locked():
        message = f"run is in use by process {os.getpid()} on "
        assert_refused(tmp_path, ["train", *TINY, "--run-dir", "run"], message, STOPPED)


def test_resume_never_keeps_what_is_there(tiny_run: Path) -> None:
    before = contents(tiny_run)
    status, _, err = wn_dqn("train", *TINY, "--run-dir", str(tiny_run), "--resume", "never")
    assert status == 2
    assert f"{tiny_run} holds a run already" in err.splitlines()[-1]
    assert contents(tiny_run) == before


def damaged(name: str, data: bytes | None) -> Any:
    def damage(checkpoint: Path) -> None:
        path = checkpoint / name
        path.unlink() if data is None else path.write_bytes(data or path.read_bytes()[:-1])

    return damage


def foreign(state: dict[str, Any]) -> Any:
    def replace(checkpoint: Path) -> None:
        for path in checkpoint.iterdir():
            path.unlink()
        checkpoint.rmdir()
        save_checkpoint(checkpoint.parent, int(checkpoint.name.removeprefix("step-")), state, score=None)

    return replace


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged("manifest.json", None), "manifest.json cannot be read: No such file or directory"),
        (damaged("manifest.json", b""), "manifest.json is damaged"),
        (damaged("manifest.json", b"{}"), "is not a wn_dqn checkpoint"),
        (damaged("tensors.safetensors", None), "tensors.safetensors cannot be read: No such file or directory"),
        (damaged("tensors.safetensors", b""), "bytes instead of"),
        (damaged("state.json", b""), "bytes instead of"),
        (foreign({}), "not a checkpoint of this agent"),
        (foreign({"settings": 3}), "not a checkpoint of this agent"),
        (foreign({"settings": {"game": "Catch"}, "agent": {"num_actions": 3}}), "not a checkpoint of this agent"),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_refused(
    just_begun: Path, tmp_path: Path, change: Any, message: str
) -> None:
    shutil.copytree(just_begun, "run")
    (checkpoint,) = Path("run/checkpoints").iterdir()
    change(checkpoint)
    err = assert_refused(tmp_path, ["evaluate", "run", "--device", "cpu"], message)
    assert len(err.splitlines()) == 1
    assert_refused(tmp_path, ["evaluate", str(checkpoint), "--device", "cpu"], str(checkpoint))


def test_a_network_of_another_shape_is_one_line(tmp_path: Path, tiny_run: Path) -> None:
    (path,) = (tiny_run / "checkpoints").glob("step-0000000064")
    content = load_checkpoint(path)
    content["settings"]["param"] = "standard"
    save_checkpoint(tmp_path, 1, content, score=None)
    err = assert_refused(tmp_path, ["evaluate", "step-0000000001", "--device", "cpu"], "")
    assert len(err.splitlines()) == 1


def test_a_missing_checkpoint_names_those_that_are_there(tiny_run: Path) -> None:
    args = ["evaluate", str(tiny_run), "--checkpoint", "33", "--device", "cpu"]
    err = assert_refused(tiny_run, args, f"{tiny_run} has no checkpoint '33'; valid: best, last, 32, 64")
    assert len(err.splitlines()) == 1


def test_a_run_of_which_no_checkpoint_is_whole_is_not_begun_anew(just_begun: Path, tmp_path: Path) -> None:
    shutil.copytree(just_begun, "run")
    (checkpoint,) = Path("run/checkpoints").iterdir()
    damaged("tensors.safetensors", b"")(checkpoint)
    before = contents(tmp_path / "run" / "checkpoints")
    status, _, err = wn_dqn("train", *TINY, "--run-dir", "run")
    assert status == 1
    assert "no checkpoint in run can be read: " in err.splitlines()[-1]
    assert "Traceback" not in err
    assert contents(tmp_path / "run" / "checkpoints") == before


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = process("train", "--game", "Pomg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("wn-dqn: unknown game 'Pomg'; did you mean Pong")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_mistake() -> None:
    """As in `wn-dqn settings | head -1`."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed_pipe:
        done = subprocess.run(
            [sys.executable, "-m", "wn_dqn", "settings"], stdout=closed_pipe, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")  # click's status for a closed pipe


PLAUSIBLE_VALUES = [
    *("Pong", "Catch", "wn", "standard", "smoke", "quick", "cpu", "2h", "auto", "never", "paper", "last", "", "."),
    *("seed=1", "learning.batch_size=0", "optimizer=null", "optimizer.name=[adamax]", "game={}", "a.b=", "=3"),
    *("0", "1", "-1", "64", "1e3", "--", "--json", "--game"),
]
VALUES = st.sampled_from(PLAUSIBLE_VALUES) | st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    """A command with options of its own and any values, and now and then a word too many or an option of another."""
    path = draw(st.sampled_from([*COMMANDS, *3 * [("train",), ("evaluate",)]]))
    names = [option for param in COMMANDS[path].params if isinstance(param, click.Option) for option in param.opts]
    pairs = draw(st.lists(st.tuples(st.sampled_from(names or ["--json"]), VALUES), max_size=5))
    args = [word for name, value in pairs for word in ((name,) if name == "--json" else (name, value))]
    return [*path, *args, *draw(st.just([]) | st.lists(VALUES, max_size=2))]


@contextlib.contextmanager
def nothing_is_played() -> Iterator[None]:
    """Neither training nor evaluation does anything within."""
    result = Evaluation((GameResult(1.0, 6, finished=True),), 0)
    with (
        mock.patch.object(api, "train"),
        mock.patch.object(reevaluation, "play_games", return_value=result),
        mock.patch.object(doctor, "examine", return_value=[]),
        mock.patch.object(bench, "measure", return_value=mock.MagicMock()),
        mock.patch.object(doctor, "report", return_value=[]),
    ):
        yield


@given(args=arguments())
def test_no_arguments_make_a_traceback(args: list[str]) -> None:
    """An exception would leave `main` and fail this test."""
    with nothing_is_played():
        status, _, err = wn_dqn(*args)
    assert status in (0, 2)
    assert status == 0 or err.splitlines()[-1].startswith("wn-dqn: ") or err.startswith("Usage: ")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no mistake of the user's."""
    monkeypatch.setattr(sys, "argv", ["wn-dqn", "train", "--game", "Pong"])
    monkeypatch.setattr("wn_dqn.config.files.make_settings", mock.Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        main()


def test_a_network_trained_with_tf32_plays_on_a_cpu(tiny_run: Path, tmp_path: Path) -> None:
    content = load_checkpoint(RunDirectory(tiny_run).find_checkpoint("last").path)
    content["settings"]["learning"]["precision"] = "tf32"
    path = save_checkpoint(tmp_path, 64, content, score=None)
    status, out, err = wn_dqn("evaluate", str(path), "--device", "cpu", "--protocol", "nature", "--json")
    assert status == 0, err
    assert json.loads(out)["protocol"] == "nature"
