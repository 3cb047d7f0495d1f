"""Settings: the paper's numbers, files and assignments that say what differs, and errors that help."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from wn_dqn.config import registry
from wn_dqn.config.files import (
    differences,
    dump_yaml,
    make_settings,
    merge,
    parse_assignment,
    parse_yaml,
    read_config,
    setting_help,
    stored_settings,
)
from wn_dqn.config.named import named_configs
from wn_dqn.config.schema import LearningSettings, NetworkSettings, Settings
from wn_dqn.errors import UsageError
from wn_dqn.nn.optimizers import OPTIMIZERS
from wn_dqn.nn.uniform_init import UNIFORM_INITS
from wn_dqn.training.q_learning import LOSSES


def error_of(data: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as error:
        make_settings(data)
    return str(error.value)


def test_defaults_are_the_papers() -> None:
    """Salimans & Kingma (2016), section 5.4, and Mnih et al. (2015), extended data table 1; steps of 4 frames."""
    settings = make_settings({"game": "SpaceInvaders"})
    assert settings.param == "wn"
    learning, exploration, optimizer = settings.learning, settings.exploration, settings.optimizer
    assert learning.total_steps == 200 * 250_000
    assert learning.start_steps == 50_000
    assert learning.update_period_steps == 4
    assert learning.batch_size == 64
    assert learning.discount == 0.99
    assert learning.target_period_steps == 10_000
    assert settings.target_period_updates == 2_500
    assert settings.replay.capacity == 1_000_000
    assert (exploration.initial, exploration.final, exploration.decay_steps) == (1.0, 0.1, 1_000_000)
    assert (optimizer.name, optimizer.beta1) == ("adamax", 0.5)
    environment = settings.environment
    assert environment.max_noop_frames == 30
    assert environment.terminal_on_life_loss
    assert not environment.full_action_set
    assert environment.repeat_action_probability == 0.0
    assert environment.max_game_frames is None
    evaluation = settings.evaluation
    assert (evaluation.epoch_steps, evaluation.steps, evaluation.epsilon) == (250_000, 125_000, 0.05)
    assert evaluation.held_out_states == 3_200
    assert settings.network.output_init_scale == 1.0


@pytest.mark.parametrize(
    ("name", "param", "learning_rate", "beta1", "epsilon"),
    [
        ("adamax", "wn", 3e-4, 0.5, 1e-8),
        ("adamax", "standard", 1e-4, 0.5, 1e-8),
        ("adamax", "wn-exp", 3e-4, 0.5, 1e-8),
        ("adamax", "mean-only-bn", 1e-4, 0.5, 1e-8),
        ("adamax", "wn-mean-only-bn", 3e-4, 0.5, 1e-8),
        ("adamax", "bn", 3e-4, 0.5, 1e-8),
        ("adamax-salimans", "wn", 3e-4, 0.5, 1e-6),
        ("adamax-salimans", "standard", 1e-4, 0.5, 1e-6),
        ("adam", "wn", 3e-4, 0.9, 1e-8),
        ("adam", "standard", 1e-4, 0.9, 1e-8),
        ("sgd", "bn", 1e-2, 0.5, 1e-8),
        ("rmsprop-nature", "wn", 2.5e-4, 0.5, 0.01),
        ("rmsprop-nature", "standard", 2.5e-4, 0.5, 0.01),
    ],
)
def test_what_depends_on_the_optimizer_and_the_parameterization(
    name: str, param: str, learning_rate: float, beta1: float, epsilon: float
) -> None:
    """Is filled in where nothing, or null, was given; what was given stays."""
    for given_ in ({}, {"learning_rate": None, "beta1": None, "epsilon": None}):
        optimizer = make_settings({"game": "Pong", "param": param, "optimizer": {"name": name, **given_}}).optimizer
        assert (optimizer.learning_rate, optimizer.beta1, optimizer.epsilon) == (learning_rate, beta1, epsilon)
    own = {"name": name, "learning_rate": 0.5, "beta1": 0.75, "epsilon": 0.25}
    optimizer = make_settings({"game": "Pong", "param": param, "optimizer": own}).optimizer
    assert (optimizer.learning_rate, optimizer.beta1, optimizer.epsilon) == (0.5, 0.75, 0.25)


def test_every_name_has_what_is_built_from_it() -> None:
    """And nothing is there that no name leads to."""
    rows = [*registry.PARAMETERIZATIONS.values(), *registry.AGENTS.values(), *registry.NETWORKS.values()]
    codes = [code for row in rows for code in vars(row).values() if isinstance(code, str) and ":" in code]
    assert len(codes) >= 2 * len(registry.PARAMETERIZATIONS) + len(registry.AGENTS) + len(registry.NETWORKS)
    assert all(isinstance(registry.import_code(code), type) for code in codes)
    assert set(registry.OPTIMIZERS) == set(OPTIMIZERS)
    assert set(get_args(LearningSettings.model_fields["loss"].annotation)) == set(LOSSES)
    assert set(get_args(NetworkSettings.model_fields["init"].annotation)) == {"data", *UNIFORM_INITS}


def test_settings_cannot_change() -> None:
    settings = make_settings({"game": "Pong"})
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.learning.batch_size = 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1e3),
        ("80_000", 80_000),
        ("-7", -7),
        ("0o17", 15),
        ("017", 17),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("true", True),
        ("null", None),
        ("", None),
        ("{ a: [1, 2.5] }", {"a": [1, 2.5]}),
    ],
)
def test_yaml_is_version_1_2(text: str, value: Any) -> None:
    """1e-4 is a number, `no` a word, and 12:30 no number to the base of sixty."""
    parsed = parse_yaml(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: [1", "a: 1\na: 2", "a: 1\n---\nb: 2", "*x", "\x00", "!!python/object:os.system x", "!!timestamp 2001-99-99",
        "9" * 5000, "%YAML 9.9\n---\na: 1", "- !!map [1]", "@", "\t- a",
    ],
)  # fmt: skip
def test_what_is_not_yaml_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"\Aconfig x is not valid YAML: .+\Z"):
        parse_yaml(text, "config x")


@pytest.mark.parametrize("text", ["!!bool foo", "!!int ''", "!!float ''", pytest.param("[" * 999, id="deep")])
def test_what_ruamel_stumbles_over_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"\Aconfig x is not valid YAML: .+\Z"):
        parse_yaml(text, "config x")


def test_later_layers_win_key_by_key() -> None:
    config = {"game": "Pong", "learning": {"batch_size": 1, "discount": 0.5}}
    assignments = [{"learning": {"batch_size": 2, "start_steps": 9}}, {"learning": {"batch_size": 3}}]
    option = {"game": "Breakout", "learning": {"total_steps": 4}}
    assert merge([config, *assignments, option]) == {
        "game": "Breakout",
        "learning": {"batch_size": 3, "discount": 0.5, "start_steps": 9, "total_steps": 4},
    }
    assert merge([{"a": {"b": 1}}, {"a": 2}]) == {"a": 2}
    assert merge([{"a": 2}, {"a": {"b": 1}}]) == {"a": {"b": 1}}
    assert merge([]) == {}
    assert config == {"game": "Pong", "learning": {"batch_size": 1, "discount": 0.5}}  # as it was


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"gmae": "Pong"}, "unknown setting 'gmae'; did you mean game"),
        ({"learning": {"batchsize": 1}}, "unknown setting 'learning.batchsize'; did you mean learning.batch_size"),
        ({"batch_size": 1}, "unknown setting 'batch_size'; did you mean learning.batch_size"),
        ({"game": None}, "invalid value None for game: Input should be a valid string"),
        ({"game": 3}, "invalid value 3 for game"),
        ({"param": "wm"}, "invalid value 'wm' for param: Input should be 'standard', 'wn', "),
        ({"param": "wm"}, "or 'wn-all' (did you mean ws or wn?)"),
        ({"network": {"name": "natur"}}, "'minatar', 'mlp' or 'impala' (did you mean nature"),
        ({"network": {"hidden": []}}, "invalid value [] for network.hidden"),
        ({"network": {"hidden": [64, 0]}}, "invalid value 0 for network.hidden.1: Input should be greater than 0"),
        ({"network": {"hidden": ["64"]}}, "invalid value '64' for network.hidden.0: Input should be a valid integer"),
        ({"optimizer": {"name": "adamx"}}, "invalid value 'adamx' for optimizer.name: "),
        ({"optimizer": {"name": "adamx"}}, "(did you mean adamax or adam or "),
        ({"optimizer": {"name": ["adamax"]}}, "invalid value ['adamax'] for optimizer.name"),
        ({"optimizer": {"learning_rate": 0}}, "invalid value 0 for optimizer.learning_rate"),
        ({"optimizer": {"learning_rate": float("inf")}}, "optimizer.learning_rate: Input should be a finite number"),
        ({"optimizer": "adamax"}, "invalid value 'adamax' for optimizer"),
        ({"learning": None}, "invalid value None for learning"),
        ({"learning": {"batch_size": "32"}}, "invalid value '32' for learning.batch_size: Input should be a valid int"),
        ({"learning": {"batch_size": 32.5}}, "invalid value 32.5 for learning.batch_size"),
        ({"learning": {"total_steps": math.inf}}, "invalid value inf for learning.total_steps"),
        ({"seed": 1e3}, "invalid value 1000.0 for seed"),
        ({"learning": {"batch_size": True}}, "invalid value True for learning.batch_size"),
        ({"learning": {"batch_size": 0}}, "invalid value 0 for learning.batch_size: Input should be greater than 0"),
        ({"learning": {"total_steps": -1}}, "invalid value -1 for learning.total_steps"),
        ({"learning": {"discount": 1.01}}, "invalid value 1.01 for learning.discount"),
        ({"learning": {"discount": float("nan")}}, "invalid value nan for learning.discount"),
        ({"exploration": {"final": -0.1}}, "invalid value -0.1 for exploration.final"),
        ({"environment": {"num_envs": 1025}}, "invalid value 1025 for environment.num_envs"),
        ({"environment": {"full_action_set": "no"}}, "invalid value 'no' for environment.full_action_set"),
        ({"seed": -1}, "invalid value -1 for seed"),
        ({"seed": 2**63}, f"invalid value {2**63} for seed"),
        ({"seed": 1.5}, "invalid value 1.5 for seed"),
        ({3: 4}, "Keys should be strings"),
        ({"learning": {"start_steps": 1_000_001}}, "(1,000,001) must not exceed replay.capacity (1,000,000)"),
        ({"learning": {"batch_size": 50_001}}, "batch_size (50,001) must not exceed learning.start_steps (50,000)"),
        ({"learning": {"n_steps": 1000, "start_steps": 7999}}, "n_steps times environment.num_envs (8,000) must not"),
        ({"network": {"init_batch_size": 50_001}}, "network.init_batch_size (50,001) must not exceed"),
        ({"evaluation": {"held_out_states": 50_001}}, "evaluation.held_out_states (50,001) must not exceed"),
        ({"learning": {"update_period_steps": 3}}, "learning.target_period_steps must be a multiple of"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_with_the_remedy(data: dict[str, Any], message: str) -> None:
    text = error_of({"game": "Pong"} | data)
    assert message in text
    assert "\n" not in text


def test_a_missing_game_names_the_option() -> None:
    assert error_of({}) == "setting 'game' is missing: give --game or put it in the config"


def test_sizes_may_be_equal() -> None:
    """But not one more environment than there are steps before learning."""
    sizes = {
        "replay": {"capacity": 8},
        "learning": {"start_steps": 8, "batch_size": 8, "update_period_steps": 8, "target_period_steps": 8},
        "network": {"init_batch_size": 8},
        "evaluation": {"held_out_states": 8},
    }
    assert make_settings({"game": "Pong", "environment": {"num_envs": 8}, **sizes}).target_period_updates == 1
    text = error_of({"game": "Pong", "environment": {"num_envs": 9}, **sizes})
    assert text == "invalid settings: environment.num_envs (9) must not exceed learning.start_steps (8)"


ALL_CHANGED = {
    "game": "no",  # a word that other versions of YAML take for false
    "param": "standard",
    "seed": 2**63 - 1,
    "environment": {"max_game_frames": 108_000, "full_action_set": True, "repeat_action_probability": 0.25},
    "network": {"name": "mlp", "hidden": [32, 16, 8]},
    "learning": {"loss_reduction": "sum", "discount": 1, "update_period_steps": 8},
    "optimizer": {"name": "rmsprop-nature", "learning_rate": 1e-5},
}


@pytest.mark.parametrize("data", [{"game": "Pong"}, ALL_CHANGED, {"game": "null"}, {"game": "1e3", "seed": 0}])
def test_settings_survive_their_file(data: dict[str, Any]) -> None:
    settings = stored_settings(data)
    assert stored_settings(parse_yaml(dump_yaml(settings.model_dump()), "x")) == settings


@pytest.mark.parametrize("name", named_configs())
def test_named_configs_are_valid_and_survive_their_file(name: str) -> None:
    settings = make_settings({"game": "Pong"} | read_config(name))
    assert make_settings(parse_yaml(dump_yaml(settings.model_dump()), name)) == settings


def test_there_are_named_configs() -> None:
    assert {"quick", "smoke"} <= set(named_configs())


def test_config_files(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("game: Pong\nlearning: { batch_size: 7 } # comment\n")
    assert read_config(str(path)) == {"game": "Pong", "learning": {"batch_size": 7}}
    path.write_text("# nothing but a comment\n")
    assert read_config(str(path)) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n", "must be a mapping of settings, not a list"),
        (b"just words", "must be a mapping of settings, not a str"),
        (b"a: [", "is not valid YAML"),
        (b"\xff\xfe\x00", "cannot read config"),
    ],
)
def test_a_bad_config_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read_config(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("quik", "did you mean quick?"), ("nothing/like/it", f"valid: {', '.join(named_configs())}")],
)
def test_an_unknown_config_names_the_closest(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        read_config(name)
    assert str(error.value) == f"no config {name!r}: neither a file nor a name; {hint}"


@pytest.mark.parametrize(
    ("assignment", "data"),
    [
        ("learning.batch_size=32", {"learning": {"batch_size": 32}}),
        ("optimizer.learning_rate=1e-4", {"optimizer": {"learning_rate": 1e-4}}),
        ("optimizer.learning_rate=null", {"optimizer": {"learning_rate": None}}),
        ("optimizer.learning_rate=", {"optimizer": {"learning_rate": None}}),
        (" seed = 3 ", {"seed": 3}),
        ("game=a=b", {"game": "a=b"}),
        ("network.hidden=[128, 64]", {"network": {"hidden": [128, 64]}}),
        ("game=no", {"game": "no"}),
        ("learning={batch_size: 1, discount: 0.5}", {"learning": {"batch_size": 1, "discount": 0.5}}),
    ],
)
def test_assignments(assignment: str, data: dict[str, Any]) -> None:
    assert parse_assignment(assignment) == data


@pytest.mark.parametrize("assignment", ["", "=", "seed", "=1", ".=1", "a.=1", ".a=1", "a..b=1", " =1", "a=[", "a={"])
def test_bad_assignments(assignment: str) -> None:
    with pytest.raises(UsageError, match="--set") as error:
        parse_assignment(assignment)
    assert repr(assignment) in str(error.value)


def test_differences_name_both_values() -> None:
    old, new = (make_settings({"game": "Pong", "seed": seed}).model_dump() for seed in (1, 2))
    assert differences(old, old) == differences({"a": [1]}, {"a": [1]}) == []
    new["learning"]["batch_size"] = 32
    assert differences(old, new) == ["seed: 1 -> 2", "learning.batch_size: 64 -> 32"]
    assert differences({"a": 1, "b": {"c": 2}}, {"b": 3, "d": None, "e": 4}) == [
        "a: 1 -> None", "b: {'c': 2} -> 3", "e: None -> 4",
    ]  # fmt: skip


# null: no default, or one that depends on other settings
DEPENDENT = ("game", "optimizer.learning_rate", "optimizer.beta1", "optimizer.epsilon")


def test_every_setting_is_explained() -> None:
    """With its default, as it is written in YAML."""
    rows = {key: (default, text) for key, default, text in setting_help()}
    assert all(text for _, text in rows.values())
    defaults: dict[str, Any] = make_settings({"game": "Pong"}).model_dump()
    for key, (default, _) in rows.items():
        section, _, name = key.rpartition(".")
        value = parse_yaml(default, key)
        if key not in (
            "game",
            "optimizer.learning_rate",
            "optimizer.beta1",
            "optimizer.epsilon",
        ):  # null: no default, or one that depends
            assert value == (defaults[section] if section else defaults)[name], key
    assert rows["optimizer.learning_rate"][0] == "null"
    assert len(rows) == sum(len(value) if isinstance(value, dict) else 1 for value in defaults.values())


NAMES = [key.rpartition(".")[2] for key, _, _ in setting_help()]
KEYS = st.sampled_from([*Settings.model_fields, *NAMES]) | st.text(max_size=5)
LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=3), st.dates()),
    st.sampled_from(["wn", "adamax", "Pong"]),
)
NESTED = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


def settings_or_message(data: dict[Any, Any]) -> Settings | str:
    """Settings, which survive their file, or the one line that says why there are none."""
    try:
        settings = make_settings(merge([data]))
    except UsageError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        return message
    assert make_settings(parse_yaml(dump_yaml(settings.model_dump()), "x")) == settings
    return settings


@given(data=st.dictionaries(KEYS | st.integers() | st.tuples(), NESTED, max_size=4))
@example(data={"optimizer": {"name": {}}})
@example(data={"game": "Pong", "param": ["wn"], "optimizer": {"name": "adamax"}})
def test_any_data_is_settings_or_one_line(data: dict[Any, Any]) -> None:
    for each in (data, {"game": "Pong"} | data):
        settings_or_message(each)


@given(key=st.sampled_from([key for key, _, _ in setting_help()]), value=LEAVES)
def test_any_value_of_any_setting_is_settings_or_one_line(key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    outcome = settings_or_message({"game": "Pong"} | ({section: {name: value}} if section else {name: value}))
    assert isinstance(outcome, Settings) or key in outcome


@pytest.mark.survives("`1e6` where a count is meant", "it is a million; 1.5 is refused")
@pytest.mark.parametrize("text", ["1e6", "1E+6", "1000000.0", "1_000_000"])
def test_a_count_may_be_written_with_an_exponent(text: str) -> None:
    assignment = parse_assignment(f"learning.total_steps={text}")
    settings = make_settings(merge([{"game": "Pong"}, assignment]))
    assert settings.learning.total_steps == 1_000_000
    assert type(settings.learning.total_steps) is int


PIECES = [*"ab:,-[]{}'\"#&*!|>%@` \n\t01.~?=", "<<", "---", "&a ", "*a"]


@given(text=st.text(max_size=20) | st.lists(st.sampled_from(PIECES), max_size=15).map("".join))
@example(text="&a[&a")
def test_any_text_is_yaml_or_one_line(text: str) -> None:
    message = "x is not valid YAML: "
    try:
        parse_yaml(text, "x")
    except UsageError as error:
        message = str(error)
    assert message.startswith("x is not valid YAML: ")
    assert len(message.splitlines()) == 1


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n" for before, name in itertools.pairwise("abcdefghi")
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join(9 * [f'*{before}'])}]\n" for before, name in itertools.pairwise("abcdefghi")
)


@pytest.mark.survives(
    "a config of aliases of aliases, or one that is no text of that size", "one line says so, at once"
)
@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        MERGES,
        "a: &a [*a]",
        "a: [" * 9_000,
        "game: " + "x" * 20_000,
        "- x\n" * 20_000,
        'game: "\\ud800"',
        "x: " + "9" * 5000,
        "x" * 70_000,
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_a_config_that_stands_for_too_much_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(str(tmp_path / "c.yaml"))
    assert "c.yaml" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_aliases_are_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("replay: &r {capacity: 5}\nlearning: {<<: *r}\nnetwork: *r\n")
    assert read_config(str(tmp_path / "c.yaml")) == {key: {"capacity": 5} for key in ("replay", "learning", "network")}


@pytest.mark.parametrize("key", ["game", "param", "agent", "network.name"])
def test_a_name_of_any_length_is_one_line(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_settings(merge([{"game": "Pong"}, parse_assignment(f"{key}={'x' * 9000}")]))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["SpaceInvaders", "space_invaders", "ALE/SpaceInvaders-v5", " spaceinvaders "])
def test_a_game_has_one_name_in_the_settings(name: str) -> None:
    """From Python as from the command: scores are published under that name."""
    assert make_settings({"game": name}).game == "SpaceInvaders"
    assert stored_settings({"game": name}).game == "SpaceInvaders"


def test_the_settings_of_an_old_run_may_name_an_unknown_game() -> None:
    with pytest.raises(UsageError, match="unknown game 'Pomg'; did you mean Pong"):
        make_settings({"game": "Pomg"})
    assert stored_settings({"game": "Pomg"}).game == "Pomg"
    with pytest.raises(UsageError, match="setting 'game' is missing"):
        stored_settings({})
    with pytest.raises(UsageError, match="unknown setting 'parm'"):
        stored_settings({"game": "Pomg", "parm": "wn"})


def test_what_settings_are_made_of_is_light() -> None:
    """Neither torch nor the emulator is imported before a game of Atari's is asked for."""
    code = (
        "import sys; from wn_dqn.config.files import make_settings; make_settings({'game': 'Catch'}); "
        "print({'torch', 'ale_py', 'gymnasium'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
