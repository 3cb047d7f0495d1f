"""Options and types of values that several commands share."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from wn_dqn.analysis.choices import REFERENCES
from wn_dqn.errors import UsageError

if TYPE_CHECKING:
    from wn_dqn.evaluation.protocols import EvaluationProtocol

_LONGEST_S = 3600.0 * 10**6

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    envvar="WN_DQN_DEVICE",
    show_envvar=True,
    help="Device of the network and the replay: auto (a GPU if there is one), cpu, cuda, cuda:0, ...",
)

CHECKPOINT = click.option(
    "--checkpoint", default="best", show_default=True, metavar="best|last|STEPS", help="Which checkpoint of a run."
)


ENV_ARGS = click.option(
    "--env-arg",
    "env_args",
    metavar="KEY=VALUE",
    multiple=True,
    help="A keyword argument of the environment of --env, like sticky_action_prob=0. May be given several times.",
)

NAMED_ENV = click.option(
    "--env",
    "named_env",
    metavar="MODULE:FACTORY",
    help="Allow the external code that the run uses as its environment; give the same name.",
)


def _import_plugins(_context: click.Context, _param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    if names:
        from wn_dqn.config.plugins import import_plugins

        import_plugins(names)
    return names


def plugin_option(*, expose_value: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--plugin``: imports its modules before anything else. Most commands do not need their names."""
    return click.option(
        "--plugin",
        "plugins",
        metavar="MODULE",
        multiple=True,
        is_eager=True,
        expose_value=expose_value,
        callback=_import_plugins,
        help="Import a module that registers your own parts, for instance with wn_dqn.register_network. It may be in "
        "this folder. May be given several times.",
    )


PLUGIN = plugin_option()

REFERENCE = click.option(
    "--reference",
    type=click.Choice(list(REFERENCES)),
    help="Draw published curves in gray behind yours: training scores of 60 games with sticky actions.",
)


def environment_arguments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """The keyword arguments of ``--env-arg KEY=VALUE`` options. Each value is parsed as YAML."""
    from wn_dqn.config.files import parse_yaml

    arguments: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--env-arg {assignment!r} is not of the form KEY=VALUE, like sticky_action_prob=0")
        arguments[key.strip()] = parse_yaml(value, f"the value of --env-arg {assignment!r}")
    return arguments


def _whole(value: Any) -> Any:
    """1000000 for 1e6. Any other value, for instance 1.5e0, is returned unchanged, and click checks it."""
    if isinstance(value, str) and "e" in value.lower():
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else value
    return value


class Count(click.types.IntParamType):
    """A whole number, written 1000000 or 1e6. The settings check its range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Raises click's error if `value` is not one."""
        return super().convert(_whole(value), param, ctx)


class CountRange(click.IntRange):
    """A whole number in a range, written 1000000 or 1e6."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Raises click's error if `value` is not one."""
        return super().convert(_whole(value), param, ctx)


class NumberRange(click.FloatRange):
    """A finite number in a range. nan is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises click's error if `value` is not one."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class _ProtocolName(click.types.StringParamType):
    """The name of a protocol, or a file. The protocols are imported only for a help text or a completion."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "|".join([*self._names(), "FILE.yaml"])

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]

    @staticmethod
    def _names() -> list[str]:
        from wn_dqn.evaluation.protocols import PROTOCOLS

        return list(PROTOCOLS)


def protocol_options(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add ``--protocol`` and the options that change it. The command receives one `protocol`."""
    options = (
        click.option(
            "--protocol",
            "protocol_name",
            type=_ProtocolName(),
            default=default,
            show_default=True,
            help="The rules: one of these names, or a YAML file with the fields of a protocol, like `epsilon: 0.01`.",
        ),
        click.option("--epsilon", type=NumberRange(0, 1), help="Override the protocol's share of random actions."),
        click.option("--sticky", type=NumberRange(0, 1), help="Override its probability of sticky actions."),
        click.option(
            "--noops", type=click.IntRange(0, 1000), help="Override its maximum of no-op frames at the start."
        ),
        click.option("--time-limit", metavar="DURATION|none", help="Override its time limit, like 90s or 5m of play."),
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
                changes["max_game_frames"] = None if time_limit == "none" else _frames(time_limit)
            command(protocol=_protocol(protocol_name, changes), **others)

        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _protocol(name: str, changes: dict[str, Any]) -> EvaluationProtocol:
    from wn_dqn.evaluation.protocols import changed_protocol, find_protocol

    return changed_protocol(find_protocol(name), **changes)


def _frames(duration: str) -> int:
    """The number of frames of a game in `duration`, at least one."""
    from wn_dqn.render.video import FRAMES_PER_S

    return max(round(seconds(duration) * FRAMES_PER_S), 1)


def seconds(duration: str) -> float:
    """The seconds of a duration like 90s, 30m or 2h. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration.strip())
    if match is None:
        raise UsageError(f"{duration!r} is not a duration; write it like 90s, 30m or 2h")
    length_s = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if length_s > _LONGEST_S:
        raise UsageError(f"a duration is at most {_LONGEST_S / 3600:,.0f}h")
    return length_s
