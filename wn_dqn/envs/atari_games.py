"""The games: their names, and published scores to compare with.

Random and human scores: Wang et al. (2016), "Dueling Network Architectures", table 2 (30 no-ops at the start).
Scores of the paper: Salimans & Kingma (2016), figure 6 (maximum over epochs), with Mnih et al. (2015) as cited there.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wn_dqn.errors import UsageError, closest


@dataclass(frozen=True)
class PaperScores:
    """Maximum evaluation scores (Salimans & Kingma 2016, figure 6)."""

    standard: float
    wn: float
    mnih2015: float


@dataclass(frozen=True)
class Game:
    """One game that ale-py ships."""

    rom_id: str
    name: str
    random: float | None
    human: float | None
    paper: PaperScores | None

    def human_normalized(self, score: float) -> float | None:
        """0 for a random policy, 1 for a human; None where no human score was published."""
        if self.random is None or self.human is None:
            return None
        return (score - self.random) / (self.human - self.random)


_PAPER = {
    "breakout": PaperScores(410, 403, 401),
    "enduro": PaperScores(1250, 1448, 302),
    "seaquest": PaperScores(7188, 7375, 5286),
    "space_invaders": PaperScores(1779, 2179, 1975),
}
_RANDOM_AND_HUMAN = {
    "alien": (227.8, 7127.7),
    "amidar": (5.8, 1719.5),
    "assault": (222.4, 742.0),
    "asterix": (210.0, 8503.3),
    "asteroids": (719.1, 47388.7),
    "atlantis": (12850.0, 29028.1),
    "bank_heist": (14.2, 753.1),
    "battle_zone": (2360.0, 37187.5),
    "beam_rider": (363.9, 16926.5),
    "berzerk": (123.7, 2630.4),
    "bowling": (23.1, 160.7),
    "boxing": (0.1, 12.1),
    "breakout": (1.7, 30.5),
    "centipede": (2090.9, 12017.0),
    "chopper_command": (811.0, 7387.8),
    "crazy_climber": (10780.5, 35829.4),
    "defender": (2874.5, 18688.9),
    "demon_attack": (152.1, 1971.0),
    "double_dunk": (-18.6, -16.4),
    "enduro": (0.0, 860.5),
    "fishing_derby": (-91.7, -38.7),
    "freeway": (0.0, 29.6),
    "frostbite": (65.2, 4334.7),
    "gopher": (257.6, 2412.5),
    "gravitar": (173.0, 3351.4),
    "hero": (1027.0, 30826.4),
    "ice_hockey": (-11.2, 0.9),
    "jamesbond": (29.0, 302.8),
    "kangaroo": (52.0, 3035.0),
    "krull": (1598.0, 2665.5),
    "kung_fu_master": (258.5, 22736.3),
    "montezuma_revenge": (0.0, 4753.3),
    "ms_pacman": (307.3, 6951.6),
    "name_this_game": (2292.3, 8049.0),
    "phoenix": (761.4, 7242.6),
    "pitfall": (-229.4, 6463.7),
    "pong": (-20.7, 14.6),
    "private_eye": (24.9, 69571.3),
    "qbert": (163.9, 13455.0),
    "riverraid": (1338.5, 17118.0),
    "road_runner": (11.5, 7845.0),
    "robotank": (2.2, 11.9),
    "seaquest": (68.4, 42054.7),
    "skiing": (-17098.1, -4336.9),
    "solaris": (1236.3, 12326.7),
    "space_invaders": (148.0, 1668.7),
    "star_gunner": (664.0, 10250.0),
    "surround": (-10.0, 6.5),
    "tennis": (-23.8, -8.3),
    "time_pilot": (3568.0, 5229.2),
    "tutankham": (11.4, 167.6),
    "up_n_down": (533.4, 11693.2),
    "venture": (0.0, 1187.5),
    "video_pinball": (16256.9, 17667.9),
    "wizard_of_wor": (563.5, 4756.5),
    "yars_revenge": (3092.9, 54576.9),
    "zaxxon": (32.5, 9173.3),
}


# The emulator ends the whole process when it is asked to play these alone.
_NEED_TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}


@cache
def all_games() -> dict[str, Game]:
    """Every game for one player that the installed ale-py ships, by ROM id."""
    games = {}
    for rom_id in sorted(_rom_ids() - _NEED_TWO_PLAYERS):
        random, human = _RANDOM_AND_HUMAN.get(rom_id, (None, None))
        name = rom_id.title().replace("_", "")
        games[rom_id] = Game(rom_id, name, random, human, _PAPER.get(rom_id))
    return games


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
    """The game called `SpaceInvaders`, `space_invaders`, `ALE/SpaceInvaders-v5` or `SpaceInvadersNoFrameskip-v4`.

    Raises UsageError with the closest names if there is none.
    """
    plain = re.sub(r"^ale/|(noframeskip|deterministic)?-v\d+$", "", name.strip().lower())
    wanted = re.sub(r"[^a-z0-9]", "", plain)
    by_key = {rom_id.replace("_", ""): game for rom_id, game in all_games().items()}
    if wanted in by_key:
        return by_key[wanted]
    names = {key: game.name for key, game in by_key.items()}
    hint = closest(wanted, names)
    for key in sorted(names, key=len, reverse=True):
        hint = re.sub(rf"\b{key}\b", names[key], hint)
    if hint.startswith("valid:"):
        hint = "`wn-dqn games` lists all"
    raise UsageError(f"unknown game {name!r}; {hint}")
