"""Settings from files and command lines: YAML, named configs, merging, and errors of one line."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wn_dqn.config.games import find_game
from wn_dqn.config.named import config_folder, named_configs
from wn_dqn.config.plugins import require_imported
from wn_dqn.config.schema import Settings
from wn_dqn.errors import UsageError, closest
from wn_dqn.system.reading import KIB, read_text

CONFIG_BYTES = 64 * KIB
"""depth limit of a config; one with every setting has depth two"""
_MAX_NODES = 10_000
_MAX_VALUE = 10_000


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)  # YAML 1.2: 1e-4 is a number, `no` is a word
    yaml.composer.warn_double_anchors = False  # an anchor that is defined twice is legal
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML 1.2 text. Raises UsageError, naming `source`, if it is invalid or too large for a config."""
    try:
        if len(text) > CONFIG_BYTES:
            raise ValueError(f"it has more than {CONFIG_BYTES:,} characters")
        _require_few_nodes(text)
        value = _yaml().load(text)
        _require_text(value)
        return value
    except (
        *(YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
        AssertionError,  # of "%YAML 1.3"
    ) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())  # a false tag can raise any error
        raise UsageError(f"{source} is not valid YAML: {reason}") from None


def _require_few_nodes(text: str) -> None:
    """Raise ValueError if the text has too many nodes, including those that aliases repeat.

    A few hundred bytes of nested aliases can expand to billions of nodes, and merging copies each.
    """
    finished: dict[str, int] = {}  # the number of nodes of each anchor
    opened: list[tuple[str | None, int]] = []  # open mappings and lists: anchor, nodes so far
    for event in _yaml().parse(text):
        kind, anchor, count = type(event).__name__, getattr(event, "anchor", None), 0
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            opened.append((anchor, 1))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            anchor, count = opened.pop()
        elif kind == "ScalarEvent":
            count = 1
        elif kind == "AliasEvent":
            count = finished.get(str(anchor), 0)
            if not count:
                raise ValueError(f"the alias {str(anchor)[:50]!r} stands within what it names, or names nothing")
            anchor = None
        if count > _MAX_NODES:
            raise ValueError(f"it has more than {_MAX_NODES:,} values")
        if isinstance(anchor, str) and count:
            finished[anchor] = count
        if opened:
            opened[-1] = (opened[-1][0], opened[-1][1] + count)


def _require_text(value: object) -> None:
    """Raise ValueError if a string is not encodable in UTF-8 (a lone surrogate), or is longer than any setting."""
    if isinstance(value, str):
        value.encode()
        if len(value) > _MAX_VALUE:
            raise ValueError(f"a value has more than {_MAX_VALUE:,} characters")
    elif isinstance(value, dict):
        _require_text([*value, *value.values()])
    elif isinstance(value, list | tuple | set):
        for item in value:
            _require_text(item)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """`data` as YAML."""
    stream = io.StringIO()
    _yaml().dump(dict(data), stream)
    return stream.getvalue()


def read_config(name_or_path: str) -> dict[str, Any]:
    """The mapping in a config file, given by name (`quick`) or by path (`my/quick.yaml`)."""
    path = Path(name_or_path)
    if name_or_path in named_configs():
        path = config_folder() / f"{name_or_path}.yaml"
    elif not os.path.isfile(path):  # unlike Path.is_file, false for a name that is too long
        raise UsageError(
            f"no config {name_or_path!r}: neither a file nor a name; {closest(name_or_path, named_configs())}"
        )
    return read_yaml_mapping(path, "config")


def read_yaml_mapping(path: Path, kind: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UsageError, with `kind` as its name, if it is unreadable or not a mapping."""
    try:
        text = read_text(path, CONFIG_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {kind} {path}: {error.strerror}") from None
    data = parse_yaml(text, f"{kind} {path}")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{kind} {path} must be a mapping of settings, not a {type(data).__name__}")
    return data


def parse_assignment(assignment: str) -> dict[str, Any]:
    """``section.key=value`` as a nested mapping. The value is parsed as YAML."""
    key, equals, value = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {assignment!r} is not of the form section.key=value, like learning.batch_size=32")
    return nested(key.strip(), parse_yaml(value, f"the value of --set {assignment!r}"))


def nested(dotted_key: str, value: object) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for the key ``a.b``."""
    head, _, rest = dotted_key.partition(".")
    return {head: nested(rest, value) if rest else value}


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge several nested mappings, key by key. Later layers have precedence."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge([merged[key], value]) if both else value
    return merged


def make_settings(data: Mapping[str, Any]) -> Settings:
    """Validated settings. Any spelling of the game is replaced by its name in `all_games`.

    Raises UsageError with the first mistake, its key, and the closest valid key.
    """
    data = dict(data)
    if isinstance(data.get("game"), str):
        data["game"] = find_game(data["game"]).name
    return _validated(data)


def stored_settings(data: Mapping[str, Any]) -> Settings:
    """The settings of an existing run. Unlike `make_settings`, it accepts the name of an unknown game.

    The game of such a run cannot be played here. But the run can be read, plotted and reported.
    """
    data = dict(data)
    with contextlib.suppress(UsageError):
        data["game"] = find_game(str(data.get("game"))).name
    return _validated(data)


def _validated(data: dict[str, Any]) -> Settings:
    require_imported(data)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise UsageError(_explain(error)) from None


def setting_help(model: type[BaseModel] = Settings, prefix: str = "") -> list[tuple[str, str, str]]:
    """Dotted key, default as YAML, and description of every setting."""
    rows: list[tuple[str, str, str]] = []
    for key, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            rows += setting_help(section, f"{prefix}{key}.")
        else:
            default = "null" if field.is_required() or field.default is None else str(field.default).lower()
            rows.append((prefix + key, default, field.description or ""))
    return rows


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The differences of two nested mappings, by dotted key, with both values: ``key: old -> new``."""
    lines: list[str] = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def _valid_keys() -> list[str]:
    return [*Settings.model_fields, *(key for key, _, _ in setting_help() if "." in key)]


def _explain(error: ValidationError) -> str:
    mistake = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return f"unknown setting {key!r}; {closest(key, _valid_keys())}"
    if mistake["type"] == "missing":
        return f"setting {key!r} is missing: give --{key} or put it in the config"
    message = mistake["msg"].removeprefix("Value error, ")
    if not key:
        return f"invalid settings: {message}"
    value = mistake["input"]
    hint = (
        f" ({closest(value, mistake['ctx']['expected'].replace(chr(39), '').replace(' or ', ', ').split(', '))})"
        if (mistake["type"] == "literal_error" and isinstance(value, str))
        else ""
    )
    return f"invalid value {_short(value)} for {key}: {message}{hint}"


def _short(value: object) -> str:
    """`value` in a short form for a message of one line."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print a number of more than 4,300 digits
        return "of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
