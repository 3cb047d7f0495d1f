"""Files that this program did not make: no command writes over one, through a link, or removes one."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command import wn_dqn
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save
from small_runs import settings_for, train
from written_runs import write_run

from wn_dqn.errors import RunError, UsageError
from wn_dqn.render import video
from wn_dqn.runs.checkpoint import load_checkpoint, save_checkpoint
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system.durable import append_line

pytestmark = pytest.mark.usefixtures("small_network")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 120 steps; copy it, do not touch it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train(settings_for(learning={"total_steps": 120}), folder) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, called `run` in the current folder, beside one of few metrics, which is reported at once."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    write_run(tmp_path, "Pong", "wn", 0, [1.0, 2.0])
    return Path("run")


def a_figure(kind: str) -> bytes:
    file = io.BytesIO()
    Figure().savefig(file, format=kind)
    return file.getvalue()


def a_gif() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "GIF")
    return file.getvalue()


def a_video() -> bytes:
    """As other programs write it, with OpenCV."""
    writer = video._open_writer(Path("other.webm"), "VP80", (64, 64))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    return Path("other.webm").read_bytes()


PLAY = "play run --device cpu --max-frames 6 -o"
REPORT = "report Pong-wn-seed0 -o"
PLOT, EXPORT = "plot run -o", "export run --format safetensors -o"
FOREIGN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "mine.png": (PLOT, lambda: a_figure("png")),
    "mine.svg": (PLOT, lambda: a_figure("svg")),
    "mine.pdf": (PLOT, lambda: a_figure("pdf")),
    "mine.html": (REPORT, lambda: b"<!doctype html><html><p>wn_dqn"),
    "holiday.gif": (PLAY, a_gif),
    "holiday.webm": (PLAY, a_video),
    "mine.safetensors": (EXPORT, lambda: save({"a": torch.ones(1)})),
    "thesis.tex": (EXPORT, lambda: b"\\section{wn_dqn}"),
}


@pytest.mark.survives(
    "an output's name is that of a file of somebody else",
    "refused in one line; a file that wn-dqn made is replaced",
)
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_others_is_left_alone_and_ones_own_is_replaced(name: str, run: Path) -> None:
    command, content = FOREIGN[name]
    Path(name).write_bytes(content())
    before = Path(name).read_bytes()
    status, _, err = wn_dqn(*command.split(), name)
    assert (status, err.splitlines()[-1]) == (
        2,
        f"wn-dqn: {name} is there, and wn-dqn did not make it; choose another name, or remove it first",
    )
    assert Path(name).read_bytes() == before
    Path(name).unlink()
    for _ in range(2):
        assert wn_dqn(*command.split(), name)[0] == 0
    assert not [path for path in Path().iterdir() if path.name.startswith(".")], "nothing temporary stays"


@pytest.mark.survives("an export over a file of a run", "refused in one line")
@pytest.mark.parametrize(
    "name", ["config.yaml", "status.json", "provenance.json", "checkpoints/{newest}/tensors.safetensors"]
)
def test_no_export_is_written_over_a_run(name: str, run: Path) -> None:
    name = name.format(newest=max(path.name for path in (run / "checkpoints").iterdir()))
    before = (run / name).read_bytes()
    assert wn_dqn(*EXPORT.split(), str(run / name))[0] == 2
    assert (run / name).read_bytes() == before


def test_a_contract_of_others_is_left_alone(run: Path) -> None:
    Path("network.safetensors.json").write_text('{"mine": 1}')
    assert wn_dqn(*EXPORT.split(), "network.safetensors")[0] == 2
    assert Path("network.safetensors.json").read_text() == '{"mine": 1}'
    assert not Path("network.safetensors").exists()


def test_a_picture_of_ones_own_is_not_replaced_by_the_cards(tmp_path: Path) -> None:
    run = write_run(tmp_path, "Pong", "wn", 0, [1.0, 2.0])
    (run / "curve.png").write_bytes(a_figure("png"))
    before = (run / "curve.png").read_bytes()
    status, _, err = wn_dqn("card", str(run))
    assert (status, err.count("\n")) == (2, 1)
    assert (run / "curve.png").read_bytes() == before
    (run / "curve.png").unlink()
    for _ in range(2):
        assert wn_dqn("card", str(run))[0] == 0


@pytest.mark.survives("links under the names of a run's files", "nothing is written through them")
@posix_only
@pytest.mark.parametrize(
    "name", [".config.yaml.tmp", ".status.json.tmp", ".provenance.json.tmp", ".lock", "metrics.csv", "evaluations.csv"]
)
def test_a_link_that_was_planted_in_a_run_leads_to_no_write(name: str, run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (run / name).unlink(missing_ok=True)
    victim.write_text("mine\n")
    (run / name).symlink_to(victim)
    with contextlib.suppress(UsageError, RunError):  # some are refused
        train(settings_for(learning={"total_steps": 168}), run)
    assert victim.read_text() == "mine\n"


@posix_only
def test_a_record_is_not_appended_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (tmp_path / "records").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        append_line(tmp_path / "records", "{}")
    assert victim.read_text() == "mine\n"


@pytest.mark.survives("links under names of temporary files", "nothing is written through them")
@posix_only
@pytest.mark.parametrize("name", [".r.html.tmp", ".g.tmp.gif"])
def test_a_link_under_a_name_that_was_temporary_once(name: str, run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    Path(name).symlink_to(victim)
    assert wn_dqn(*REPORT.split(), "r.html")[0] == 0
    assert wn_dqn(*PLAY.split(), "g.gif")[0] == 0
    assert victim.read_text() == "mine\n"
    assert Path(name).is_symlink()


@pytest.mark.survives("`replay` or `checkpoints` is a link to another run's", "refused; nothing there is removed")
@posix_only
@pytest.mark.parametrize("name", ["replay", "checkpoints"])
def test_a_folder_of_another_run_is_not_pruned(name: str, run: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "other")
    before = sorted((tmp_path / "other" / name).rglob("*"))
    shutil.rmtree(run / name)
    (run / name).symlink_to(tmp_path / "other" / name, target_is_directory=True)
    config = str(run / "config.yaml")
    status, _, err = wn_dqn("train", "--config", config, "--run-dir", "run", "--steps", "168", "--device", "cpu")
    assert (status, f"run/{name} is a link" in err.splitlines()[-1]) == (1, True)
    assert sorted((tmp_path / "other" / name).rglob("*")) == before


def resave(run: Path, change: dict[str, object]) -> None:
    """The oldest checkpoint, with a valid manifest and another content."""
    oldest = min((run / "checkpoints").iterdir())
    state = {**load_checkpoint(oldest), **change}
    shutil.rmtree(oldest)
    save_checkpoint(oldest.parent, int(oldest.name[5:15]), state, None)


def add(path: Path) -> None:
    """A file or, with a name that ends in a slash, a folder with a file."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")


