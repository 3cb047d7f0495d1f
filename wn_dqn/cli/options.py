"""Options that several commands have."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import click

from wn_dqn.errors import UsageError
from wn_dqn.evaluation.protocols import PROTOCOLS, changed_protocol, find_protocol
from wn_dqn.render.video import FRAMES_PER_S

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="WN_DQN_DEVICE",
    show_envvar=True,
    help="Where the network and the replay live: auto (a GPU if there is one), cpu, cuda, cuda:0, ...",
)

CHECKPOINT = click.option(
    "--checkpoint", default="best", show_default=True, metavar="best|last|STEPS", help="Which checkpoint of a run."
)


def protocol_options(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--protocol`` and what changes it; the command gets one `protocol`."""
    options = (
        click.option(
            "--protocol",
            "protocol_name",
            default=default,
            show_default=True,
            metavar="|".join([*PROTOCOLS, "FILE.yaml"]),
            help="The rules: one of these names, or a YAML file with the fields of a protocol, like `epsilon: 0.01`.",
        ),
        click.option(
            "--epsilon", type=click.FloatRange(0, 1), help="Change the protocol: the share of random actions."
        ),
        click.option("--sticky", type=click.FloatRange(0, 1), help="Change it: the probability of sticky actions."),
        click.option(
            "--noops", type=click.IntRange(0, 1000), help="Change it: at most so many no-op frames at a start."
        ),
        click.option(
            "--time-limit", metavar="DURATION|none", help="Change it: cut games after 90s or 5m of play, or never."
        ),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(
            *,
            protocol_name: str,
            epsilon: float | None,
            sticky: float | None,
            noops: int | None,
            time_limit: str | None,
            **others: Any,
        ) -> None:
            named = {"epsilon": epsilon, "repeat_action_probability": sticky, "max_noop_frames": noops}
            changes: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
            if time_limit is not None:
                frames = None if time_limit == "none" else max(round(seconds(time_limit) * FRAMES_PER_S), 1)
                changes["max_game_frames"] = frames
            command(protocol=changed_protocol(find_protocol(protocol_name), **changes), **others)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def seconds(duration: str) -> float:
    """What 90s, 30m or 2h are in seconds; UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration.strip())
    if match is None:
        raise UsageError(f"{duration!r} is not a duration; like 90s, 30m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
