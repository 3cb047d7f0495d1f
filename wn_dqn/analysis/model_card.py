"""The model card of a run: its network, its scores, and how to reproduce it.

It is Markdown with the metadata that the Hugging Face Hub reads. Its picture is ``curve.png``. A run writes its card
when it finishes, and ``wn-dqn card`` writes it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_dqn import __version__
from wn_dqn.analysis import plotting, scores
from wn_dqn.analysis.published import published_scores
from wn_dqn.analysis.read_runs import Group, Run, group_runs, read_run
from wn_dqn.analysis.rendering import render_markdown
from wn_dqn.config.files import dump_yaml
from wn_dqn.config.games import OutsideGame, all_games
from wn_dqn.config.registry import AGENTS, PARAMETERIZATIONS
from wn_dqn.config.schema import NetworkSettings
from wn_dqn.config.trust import code_of
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import training_protocol
from wn_dqn.system import output_file
from wn_dqn.system.durable import write_durably
from wn_dqn.system.text import score_text

CARD, CURVE = "model_card.md", "curve.png"
_MARK = "<!-- Written by wn-dqn. Without this line, `wn-dqn card` leaves the file alone. -->"
# Drawing takes a second or two. That is negligible for a run of minutes, but not for one of seconds.
_PICTURE_AFTER_HOURS = 60 / 3600


def write_card(path: Path, *, picture: bool = True) -> Path:
    """Write the card of the run in `path`, and its picture. Returns the card's path.

    Raises UsageError if there is no run, no evaluation, or a card that a person has edited.
    """
    run = read_run(path)
    card = path / CARD
    if not len(run.scores):
        raise UsageError(f"{path} has no evaluation yet, so there is no card to write ({run.state_text})")
    ends = output_file.read_ends(card)
    if any(ends) and not any(_MARK.encode() in end for end in ends):
        raise UsageError(f"{card} has been edited (its marking line is missing); rename it to get a new one")
    if picture:
        output_file.require_ours(path / CURVE, "png")
        figure, _ = plotting.learning_curves(group_runs([run])[0])
        write_durably(path / CURVE, plotting.figure_bytes(figure, "png"))
    write_durably(card, card_text(run, picture=picture).encode())
    return card


def write_finished_card(path: Path, message: Callable[[str], None]) -> None:
    """Write the card of a run that has just finished. If that fails, `message` is called with one line."""
    try:
        run = read_run(path)
        for problem in run.problems:
            message(problem)
        hours = scores.training_hours(run) or 0.0
        write_card(path, picture=hours >= _PICTURE_AFTER_HOURS)
    except (OSError, UsageError) as error:
        message(f"no model card: {error}")


def card_text(run: Run, *, picture: bool, place: str | None = None) -> str:
    """The card as Markdown. `picture` states whether there is a picture of the curve.

    `place` is the public name of the network, like hf:USER/NAME or agent:NAME; None for the card in a run's folder.
    """
    settings = run.settings
    return render_markdown(
        "model_card.md",
        metadata=dump_yaml(_metadata(run)),
        mark=_MARK,
        agent=AGENTS[settings.agent].label,
        agent_name=_agent_name(run),
        game=run.game.short_name,
        atari=run.game.rom_id in all_games(),
        allowed="".join(f" --env {code}" for code in code_of(settings)),
        parameterization=PARAMETERIZATIONS[settings.param].label,
        dueling=settings.network.dueling,
        support=_support(settings.network),
        noisy=settings.network.noisy,
        steps=f"{run.steps:,}",
        frames_per_step=run.game.frames_per_step,
        seed=settings.seed,
        scores=[*_own_scores(run), *_published_scores(run.game.name)],
        epoch_steps=f"{settings.evaluation.epoch_steps:,}",
        protocol=", ".join(scores.protocol_words(training_protocol(settings.environment, settings.evaluation))),
        picture=CURVE if picture else None,
        place=place,
        version=__version__,
    )


def _support(network: NetworkSettings) -> str | None:
    """The support of the network's distributions as text; None if it outputs Q-values."""
    return None if network.atoms is None else f"{network.atoms} returns from {network.v_min:g} to {network.v_max:g}"