INTRUDERS: dict[str, Callable[[Path], object]] = {
    "events of another program": lambda run: add(run / "events.out.tfevents.1700000000.host.12.0"),
    "a folder called segment": lambda run: add(run / "replay" / "segment-mine" / "file"),
    "a file called segment": lambda run: add(run / "replay" / "segment-mine.arrays"),
    "a hidden file": lambda run: add(run / "replay" / ".mine.tmp"),
    "a copy of a checkpoint": lambda run: [
        shutil.copytree(path, path.with_name(f"{path.name}.bak")) for path in (run / "checkpoints").iterdir()
    ],
    "a checkpoint that lies about the replay": lambda run: resave(run, {"replay": 5}),
    "a linked checkpoint": lambda run: link_oldest(run),
}


def link_oldest(run: Path) -> None:
    oldest = min((run / "checkpoints").iterdir())
    elsewhere = run.parent / "elsewhere"
    oldest.rename(elsewhere)
    oldest.symlink_to(elsewhere.resolve(), target_is_directory=True)


@pytest.mark.survives("files, copies and folders of others inside a run", "they stay, and the run goes on")
@pytest.mark.parametrize("what", INTRUDERS)
def test_what_is_not_ours_stays_and_the_run_goes_on(what: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if sys.platform == "win32" and "linked" in what:
        pytest.skip("links need a right there")
    before = {path for path in Path().rglob("*") if path.is_file()}
    INTRUDERS[what](run)
    added = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path not in before}
    assert train(settings_for(learning={"total_steps": 280}, output={"keep_checkpoints": 4}), run) == 0
    assert "failed" not in capsys.readouterr().err
    assert RunDirectory(run).find_checkpoint("last").steps == 280
    if "lies" not in what:
        assert {path: path.read_bytes() for path in added if os.path.lexists(path)} == added
