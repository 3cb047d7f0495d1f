"""External code: finds it in settings, checks that the user allows it, and imports it.

Runs and agents of other people come with settings. That settings name external code must not be enough to run it. The
user allows it by its name on the command line, or by ``trust=True`` in Python.
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
"""packages whose environments are safe: a name in the settings cannot select any code to run"""


def code_of(settings: Settings) -> tuple[str, ...]:
    """The names of external code in `settings`, that is, outside of wn_dqn and of gymnasium's registry."""
    return code_of_game(settings.game)


def code_of_game(name: str) -> tuple[str, ...]:
    """As :func:`code_of`, for the game or environment with this name."""
    if ":" not in name:
        return ()
    game = find_game(name)
    assert isinstance(game, OutsideGame)
    foreign = bool(game.module) and game.module.split(".")[0] not in _KNOWN
    return (game.name,) if foreign or game.factory else ()


def require_trust(settings: Settings, named: Collection[str] = (), trust: bool = False) -> None:
    """Raise UsageError, with the remedy, if `settings` name code that is not among `named`, unless `trust`."""
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
    """Import the module with this name, also from the current folder. Raises UsageError if that fails."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # at the end, so that no module there can hide an installed package
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            raise UsageError(
                f"there is no module {module}: install it, or run in the folder that has {error.name}.py"
            ) from None
        raise UsageError(f"{module} needs the package {error.name}, which is not installed") from None
    except Exception as error:  # noqa: BLE001 - any error of external code
        raise UsageError(f"{module} cannot be imported: {type(error).__name__}: {first_line(error)}") from None
