"""Code from outside: what names it, who allows it, how it is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wn_dqn.config.files import make_settings
from wn_dqn.config.trust import code_of, import_outside, require_trust
from wn_dqn.errors import UsageError


@pytest.mark.parametrize(
    ("game", "code"),
    [
        ("SpaceInvaders", ()),
        ("gymnasium:CartPole-v1", ()),
        ("gymnasium:MinAtar/Breakout-v1", ()),
        ("gymnasium:minatar.gym:MinAtar/Breakout-v1", ()),
        ("gymnasium:mine:Mine-v0", ("gymnasium:mine:Mine-v0",)),
        ("mine:make", ("mine:make",)),
        ("gymnasium_mine:make", ("gymnasium_mine:make",)),
        ("minatar.gym:BaseEnv", ("minatar.gym:BaseEnv",)),
    ],
)
def test_what_names_code_from_outside(game: str, code: tuple[str, ...]) -> None:
    assert code_of(make_settings({"game": game})) == code


def test_code_from_outside_needs_its_name_or_trust() -> None:
    settings = make_settings({"game": "mine:make"})
    with pytest.raises(UsageError, match="add --env mine:make"):
        require_trust(settings)
    with pytest.raises(UsageError, match="mine:make"):
        require_trust(settings, named=["mine:other", "mine"])
    require_trust(settings, named=["mine:make"])
    require_trust(settings, trust=True)
    require_trust(make_settings({"game": "gymnasium:CartPole-v1"}))


def test_a_module_of_the_current_folder_is_found_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "of_this_folder.py").write_text("NAME = 1\n")
    (tmp_path / "json.py").write_text("raise AssertionError\n")
    assert import_outside("of_this_folder").NAME == 1
    assert import_outside("json").__file__ != str(tmp_path / "json.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no module of_that_folder: install it"),
        ("import surely_not_there", "of_that_folder needs the package surely_not_there"),
        ("1 / 0", "of_that_folder cannot be imported: ZeroDivisionError: division by zero"),
        ("def (", "of_that_folder cannot be imported: SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    if text is not None:
        (tmp_path / "of_that_folder.py").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        import_outside("of_that_folder")
    assert "\n" not in str(caught.value)
