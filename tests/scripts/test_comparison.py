"""The comparison of parameterizations: the check that all start as the same function can fail, and does not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from load_script import load_script
from small_runs import SMALL, settings_for

from wn_dqn.analysis.read_runs import read_run
from wn_dqn.config.files import dump_yaml
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.errors import UsageError
from wn_dqn.system.progress import ProgressReporter


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("compare_parameterizations")


def test_all_start_as_the_same_function(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    centred = {"init_centred": True}
    arms = [settings_for(param=param, network=centred) for param in PARAMETERIZATIONS]
    (differences,) = script.check_starts({0: arms}, ProgressReporter()).values()
    out = capsys.readouterr().out
    assert "Q-values of 10 networks differ by at most" in out
    assert list(differences) == list(PARAMETERIZATIONS)
    for param in ("ln", "ln-wn-projected"):
        assert differences[param] > 0.1
        assert f"{param} starts as a different function: it differs by up to {differences[param]:.2f}" in out
    other = settings_for(param="wn", network=centred | {"output_init_scale": 0.5})
    with pytest.raises(UsageError, match=r"more than rounding.*: wn starts as another function"):
        script.check_starts({0: [arms[0], other]}, ProgressReporter())
    with pytest.raises(UsageError, match="name standard among"):
        script.check_starts({0: [settings_for(param="ln")]}, ProgressReporter())


@pytest.mark.slow
def test_runs_are_trained_skipped_and_drawn(script: ModuleType, tmp_path: Path) -> None:
    """Given again, the command trains nothing and writes the same figure."""
    config = tmp_path / "small.yaml"
    config.write_text(dump_yaml(SMALL))
    command = ["--config", str(config), "--params", "standard,bn", "--seeds", "1", "--steps", "128"]
    outputs, figures = [], []
    for _ in range(2):
        result = CliRunner().invoke(script.main, [*command, "-o", str(tmp_path / "out")], catch_exceptions=False)
        assert result.exit_code == 0
        outputs.append(result.stdout)
        figures.append((tmp_path / "out" / "curves.svg").read_bytes())
    assert outputs[0] == outputs[1]
    assert "| `standard` |" in outputs[0]
    assert "| `bn` |" in outputs[0]
    assert figures[0] == figures[1]
    run = read_run(tmp_path / "out" / "Catch-bn-seed0")
    assert run.finished
    assert len(run.provenance) == 1
