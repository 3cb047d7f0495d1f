"""Code from outside of this package: which settings name it, who allowed it, and how it is imported.

Settings come with runs and agents of other people, and naming code must not be enough to run it. A person who writes
the name on the command line, or ``trust=True`` in Python, allows it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection
from types import ModuleType

from wn_dqn.config.games import OutsideGame, find_game
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError, first_line

_KNOWN = {"gymnasium", "minatar", "ale_py"}
"""packages whose environments are data for us: they run nothing that a name chooses"""


def code_of(settings: Settings) -> tuple[str, ...]:
    """The code from outside of wn_dqn and of gymnasium's registry that `settings` name, as they name it."""
    return code_of_game(settings.game)


def code_of_game(name: str) -> tuple[str, ...]:
    """As :func:`code_of`, of the game or environment of this name."""
    if ":" not in name:
        return ()
    game = find_game(name)
    assert isinstance(game, OutsideGame)
    foreign = bool(game.module) and game.module.split(".")[0] not in _KNOWN
    return (game.name,) if foreign or game.factory else ()


def require_trust(settings: Settings, named: Collection[str] = (), trust: bool = False) -> None:
    """UsageError, with the remedy, if `settings` name code that is not among `named`, unless `trust`."""
    if not trust:
        require_trust_in_game(settings.game, named)


def require_trust_in_game(name: str, named: Collection[str]) -> None:
    """As :func:`require_trust`, for the game or environment of this name."""
    for code in code_of_game(name):
        if code not in named:
            raise UsageError(
                f"this would run code from outside of wn-dqn, {code}; if you trust it, add --env {code} "
                "(in Python: trust=True)"
            )


def import_outside(module: str) -> ModuleType:
    """The module of that name, which may lie in the current folder; UsageError if it cannot be imported."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # last: nothing there can hide an installed package
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            raise UsageError(
                f"there is no module {module}: install it, or run in the folder that has {error.name}.py"
            ) from None
        raise UsageError(f"{module} needs the package {error.name}, which is not installed") from None
    except Exception as error:  # noqa: BLE001 - whatever somebody else's module does
        raise UsageError(f"{module} cannot be imported: {type(error).__name__}: {first_line(error)}") from None
