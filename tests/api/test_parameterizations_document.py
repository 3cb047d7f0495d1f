"""The parameterization of docs/parameterizations.md is trained as the page says, and does what it says."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from command import wn_dqn as command

import wn_dqn
from wn_dqn.nn.layers import layer_kit

pytestmark = pytest.mark.usefixtures("small_network", "own_rows")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "parameterizations.md").read_text()
MODULE, LINE, SCRIPT = re.findall(r"```(?:python|sh)\n(.*?)```", PAGE.split("## Your own")[1], flags=re.DOTALL)


def test_a_parameterization_of_ones_own_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "my_layers", None)  # type: ignore[arg-type]
    del sys.modules["my_layers"]
    Path("my_layers.py").write_text(MODULE)
    status, _, err = command(*shlex.split(LINE)[1:], "--device", "cpu")
    assert status == 0, err
    assert (wn_dqn.Run("runs/mine").status, wn_dqn.Run("runs/mine").settings.param) == ("finished", "mine")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(SCRIPT, "docs/parameterizations.md", "exec"), {})
    assert printed.getvalue() == "finished 2000\n"
    layer = layer_kit("mine").linear(3, 2)
    layer.set_weight_(torch.full((2, 3), 0.5), torch.ones(2))  # type: ignore[operator]
    torch.testing.assert_close(layer(torch.ones(1, 3)), torch.full((1, 2), 2.5))
    torch.testing.assert_close(layer.weight, torch.full((2, 3), 5.0))


def test_it_is_ten_lines() -> None:
    lines = [line for line in MODULE.splitlines() if line and not line.startswith(("#", "import"))]
    assert len(lines) == 10
