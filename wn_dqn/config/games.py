"""The names of the games: Atari's, as ale-py ships them, and Catch."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wn_dqn.errors import UsageError, closest


@dataclass(frozen=True)
class Game:
    """A game that can be trained."""

    rom_id: str
    """the emulator's name, like space_invaders"""
    name: str
    """ours and gymnasium's, like SpaceInvaders"""


CATCH = Game("catch", "Catch")
CATCH_VECTOR = Game("catch_vector", "CatchVector")
"""Catch as three numbers instead of frames"""

# The emulator ends the whole process when it is asked to play these with one player.
_NEED_TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}


@cache
def all_games() -> dict[str, Game]:
    """Every Atari game for one player that the installed ale-py ships, by ROM id."""
    playable = sorted(_rom_ids() - _NEED_TWO_PLAYERS)
    return {rom_id: Game(rom_id, rom_id.title().replace("_", "")) for rom_id in playable}


def _rom_ids() -> set[str]:
    """Every ROM that the installed ale-py ships.

    Its `roms` module is loaded alone: `import ale_py` would load gymnasium, too, which takes longer than the list.
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
    """The game that `name` means, as people, gymnasium and ale-py write it.

    `SpaceInvaders`, `space_invaders`, `ALE/SpaceInvaders-v5` and `SpaceInvadersNoFrameskip-v4` are the same.

    UsageError with the closest names if there is none.
    """
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


def _key(game: Game) -> str:
    """What every way to write the game's name comes down to."""
    return game.rom_id.replace("_", "")
