"""`wn-dqn plot`: what is in the figure, and what it refuses."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from command import wn_dqn
from hypothesis import given
from hypothesis import strategies as st
from written_runs import write_run

from wn_dqn.analysis import plotting
from wn_dqn.analysis.choices import FIGURE_FORMATS
from wn_dqn.analysis.read_runs import group_runs, read_runs
from wn_dqn.config.registry import PARAMETERIZATIONS


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of both arms of Space Invaders, near the paper's scores, and a run of Pong."""
    for seed in range(2):
        write_run(tmp_path / "runs", "SpaceInvaders", "wn", seed, [200.0, 1500.0 + 90 * seed, 2000.0])
        write_run(tmp_path / "runs", "SpaceInvaders", "standard", seed, [150.0, 900.0, 1500.0 + 90 * seed])
    write_run(tmp_path / "runs", "Pong", "wn", 0, [-21.0, 3.0])
    return tmp_path / "runs"


def axes_of(folder: Path, **options):
    figure, notes = plotting.learning_curves(group_runs(read_runs([folder])[0])[0], **options)
    return figure.axes, notes


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_panel_per_game_with_a_line_per_parameterization(runs: Path) -> None:
    (pong, invaders), _ = axes_of(runs)
    assert (pong.get_title("left"), invaders.get_title("left")) == ("Pong", "SpaceInvaders")
    assert [text.get_text() for text in pong.get_legend().get_texts()] == ["weight normalization (1 seed, no band)"]
    standard, wn = invaders.get_lines()[:2]
    assert [line.get_label() for line in (standard, wn)] == [
        "standard parameterization (2 seeds)",
        "weight normalization (2 seeds)",
    ]
    assert wn.get_ydata().tolist() == [200, 1545, 2000]
    assert len(invaders.collections) == 2  # bands
    assert len(pong.collections) == 0
    for look in ("get_linestyle", "get_marker", "get_color"):  # any one of them tells them apart
        assert getattr(standard, look)() != getattr(wn, look)()


def test_published_scores_are_marked_where_they_are_in_range(runs: Path) -> None:
    (_, invaders), _ = axes_of(runs)
    assert texts(invaders) == [
        "random 148",
        "human 1,668.7",
        "paper, standard 1,779",
        "Mnih 2015 1,975",
        "paper, wn 2,179",
    ]
    levels = [line.get_ydata()[0] for line in invaders.get_lines()[2:]]
    assert levels == [148, 1668.7, 1779, 1975, 2179]


def test_published_scores_beyond_the_axis_have_an_arrow_or_their_room(tmp_path: Path) -> None:
    write_run(tmp_path, "Seaquest", "wn", 0, [100.0, 5000.0])
    (axes,), _ = axes_of(tmp_path)
    assert texts(axes)[-1] == "↑ human 42,054.7"
    assert axes.get_ylim()[1] < 8000
    (axes,), _ = axes_of(tmp_path, levels="all")
    assert texts(axes)[-1] == "human 42,054.7"
    assert axes.get_ylim()[1] > 42_054
    (axes,), _ = axes_of(tmp_path, levels="none")
    assert texts(axes) == []


def test_labels_say_what_was_done(runs: Path) -> None:
    (_, axes), _ = axes_of(runs, statistic="iqm", smoothing=3, x_axis="hours")
    (pong, _), _ = axes_of(runs, statistic="iqm", smoothing=3, x_axis="hours")
    assert pong.get_ylabel() == "test score per game\n(interquartile mean over seeds; mean of the last 3 values)"
    assert axes.get_xlabel() == "hours of training, mean over seeds (without evaluations)"
    (_, axes), _ = axes_of(runs)
    assert axes.get_xlabel() == "training epochs of 250,000 steps"


@given(st.lists(st.floats(-1, 2), max_size=7), st.floats(0.01, 0.14))
def test_labels_never_cover_each_other(heights: list[float], distance: float) -> None:
    placed = plotting._spread(sorted(heights), distance)
    assert all(b - a >= distance - 1e-9 for a, b in itertools.pairwise(placed))
    assert all(-1e-9 <= height <= 1 + 1e-9 for height in placed)


def test_the_command_writes_each_format(runs: Path, tmp_path: Path) -> None:
    for name, beginning in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        status, out, err = wn_dqn("plot", str(runs), "-o", str(tmp_path / name), "--each-run")
        assert (status, out, err) == (0, f"{tmp_path / name}: 5 runs; in a browser: {(tmp_path / name).as_uri()}\n", "")
        assert (tmp_path / name).read_bytes().startswith(beginning)
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture is not None
    wn = np.array([0x00, 0x5E, 0xD5])
    assert (np.abs(picture.astype(int) - wn).max(axis=2) < 8).sum() > 200  # the orange line is there
    ElementTree.parse(tmp_path / "a.svg")


