"""The names of games: Atari's games in ale-py, Catch, and external environments."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wn_dqn.errors import UsageError, closest

if TYPE_CHECKING:
    from wn_dqn.config.schema import Settings


@dataclass(frozen=True)
class Game:
    """A game that can be trained."""

    rom_id: str
    """the emulator's name, like space_invaders"""
    name: str
    """its name here and in gymnasium, like SpaceInvaders"""

    @property
    def short_name(self) -> str:
        """For titles and the names of folders."""
        return self.name

    @property
    def frames_per_step(self) -> int:
        """Frames of the emulator that one step takes."""
        return 1 if self == CATCH_VECTOR else 4


@dataclass(frozen=True)
class OutsideGame(Game):
    """An external environment. Its `name` is ``gymnasium:ID``, ``gymnasium:MODULE:ID`` or ``MODULE:FACTORY``.

    Exactly one of `env_id` and `factory` is not empty.
    """

    module: str = ""
    """imported first; empty: nothing is"""
    env_id: str = ""
    """in gymnasium's registry, like CartPole-v1"""
    factory: str = ""
    """the name of a function or a class in `module`"""
    args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """keyword arguments of the environment"""
    vectorization: Literal["sync", "async"] = "sync"
    stack: int = 1
    """frames in an observation"""
    repeats: bool = True
    """whether the environment is determined by seeds and actions"""

    @property
    def short_name(self) -> str:
        """For titles and the names of folders: ``CartPole-v1``, ``MinAtar-Breakout-v1``, ``my_module-make``."""
        return (self.env_id or f"{self.module}-{self.factory}").replace("/", "-")

    @property
    def frames_per_step(self) -> int:
        """One, because an environment's own frame skip is not known here."""
        return 1


CATCH = Game("catch", "Catch")
CATCH_VECTOR = Game("catch_vector", "CatchVector")
"""Catch as three numbers instead of frames"""

_MAX_NAME = 200
# With one player, the emulator ends the whole process in these games.
_NEED_TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}


@cache
def all_games() -> dict[str, Game]:
    """Every Atari game for one player that the installed ale-py ships, by ROM id."""
    playable = sorted(_rom_ids() - _NEED_TWO_PLAYERS)
    return {rom_id: Game(rom_id, rom_id.title().replace("_", "")) for rom_id in playable}


def _rom_ids() -> set[str]:
    """Every ROM that the installed ale-py ships.

    Only its `roms` module is loaded. `import ale_py` would also load gymnasium, which is slow.
    """
    package = importlib.util.find_spec("ale_py")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location("ale_py_roms", Path(package.origin).parent / "roms" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    roms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(roms)
    return set(roms.get_all_rom_ids())


def find_game(name: str) -> Game:
    """The game with this `name`, in any of the spellings of this package, gymnasium and ale-py.

    `SpaceInvaders`, `space_invaders`, `ALE/SpaceInvaders-v5` and `SpaceInvadersNoFrameskip-v4` are the same. A name
    with a colon is an external environment, as in :func:`outside_game`; nothing is imported.

    Raises UsageError, with the closest names, if there is none.
    """
    if len(name) > _MAX_NAME:
        raise UsageError(f"unknown game {name[:20] + '...'!r}: no game's name has more than {_MAX_NAME} characters")
    if ":" in name:
        return outside_game(name)
    plain = re.sub(r"^ale/|(noframeskip|deterministic)?-v\d+$", "", name.strip().lower())
    wanted = re.sub(r"[^a-z0-9]", "", plain)
    small = {_key(game): game for game in (CATCH, CATCH_VECTOR)}
    if wanted in small:
        return small[wanted]
    by_key = {_key(game): game for game in all_games().values()} | small
    if wanted in by_key:
        return by_key[wanted]
    names = {key: game.name for key, game in by_key.items()}
    hint = closest(wanted, names)
    for key in sorted(names, key=len, reverse=True):
        hint = re.sub(rf"\b{key}\b", names[key], hint)
    if hint.startswith("valid:"):
        hint = "`wn-dqn games` lists all"
    raise UsageError(f"unknown game {name!r}; {hint}")


def game_of(settings: Settings) -> Game:
    """The game of `settings`. An external environment includes its arguments."""
    game, environment = find_game(settings.game), settings.environment
    if isinstance(game, OutsideGame):
        return replace(
            game,
            args=environment.args,
            vectorization=environment.vectorization,
            stack=environment.stack or 1,
            repeats=environment.repeats is not False,
        )
    return game


def outside_game(name: str) -> OutsideGame:
    """The environment of ``gymnasium:ID``, ``gymnasium:MODULE:ID`` or ``MODULE:FACTORY``.

    Raises UsageError if `name` has none of these forms. Raises it also for an Atari game, which has other rules here
    than in gymnasium.
    """
    name = name.strip()
    kind, _, rest = name.partition(":")
    if kind == "gymnasium":
        module, _, env_id = rest.rpartition(":")
        if env_id.lower().startswith("ale/"):
            raise UsageError(
                f"gymnasium plays {env_id} by other rules than this package; give --game {env_id} instead of --env"
            )
        if re.fullmatch(r"[\w./-]+", env_id) and (not module or _is_module(module)):
            return OutsideGame("", name, module=module, env_id=env_id)
    elif _is_module(kind) and rest.isidentifier():
        return OutsideGame("", name, module=kind, factory=rest)
    raise UsageError(f"{name!r} is not an environment; write gymnasium:ID, gymnasium:MODULE:ID or MODULE:FACTORY")


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _key(game: Game) -> str:
    """The normal form of all spellings of the game's name."""
    return game.rom_id.replace("_", "")
