"""Old runs stay readable: a run of every checkpoint format that was ever written is kept, loaded and gone on with."""

from __future__ import annotations

import csv
import json
import math
import tarfile
from pathlib import Path

import pytest
import torch
from small_runs import CPU, outcome, settings_for, train

from wn_dqn.cli.main import main
from wn_dqn.config.files import dump_yaml, parse_yaml
from wn_dqn.config.games import find_game
from wn_dqn.evaluation.protocols import EvaluationProtocol
from wn_dqn.runs.checkpoint import FORMAT_VERSION
from wn_dqn.runs.experiment import verify_checkpoint
from wn_dqn.runs.policy import load_policy, play_games
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system.progress import ProgressReporter

FIXTURES = sorted(Path(__file__).parents[1].joinpath("fixtures").glob("run-format-*.tar.xz"))


def test_every_format_has_its_run() -> None:
    assert [path.name for path in FIXTURES] == [f"run-format-{n}.tar.xz" for n in range(1, FORMAT_VERSION + 1)]


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name.partition(".")[0])
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    """A copy of a run that tests/fixtures/make_run.py made and stopped at step 200."""
    with tarfile.open(request.param) as archive:
        # Python 3.11.4 brought the filter, and 3.12 warns without it.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return RunDirectory(tmp_path / "run")


def test_an_old_run_can_be_tested(old_run: RunDirectory) -> None:
    """Its network says what it said when it was saved."""
    verify_checkpoint(old_run, old_run.find_checkpoint("last").path, resumable=True)
    policy = load_policy(old_run.path, "last", CPU)
    assert policy.steps == 200
    obs = torch.arange(4 * 84 * 84).remainder(251).to(torch.uint8).view(1, 4, 84, 84)
    torch.testing.assert_close(
        policy.agent.q_values(obs), torch.tensor([[35.58988, 24.46197, 36.26702]]), rtol=1e-3, atol=1e-4
    )
    protocol = EvaluationProtocol("3 games", epsilon=0.0, games=3)
    game = find_game(policy.settings.game)
    assert math.isfinite(play_games(policy, game, protocol, 2, 0, ProgressReporter()).mean)


def test_an_old_run_goes_on(old_run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """From its step, with its replay, its games and its tables; a setting that came later has its default."""
    config = old_run.path / "config.yaml"
    old = parse_yaml(config.read_text(), "config.yaml")
    del old["learning"]["loss_reduction"], old["output"]["save_replay"]  # as if they had come later
    config.write_text(dump_yaml(old))
    assert train(settings_for(), old_run.path) == 0
    assert "resumed from step-0000000200: step 200" in capsys.readouterr().err
    assert old_run.read_status()["status"] == "finished"
    left = outcome(old_run.path)
    assert left["state"]["training"]["updates"] == (320 - 8 - 64) // 4
    for name, steps in (("metrics.csv", range(24, 321, 24)), ("evaluations.csv", (120, 240, 320))):
        with (old_run.path / name).open(newline="") as file:
            assert [int(row["steps"]) for row in csv.DictReader(file)] == list(steps)
    assert [step for step, _ in left["curves"]["train/mean_q"]] == list(range(96, 321, 24))


@pytest.mark.parametrize("command", ["train", "evaluate", "evaluate run", "verify"])
def test_a_run_of_a_later_version_is_refused_in_one_line(
    command: str, old_run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And left as it is: it is not damaged."""
    path = old_run.find_checkpoint("last").path / "manifest.json"
    for each in old_run.checkpoints.glob("step-*/manifest.json") if command == "evaluate run" else [path]:
        manifest = json.loads(each.read_text())
        each.write_text(json.dumps({**manifest, "version": FORMAT_VERSION + 1, "files": "elsewhere"}))
    config = old_run.path / "config.yaml"
    arguments = {
        "train": ["train", "--config", str(config), "--run-dir", str(old_run.path), "--device", "cpu"],
        "evaluate": ["evaluate", str(path.parent), "--device", "cpu"],
        "evaluate run": ["evaluate", str(old_run.path), "--device", "cpu"],
        "verify": ["checkpoint", "verify", str(old_run.path)],
    }[command]
    before = {each: each.read_bytes() for each in old_run.path.rglob("*.csv")} | {path: path.read_bytes()}
    monkeypatch.setattr("sys.argv", ["wn-dqn", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == (2 if command.startswith("evaluate") else 1)
    messages = [line for text in capsys.readouterr() for line in text.splitlines() if "has format version" in line]
    assert len(messages) == 1
    refusal = f"has format version {FORMAT_VERSION + 1}; this wn-dqn reads {FORMAT_VERSION}: use the later one"
    assert refusal in messages[0]
    assert {each: each.read_bytes() for each in before} == before
