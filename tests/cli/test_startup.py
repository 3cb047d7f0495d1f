"""Start-up: nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

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


def test_a_training_imports_nothing_that_draws_or_exports() -> None:
    """Only the card of a run of a minute or more has a picture."""
    program = "import sys, wn_dqn.runs.launch; print([name for name in ('matplotlib', 'onnx') if name in sys.modules])"
    assert run(program) == "[]\n"


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
