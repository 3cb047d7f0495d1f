"""Numbers out of every range and names that move a cursor: one line, exit status 2, nothing made."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from command import wn_dqn

from wn_dqn import api

NINES = "9" * 400
TRAIN = ["train", "--game", "Catch", "--run-dir", "run"]
RANDOM = ["evaluate", "--random", "Catch", "--games", "1"]


@pytest.mark.survives(
    "numbers of any size and names of any kind on a command line",
    "refused in one line, and nothing is made",
)
@pytest.mark.parametrize(
    "args",
    [
        ["plot", "runs", "-o", "a.png", "--smooth", "1" + "0" * 20],
        ["report", "runs", "--price-per-hour", "nan"],
        ["report", "runs", "--price-per-hour", "inf"],
        [*RANDOM, "--time-limit", f"{NINES}s"],
        [*RANDOM, "--epsilon", "nan"],
        [*RANDOM, "--sticky", "nan"],
        [*TRAIN, "--stop-after", f"{NINES}h"],
        [*TRAIN, "--set", "seed=%YAML 1.3"],
        [*TRAIN, "--set", "network.output_init_scale=1e300"],
        [*TRAIN, "--set", "optimizer.learning_rate=1e39"],
        [*TRAIN, "--set", "optimizer.epsilon=1e300"],
        ["evaluate", "no\x1b[31mrun"],
        ["evaluate", "no\udcffrun"],
    ],
    ids=lambda args: ascii(" ".join(args))[:60],
)
def test_it_is_refused_in_one_line(args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with mock.patch.object(api, "train_run", side_effect=AssertionError("it was begun")):
        status, out, err = wn_dqn(*args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err[:-1].isprintable()
    assert list(tmp_path.iterdir()) == []
