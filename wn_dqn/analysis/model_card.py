"""The model card of a run: what the network is, what it scored and how to make it again, for people who find it.

Markdown with the metadata that the Hugging Face Hub reads; beside it ``curve.png``. A card is written when a run
finishes, and again by ``wn-dqn card``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wn_dqn import __version__
from wn_dqn.analysis import plotting, scores
from wn_dqn.analysis.published import RANDOM_AND_HUMAN_SOURCE, published_scores
from wn_dqn.analysis.read_runs import Group, Run, group_runs, read_run
from wn_dqn.config.files import dump_yaml
from wn_dqn.config.games import all_games
from wn_dqn.config.registry import PARAMETERIZATIONS
from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import FRAMES_PER_STEP
from wn_dqn.system.durable import write_durably

_LAYERS: dict[str, str] = {
    "standard": "standard",
    "wn": "weight-normalized",
    "wn-exp": "weight-normalized (g = e^s)",
    "mean-only-bn": "mean-only batch-normalized",
    "wn-mean-only-bn": "weight-normalized, mean-only batch-normalized",
    "bn": "batch-normalized",
}
_AGENTS = {
    "dqn": "A DQN agent (Mnih et al., 2015)",
    "double-dqn": "A Double DQN agent (van Hasselt et al., 2016)",
}
_NO_PICTURE = "(`wn-dqn card .` draws the learning curve here.)"
CARD, CURVE = "model_card.md", "curve.png"
_MARK = "<!-- Written by wn-dqn. Without this line, `wn-dqn card` leaves the file alone. -->"
# Drawing takes a second or two: nothing beside a run of minutes, much beside one of seconds.
_PICTURE_AFTER_HOURS = 60 / 3600


def write_card(path: Path, *, picture: bool = True) -> Path:
    """Write the card of the run in `path`, and its picture; returns the card's path.

    UsageError if there is no run, no evaluation, or a card that a person has made their own.
    """
    run = read_run(path)
    card = path / CARD
    if not len(run.scores):
        raise UsageError(f"{path} has no evaluation yet: there is nothing to tell ({run.told_state()})")
    if card.exists() and _MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"{card} is no longer ours (its marking line is gone); rename it to have a new one")
    if picture:
        figure, _ = plotting.learning_curves(group_runs([run])[0])
        write_durably(path / CURVE, plotting.figure_bytes(figure, "png"))
    write_durably(card, card_text(run, picture=picture).encode())
    return card


def write_finished_card(path: Path, tell: Callable[[str], None]) -> None:
    """Write the card of a run that has just finished. Where it cannot be written that is told, and changes nothing."""
    try:
        run = read_run(path)
        for problem in run.problems:
            tell(problem)
        hours = scores.training_hours(run) or 0.0
        write_card(path, picture=hours >= _PICTURE_AFTER_HOURS)
    except (OSError, UsageError) as error:
        tell(f"no model card: {error}")


def card_text(run: Run, *, picture: bool) -> str:
    """The card as Markdown."""
    game, label = run.game.name, PARAMETERIZATIONS[run.settings.param].label
    heads = " and dueling heads (Wang et al., 2016)" if run.settings.network.dueling else ""
    return f"""---
{dump_yaml(_metadata(run)).rstrip()}
---

{_MARK}

# DQN playing {game}, {label}

{_AGENTS[run.settings.agent]} that plays {game}; its Q-network has {_LAYERS[run.settings.param]} layers (Salimans &
Kingma, 2016){heads}. Trained for {run.steps:,} agent steps of {FRAMES_PER_STEP} frames, seed {run.settings.seed}.

## Scores

{_scores(run)}

A single seed says little about a method: scores of several seeds differ widely.
An evaluation follows each epoch of {run.settings.evaluation.epoch_steps:,} training steps: the games completed in
{", ".join(scores.told_protocol(run.settings))}.

{f"![Mean test score after each epoch of training]({CURVE})" if picture else _NO_PICTURE}

## Use, and make it again

With wn_dqn {__version__}, in this folder:

```sh
wn-dqn evaluate .                                         # fresh games of the best network
wn-dqn train --config config.yaml --run-dir again         # the same run once more
```

`config.yaml` holds every setting, `provenance.json` the versions, the commit and the machine.

## Licence

wn_dqn is under the MIT licence, and so is this network unless whoever publishes it says otherwise. The games are not
part of it: they come with ale-py, under its terms.
"""


def _scores(run: Run) -> str:
    """A table of the run's scores: each with its games, maxima called what they are."""
    games = run.evaluations["games"].astype(int)
    best, last = int(run.scores.argmax()), min(scores.LAST_EPOCHS, len(games))
    rows = [
        ("last epoch", run.scores[-1], games[-1], "the network after the last step"),
        (f"mean of the last {last} epochs", scores.last_epochs(run), games[-last:].sum(), "chosen by nobody"),
        (
            f"maximum over {len(games)} epochs",
            scores.maximum(run),
            games[best],
            f"at step {run.best_steps:,}; biased upward: the luckiest evaluation was picked",
        ),
    ]
    for protocol, entry in scores.latest_reevaluations(run).items():
        rows.append(("best network, fresh games", entry.mean, entry.games, f"protocol {protocol}; unbiased"))
    if not scores.latest_reevaluations(run):
        rows.append(("best network, fresh games", math.nan, 0, "not run: `wn-dqn evaluate .`"))
    published = published_scores(run.game.name)
    for name, level in (("random policy", published.random), ("human", published.human)):
        if level is not None:
            rows.append((name, level, 0, f"published ({RANDOM_AND_HUMAN_SOURCE})"))
    lines = [
        f"| {name} | {'' if math.isnan(score) else f'{score:,.1f}'} | {count or ''} | {remark} |"
        for name, score, count, remark in rows
    ]
    return "\n".join(["| score | mean | games | |", "|---|---:|---:|---|", *lines])


def _metadata(run: Run) -> dict[str, Any]:
    """What the Hub reads. Its number is unbiased: fresh games if there are any, else the mean of the last epochs."""
    fresh = scores.fresh_games(Group(run.game, run.settings.param, "", (run,)))
    score, name = (
        (scores.last_epochs(run), f"mean reward, last {scores.LAST_EPOCHS} epochs")
        if fresh is None
        else (float(fresh.means[0]), f"mean reward, {fresh.games} fresh games of the best network, {fresh.protocol}")
    )
    tags = ["reinforcement-learning", "deep-reinforcement-learning"]
    tags += ["atari"] if run.game.rom_id in all_games() else []
    metric = {"type": "mean_reward", "value": round(score, 2), "name": name, "verified": False}
    return {
        "license": "mit",
        "library_name": "wn-dqn",
        "pipeline_tag": "reinforcement-learning",
        "tags": [*tags, "dqn", run.game.name, run.settings.param],
        "model-index": [
            {
                "name": f"DQN, {PARAMETERIZATIONS[run.settings.param].label}",
                "results": [
                    {
                        "task": {"type": "reinforcement-learning", "name": "reinforcement learning"},
                        "dataset": {"name": run.game.name, "type": run.game.name},
                        "metrics": [metric],
                    }
                ],
            }
        ],
    }