def _agent_name(run: Run) -> str:
    """The name of the agent, without the reference to its paper."""
    return AGENTS[run.settings.agent].label.partition(" (")[0]


@dataclass(frozen=True)
class ScoreRow:
    """A row of the card's table."""

    name: str
    mean: str
    games: str
    remark: str


def _own_scores(run: Run) -> list[ScoreRow]:
    """The run's scores, each with its number of games and a remark about its bias."""
    games = run.evaluations["games"].astype(int)
    best, last = int(run.scores.argmax()), min(scores.LAST_EPOCHS, len(games))
    remark = f"at step {run.best_steps:,}; biased upward, as the maximum of noisy evaluations"
    rows = [
        _row("last epoch", run.scores[-1], games[-1], "the network after the last step"),
        _row(f"mean of the last {last} epochs", scores.last_epochs(run), games[-last:].sum(), "not a selected score"),
        _row(f"maximum over {len(games)} epochs", scores.maximum(run), games[best], remark),
    ]
    fresh = scores.latest_reevaluations(run)
    name = "best network, fresh games"
    rows += [_row(name, test.mean, test.games, f"protocol {protocol}; unbiased") for protocol, test in fresh.items()]
    return rows if fresh else [*rows, ScoreRow(name, "", "", "not run: wn-dqn evaluate .")]


def _published_scores(game: str) -> list[ScoreRow]:
    """The published scores of a random policy and a human."""
    published = published_scores(game)
    levels = {"random policy": published.random, "human": published.human}
    return [_row(name, level, None, published.source) for name, level in levels.items() if level is not None]


def _row(name: str, mean: float, games: int | None, remark: str) -> ScoreRow:
    """A row with its numbers as text; empty cells if there are no games."""
    return ScoreRow(name, "" if math.isnan(mean) else score_text(mean), f"{games}" if games else "", remark)


def _metadata(run: Run) -> dict[str, Any]:
    """The metadata for the Hub. The score is unbiased: from fresh games if there are any, else from the last epochs.

    It is followed by the standard deviation, over games or epochs.
    """
    fresh = scores.fresh_games(Group(run.game, run.settings.param, "", (run,)))
    if fresh is None:
        last = run.scores[-scores.LAST_EPOCHS :]
        mean, spread, name = last.mean(), last.std(), f"mean reward, last {scores.LAST_EPOCHS} epochs"
    else:
        test = scores.latest_reevaluations(run)[fresh.protocol]
        mean, spread = test.mean, test.std
        name = f"mean reward, {fresh.games} fresh games of the best network, {fresh.protocol}"
    value = f"{mean:.2f}" if math.isnan(spread) else f"{mean:.2f} +/- {spread:.2f}"
    tags = ["reinforcement-learning", "deep-reinforcement-learning"]
    tags += ["atari"] if run.game.rom_id in all_games() else []
    tags += [run.game.env_id] if isinstance(run.game, OutsideGame) and run.game.env_id else []
    return {
        "license": "mit",
        "library_name": "wn-dqn",
        "pipeline_tag": "reinforcement-learning",
        "tags": [*tags, run.settings.agent, run.game.short_name, run.settings.param],
        "model-index": [
            {
                "name": f"{_agent_name(run)}, {PARAMETERIZATIONS[run.settings.param].label}",
                "results": [
                    {
                        "task": {"type": "reinforcement-learning", "name": "reinforcement learning"},
                        "dataset": {"name": run.game.short_name, "type": run.game.short_name},
                        "metrics": [{"type": "mean_reward", "value": value, "name": name, "verified": False}],
                    }
                ],
            }
        ],
    }
