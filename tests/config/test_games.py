"""The games' names."""

from __future__ import annotations

import re
from typing import Any

import ale_py
import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wn_dqn.config.files import make_settings
from wn_dqn.config.games import CATCH, OutsideGame, all_games, find_game, game_of
from wn_dqn.errors import UsageError

gymnasium.register_envs(ale_py)
REGISTERED = {
    spec.id: spec.kwargs["game"]
    for spec in gymnasium.registry.values()
    if isinstance(spec.entry_point, str) and spec.entry_point.startswith("ale_py.") and spec.kwargs
}
PLAYABLE = set(REGISTERED.values())


@pytest.mark.parametrize(
    "name",
    [
        "SpaceInvaders",
        "space_invaders",
        "ALE/SpaceInvaders-v5",
        "SpaceInvadersNoFrameskip-v4",
        "SpaceInvadersDeterministic-v0",
        "spaceinvaders",
        "SPACE_INVADERS",
        " Space Invaders ",
        "space-invaders",
    ],
)
def test_all_spellings_name_the_same_game(name: str) -> None:
    """Every spelling that gymnasium, ale-py and people use finds the game."""
    assert find_game(name).rom_id == "space_invaders"


@given(st.sampled_from(sorted(all_games().values(), key=lambda game: game.rom_id)), st.sampled_from([str, str.upper]))
def test_names_and_rom_ids_find_their_game(game, spell) -> None:
    """Names and ROM ids round trip, in capitals too, and as gymnasium's ids."""
    for name in (game.rom_id, game.name, f"ALE/{game.name}-v5", f"{game.name}NoFrameskip-v4"):
        assert find_game(spell(name)) is game


def test_every_id_of_gymnasium_finds_its_game() -> None:
    """All ids that ale-py registers, of all versions, lead to the ROM that gymnasium would load."""
    assert len(REGISTERED) > 300
    assert {name: find_game(name).rom_id for name in REGISTERED} == REGISTERED


def test_games_are_those_that_can_be_played() -> None:
    """Every game is one that the emulator can load for one player (it exits the process on another)."""
    assert set(all_games()) == PLAYABLE


def test_names_are_gymnasiums() -> None:
    """A game's name is the one in gymnasium's id."""
    names = {game.name for game in all_games().values() if game.rom_id in PLAYABLE}
    assert {f"ALE/{name}-v5" for name in names} == {name for name in REGISTERED if name.startswith("ALE/")}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SpaceInvader", "SpaceInvaders"),
        ("breakuot", "Breakout"),
        ("ALE/Pogn-v5", "Pong"),
        ("montezuma", "MontezumaRevenge"),
        ("xyzzy", "`wn-dqn games` lists all"),
        ("", "`wn-dqn games` lists all"),
    ],
)
def test_an_unknown_game_is_one_line_with_the_closest(name: str, hint: str) -> None:
    """The message repeats what was typed and names the remedy."""
    with pytest.raises(UsageError, match=rf"^unknown game {re.escape(repr(name))}; .*{hint}.*$") as error:
        find_game(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["Catch", "catch", " CATCH "])
def test_catch_is_a_game_but_no_atari_game(name: str) -> None:
    assert find_game(name) is CATCH
    assert CATCH not in all_games().values()


def test_a_misspelled_catch_is_recognised() -> None:
    with pytest.raises(UsageError, match="did you mean Catch"):
        find_game("catsch")


@pytest.mark.parametrize(
    ("name", "short_name", "parts"),
    [
        ("gymnasium:CartPole-v1", "CartPole-v1", ("", "CartPole-v1", "")),
        ("gymnasium:MinAtar/Breakout-v1", "MinAtar-Breakout-v1", ("", "MinAtar/Breakout-v1", "")),
        ("gymnasium:my.module:Mine-v0", "Mine-v0", ("my.module", "Mine-v0", "")),
        (" my.module:make ", "my.module-make", ("my.module", "", "make")),
    ],
)
def test_an_environment_from_outside_is_named_by_where_it_is(
    name: str, short_name: str, parts: tuple[str, str, str]
) -> None:
    game = find_game(name)
    assert isinstance(game, OutsideGame)
    assert (game.name, game.short_name) == (name.strip(), short_name)
    assert (game.module, game.env_id, game.factory) == parts


@pytest.mark.parametrize(
    "name", ["gymnasium:", ":", "gymnasium::", "a:b:c", "gymnasium:a b:C", "a-b:make", "mine:", ":make", "gymnasium: x"]
)
def test_what_is_no_environment_is_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="is not an environment; write gymnasium:ID"):
        find_game(name)


def test_atari_by_gymnasium_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="give --game ALE/Pong-v5"):
        find_game("gymnasium:ALE/Pong-v5")


def test_settings_say_how_an_environment_is_made() -> None:
    environment = {"args": {"a": 1, "b": [True, None, "x"]}, "vectorization": "async", "stack": 3}
    game = game_of(make_settings({"game": "mine:make", "environment": environment}))
    assert isinstance(game, OutsideGame)
    assert (dict(game.args), game.vectorization, game.stack) == ({"a": 1, "b": [True, None, "x"]}, "async", 3)


@pytest.mark.parametrize("environment", [{"args": {"a": 1}}, {"stack": 2}])
def test_a_game_of_ours_takes_no_arguments(environment: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is for external environments"):
        make_settings({"game": "Catch", "environment": environment})


@pytest.mark.parametrize("args", [{"a": {1, 2}}, {"a": [b"x"]}, {"a": {2: 3}}, {"a": object()}])
def test_arguments_are_plain_values(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"environment\.args"):
        make_settings({"game": "mine:make", "environment": {"args": args}})