def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    """No time, no name drawn at random."""
    for file_format in FIGURE_FORMATS:
        paths = [tmp_path / f"{number}.{file_format}" for number in range(2)]
        for path in paths:
            wn_dqn("plot", str(runs), "-o", str(path))
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_another_process_draws_the_same_and_no_other_command_loads_what_draws(runs: Path, tmp_path: Path) -> None:
    """matplotlib would cost every command most of a second."""
    here, there = tmp_path / "here.svg", tmp_path / "there.svg"
    wn_dqn("plot", str(runs), "-o", str(here))
    code = "import sys, wn_dqn.cli.main; print('matplotlib' in sys.modules); wn_dqn.cli.main.main()"
    command = [sys.executable, "-c", code, "plot", str(runs), "-o", str(there)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("False\n")
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.survives("a `matplotlibrc` in the current folder", "figures are as ever")
def test_a_matplotlibrc_changes_nothing(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other people's plots in the same process keep their settings."""
    code = (
        "import sys, matplotlib, wn_dqn.cli.main as cli\n"
        "before = dict(matplotlib.rcParams)\n"
        "assert before['lines.linewidth'] == 9\n"
        "try: cli.main()\n"
        "finally: assert dict(matplotlib.rcParams) == before"
    )
    settings = "lines.linewidth: 9\naxes.facecolor: red\nsavefig.facecolor: blue\nsavefig.dpi: 30\nfont.size: 30\n"
    here, there = tmp_path / "here.png", tmp_path / "there.png"
    wn_dqn("plot", str(runs), "-o", str(here))
    (tmp_path / "matplotlibrc").write_text(settings)
    command = [sys.executable, "-c", code, "plot", str(runs), "-o", str(there)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert here.read_bytes() == there.read_bytes()


def test_a_parameterization_looks_the_same_in_every_plot(tmp_path: Path) -> None:
    """All look different; a variant never looks like one of the paper's arms."""
    folders = [tmp_path / "all", tmp_path / "two"]
    for param in PARAMETERIZATIONS:
        write_run(folders[0], "Pong", param, 0, [1.0, 2.0])
    for rate in (1e-4, 1e-3):
        write_run(folders[1] / f"{rate}", "Pong", "wn-exp", 0, [1.0, 2.0], optimizer__learning_rate=rate)
    variants, _ = group_runs(read_runs([folders[1] / f"{rate}" for rate in (1e-4, 1e-3)])[0])
    looks, (first, second) = (
        [
            (line.get_color(), line.get_linestyle(), line.get_marker())
            for line in axes.get_lines()[: len(PARAMETERIZATIONS)]
        ]
        for (axes,) in (axes_of(folders[0])[0], plotting.learning_curves(variants)[0].axes)
    )
    assert len({color for color, _, _ in looks}) == len(looks) == len(PARAMETERIZATIONS)
    assert dict(zip(PARAMETERIZATIONS, looks, strict=True))["wn"] == ("#D55E00", "-", "o")
    assert first == looks[2]
    assert second not in looks[:3]


def test_any_column_can_be_drawn(tmp_path: Path) -> None:
    write_run(tmp_path, "Pong", "wn", 0, [1.0], metrics={"train/loss": [0.5, 0.25]})
    (axes,), _ = axes_of(tmp_path, metric="train/loss")
    assert axes.get_lines()[0].get_ydata().tolist() == [0.5, 0.25]
    status, _, err = wn_dqn("plot", str(tmp_path), "-o", str(tmp_path / "a.png"), "--metric", "trian/loss")
    assert status == 2
    assert err.startswith("wn-dqn: no run has a column 'trian/loss'; did you mean train/loss")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, r"must end with \.png or \.svg or \.pdf"),
        ("a.png", b"not a picture", "wn-dqn did not make it"),
        ("no/a.png", None, "there is no folder"),
        ("a.svg", b"\x89PNG\r\n\x1a\n", "wn-dqn did not make it"),
    ],
)
def test_nothing_but_a_figure_is_overwritten(
    runs: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    status, out, err = wn_dqn("plot", str(runs), "-o", str(path))
    assert (status, out) == (2, "")
    assert re.search(message, err)
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_folder_is_not_overwritten(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    assert wn_dqn("plot", str(runs), "-o", str(tmp_path / "a.png"))[0] == 2
    assert list((tmp_path / "a.png").iterdir()) == []


def test_what_cannot_be_drawn_is_told_in_a_line_each(tmp_path: Path) -> None:
    write_run(tmp_path, "Pong", "wn", 0, [])
    (tmp_path / "empty").mkdir()
    arguments = [str(tmp_path / name) for name in ("empty", "absent")]
    status, out, err = wn_dqn("plot", *arguments, "-o", str(tmp_path / "a.png"))
    assert (status, out, err.count("\n")) == (2, "", 2)
    status, out, err = wn_dqn("plot", str(tmp_path), "-o", str(tmp_path / "a.png"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "no evaluations and no metrics yet" in err
    write_run(tmp_path, "Pong", "wn", 1, [1.0])
    status, out, err = wn_dqn("plot", str(tmp_path), *arguments, "-o", str(tmp_path / "a.png"))
    assert (status, out) == (0, f"{tmp_path / 'a.png'}: 2 runs; in a browser: {(tmp_path / 'a.png').as_uri()}\n")
    assert err.count("\n") == 3
