"""The house stands: no module imports from its own floor or from above."""

from importlinter.cli import lint_imports


def test_a_module_imports_only_from_floors_below_its_own(monkeypatch, pytestconfig) -> None:
    """The `layers` contract in pyproject.toml holds."""
    monkeypatch.chdir(pytestconfig.rootpath)
    assert lint_imports() == 0
