"""Start-up: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wn_dqn.analysis.choices import STATISTICS
from wn_dqn.analysis.resampling import AGGREGATES
from wn_dqn.cli.main import cli

HEAVY = ["torch", "tensorboard", "matplotlib", "onnx", "cv2", "gymnasium"]
LIGHT: list[list[str]] = [
    *([], ["--help"], ["--version"], ["trian"]),
    *([name, "--help"] for name in cli.commands),
    *(["games"], ["games", "--json"], ["settings"]),
    ["train", "--gmae", "Pong"],
    ["train", "--steps", "1.5"],
    ["train", "--config", "quikc"],
    ["train", "--set", "learning.x=1"],
    ["train", "--game", "Pomg"],
    ["train", "--game", "Pong", "--param", "wm"],
    ["evaluate", "run", "--protocol", "papr"],
    ["plot", "runs", "-o", "a.png", "--statistic", "median"],
]
# In one process, one after another: the first command that imports too much is named.
PROGRAM = f"""
import contextlib, io, json, sys
import wn_dqn
assert "torch" not in sys.modules
from wn_dqn.cli.main import main

imported = {{}}
for args in json.loads(sys.argv[1]):
    sys.argv = ["wn-dqn", *args]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main()
    imported[" ".join(args)] = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps(imported))
"""


def run(program: str, *args: str, **environment: str) -> str:
    """What a Python program prints."""
    command, variables = [sys.executable, "-c", program, *args], {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_lists_and_mistakes_import_nothing_heavy() -> None:
    imported: dict[str, list[str]] = json.loads(run(PROGRAM, json.dumps(LIGHT)))
    assert imported == {" ".join(args): [] for args in LIGHT}


@pytest.mark.parametrize(
    ("args", "packages"),
    [
        (["--help"], set()),
        (["trian"], set()),
        (["train", "--gmae", "Pong"], set()),
        (["games"], {"rich"}),
        (["settings"], {"pydantic", "ruamel"}),
        (["train", "--set", "learning.x=1"], {"pydantic", "ruamel"}),
    ],
)
def test_few_modules_are_imported(args: list[str], packages: set[str]) -> None:
    """A command's answer is there in the blink of an eye: it waits for no package that it does not use."""
    program = """
import contextlib, io, json, sys
from wn_dqn.cli.main import main

sys.argv[0] = "wn-dqn"
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    with contextlib.suppress(SystemExit):
        main()
print(json.dumps(sorted(sys.modules)))
"""
    modules: list[str] = json.loads(run(program, *args))
    assert len(modules) < 400
    known = {"click", "rich", "pydantic", "ruamel", "numpy", "torch", "jinja2", "cv2", "starlette"}
    assert {name for name in modules if name in known} == {"click", *packages}


def test_a_training_imports_only_what_it_needs_up_to_its_first_step(tmp_path: Path) -> None:
    """No TensorBoard before the first row of metrics, nothing that draws or exports, and not torch's compiler.

    The garbage collector, which imports switch off, is on again and leaves their objects alone.
    """
    absent = ["tensorboard", "matplotlib", "onnx", "jinja2", "torch._dynamo", "torch._inductor"]
    program = f"""
import gc, os, sys
from wn_dqn.cli.main import main
from wn_dqn.runs.experiment import Experiment

def end(experiment, state):
    absent = [name for name in {absent} if name in sys.modules]
    print(state.steps, absent, gc.isenabled(), gc.get_freeze_count() > 0, flush=True)
    os._exit(0)

Experiment.after_step = end
sys.argv[0] = "wn-dqn"
main()
"""
    args = ["train", "--game", "Catch", "--device", "cpu", "--set", "replay.capacity=50000", "--run-dir", "run"]
    assert run(program, *args[:-1], str(tmp_path / "run")) == "8 [] True True\n"


def test_updates_import_no_compiler() -> None:
    """Nor does a checkpoint: the optimizer's state is read and loaded without it."""
    program = """
import sys, torch
from wn_dqn.nn.optimizers import RMSpropNature, load_optimizer_state, optimizer_state

parameter = torch.nn.Parameter(torch.ones(3))
optimizer = RMSpropNature([parameter], 0.1, 0.9, 0.01)
parameter.square().sum().backward()
optimizer.step()
optimizer.zero_grad()
load_optimizer_state(optimizer, optimizer_state(optimizer))
print(parameter.grad, "torch._dynamo" in sys.modules)
"""
    assert run(program) == "None False\n"


def completed(words: str) -> set[str]:
    """What the shell is offered for the last of `words`."""
    program = "import sys; sys.argv = ['wn-dqn']; from wn_dqn.cli.main import main; main()"
    number = str(len(words.split(" ")) - 1)
    out = run(program, _WN_DQN_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
    return set(out.split())


def test_the_shell_completes() -> None:
    assert completed("wn-dqn ") == {f"plain,{name}" for name in cli.commands}
    assert {"plain,--param", "plain,--precision"} <= completed("wn-dqn train --p")
    assert completed("wn-dqn evaluate --protocol p") == {"plain,paper", "file,p"}
    assert completed("wn-dqn plot --x ") == {"plain,epochs", "plain,steps", "plain,frames", "plain,hours"}


def test_every_statistic_that_can_be_chosen_is_there() -> None:
    names: tuple[Any, ...] = tuple(AGGREGATES)
    assert names == STATISTICS
