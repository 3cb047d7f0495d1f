"""What people install works: a wheel, in an environment that knows nothing of this checkout, from another folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wn_dqn.nn.kernels import find_kernels

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            ["--steps", "200", "--set", "learning.start_steps=160", "--set", "evaluation.steps=80"], id="a part"
        ),
        pytest.param([], id="whole", marks=pytest.mark.thorough),
    ],
)
def test_an_installed_wheel_trains_from_another_folder(changes: list[str], tmp_path: Path) -> None:
    """`wn-dqn train --config smoke`, with the named config from inside the wheel."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("wn_dqn-*.whl")
    venv.create(tmp_path / "env")  # our pip fills it: one of its own would take longer than all below
    programs = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    python = programs / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    # The dependencies are those of this environment, by their folder: a path in a .pth file is searched, but not for
    # .pth files of its own, so the editable install of this checkout stays out.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    imported = run(python, "-c", "import wn_dqn, wn_dqn_agents; print(wn_dqn.__file__)", cwd=tmp_path)
    assert imported.startswith(str(site))
    why_not = run(python, "-c", "import wn_dqn.nn.kernels as k; print(k.find_kernels().why_not)", cwd=tmp_path).strip()
    assert why_not == find_kernels().why_not  # the source is in the wheel
    command = programs / "wn-dqn"
    run(command, "train", "--config", "smoke", "--device", "cpu", *changes, cwd=tmp_path)
    assert (tmp_path / "runs" / "Breakout-wn-seed0" / "model_card.md").is_file()  # its template is in the wheel
    assert "report.html: 1 run;" in run(command, "report", "runs", cwd=tmp_path)
    evaluated = run(command, "evaluate", "runs/Breakout-wn-seed0", "--protocol", "nature", "--games", "1", cwd=tmp_path)
    assert "Breakout" in evaluated


def test_every_dependency_is_declared_and_every_declared_one_is_used() -> None:
    """What the packages import is what pyproject.toml asks for, in versions that are installed."""
    declared = [Requirement(line) for line in requires("wn-dqn") or []]
    modules = {
        "opencv-python-headless": "cv2",
        "ruamel-yaml": "ruamel",
        "ale-py": "ale_py",
        "pillow": "PIL",
        "typing-extensions": "typing_extensions",
        "huggingface-hub": "huggingface_hub",
    }

    def asked_for(extra: str) -> set[str]:
        return {
            modules.get(canonicalize_name(requirement.name), requirement.name)
            for requirement in declared
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        }

    sources = [*ROOT.glob("wn_dqn/**/*.py"), *ROOT.glob("agents/**/*.py")]
    text = "\n".join(path.read_text() for path in sources)
    imports = re.findall(r"^ *(?:from|import) (\w+)(?:[\w.]* import .*|[\w.]*(?: as \w+)?)$", text, re.MULTILINE)
    # pydantic_core is a part of pydantic, which asks for one version of it and documents imports from it.
    third_party = set(imports) - sys.stdlib_module_names - {"wn_dqn", "wn_dqn_agents", "pydantic_core"}
    assert third_party - asked_for("onnx") - asked_for("minatar") - asked_for("hub") == set()
    assert asked_for("") - third_party == set()
    assert all(
        requirement.specifier.contains(version(requirement.name)) for requirement in declared if not requirement.marker
    )
