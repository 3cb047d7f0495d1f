"""Published scores for comparison, each with its source, by the name of the game, like SpaceInvaders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Salimans & Kingma (2016), "Weight Normalization", figure 6: the maximum over all epochs. Their third column is the
# score of Mnih et al. (2015), as they cite it.
PAPER_COLUMNS = {"standard": "standard", "wn": "wn", "mnih2015": "Mnih 2015"}
"""the columns of the paper's table, and their titles"""
PAPER_ARMS = ("standard", "wn")
"""the two parameterizations that the paper compares: the baseline and its own"""
_PAPER: dict[str, dict[str, float]] = {
    "Breakout": {"standard": 410, "wn": 403, "mnih2015": 401},
    "Enduro": {"standard": 1250, "wn": 1448, "mnih2015": 302},
    "Seaquest": {"standard": 7188, "wn": 7375, "mnih2015": 5286},
    "SpaceInvaders": {"standard": 1779, "wn": 2179, "mnih2015": 1975},
}
PAPER_GAMES = tuple(_PAPER)

# Wang et al. (2016), "Dueling Network Architectures", table 2: games begin with up to 30 no-ops.
RANDOM_AND_HUMAN_SOURCE = "Wang et al., 2016"
_RANDOM_AND_HUMAN: dict[str, tuple[float, float]] = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "Asteroids": (719.1, 47388.7),
    "Atlantis": (12850.0, 29028.1),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "BeamRider": (363.9, 16926.5),
    "Berzerk": (123.7, 2630.4),
    "Bowling": (23.1, 160.7),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "Centipede": (2090.9, 12017.0),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "Defender": (2874.5, 18688.9),
    "DemonAttack": (152.1, 1971.0),
    "DoubleDunk": (-18.6, -16.4),
    "Enduro": (0.0, 860.5),
    "FishingDerby": (-91.7, -38.7),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Gravitar": (173.0, 3351.4),
    "Hero": (1027.0, 30826.4),
    "IceHockey": (-11.2, 0.9),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MontezumaRevenge": (0.0, 4753.3),
    "MsPacman": (307.3, 6951.6),
    "NameThisGame": (2292.3, 8049.0),
    "Phoenix": (761.4, 7242.6),
    "Pitfall": (-229.4, 6463.7),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "Riverraid": (1338.5, 17118.0),
    "RoadRunner": (11.5, 7845.0),
    "Robotank": (2.2, 11.9),
    "Seaquest": (68.4, 42054.7),
    "Skiing": (-17098.1, -4336.9),
    "Solaris": (1236.3, 12326.7),
    "SpaceInvaders": (148.0, 1668.7),
    "StarGunner": (664.0, 10250.0),
    "Surround": (-10.0, 6.5),
    "Tennis": (-23.8, -8.3),
    "TimePilot": (3568.0, 5229.2),
    "Tutankham": (11.4, 167.6),
    "UpNDown": (533.4, 11693.2),
    "Venture": (0.0, 1187.5),
    "VideoPinball": (16256.9, 17667.9),
    "WizardOfWor": (563.5, 4756.5),
    "YarsRevenge": (3092.9, 54576.9),
    "Zaxxon": (32.5, 9173.3),
}

# Our own small game. The ball falls into each of seven columns with equal probability, whatever a random paddle does.
_EXACT_RANDOM = {"Catch": -5 / 7, "CatchVector": -5 / 7}


@dataclass(frozen=True)
class PublishedScores:
    """Published scores of one game: mean returns of complete games."""

    random: float | None = None
    """score of a uniformly random policy: published, or exact for Catch"""
    human: float | None = None
    """score of a human tester"""
    paper: Mapping[str, float] = field(default_factory=dict)
    """scores by column of the paper's table (`PAPER_COLUMNS`); empty for a game that is not in it"""

    @property
    def source(self) -> str:
        """The source of `random` and `human`."""
        return "exact" if self.human is None else f"published ({RANDOM_AND_HUMAN_SOURCE})"


def published_scores(game: str) -> PublishedScores:
    """The scores published for a game; all None for an unknown game."""
    random, human = _RANDOM_AND_HUMAN.get(game, (_EXACT_RANDOM.get(game), None))
    return PublishedScores(random, human, _PAPER.get(game, {}))


def human_normalized(game: str, score: float) -> float | None:
    """The human-normalized score: 0 for a random policy, 1 for a human; None if no human score was published."""
    if game not in _RANDOM_AND_HUMAN:
        return None
    random, human = _RANDOM_AND_HUMAN[game]
    return (score - random) / (human - random)
