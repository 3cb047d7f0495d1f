"""Parts of one's own: registered in a process, or by a plugin that a person names."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from command import wn_dqn as command
from small_runs import settings_for, train

import wn_dqn
from wn_dqn.cli.main import cli
from wn_dqn.config.files import make_settings
from wn_dqn.config.plugins import import_plugins
from wn_dqn.nn.layers import layer_kit
from wn_dqn_agents.dqn import DQN

pytestmark = pytest.mark.usefixtures("small_network", "own_rows")

PLUGIN = """
import wn_dqn

class Mine(wn_dqn.nn.Linear):
    pass

class MineConv(wn_dqn.nn.Conv2d):
    pass

wn_dqn.register_parameterization("mine", linear=Mine, conv2d=MineConv)
"""
NAME = "plugin_of_a_test"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder, which is not imported yet."""
    (tmp_path / f"{NAME}.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, NAME, None)  # type: ignore[arg-type]  # so that monkeypatch removes it again
    del sys.modules[NAME]
    return NAME


def test_a_registered_name_is_a_setting() -> None:
    class Mine(DQN):
        pass

    wn_dqn.register_agent("mine", Mine)
    assert settings_for(agent="mine").agent == "mine"
    wn_dqn.register_agent("mine", Mine)  # again, as a notebook does


def test_a_parameterization_without_convolutions_says_so() -> None:
    class Mine(wn_dqn.nn.Linear):
        pass

    wn_dqn.register_parameterization("mine", linear=Mine)
    assert type(layer_kit("mine").linear(2, 3)) is Mine
    with pytest.raises(wn_dqn.UsageError, match="mine has no convolutions: register it with conv2d="):
        layer_kit("mine").conv2d(1, 2, 3, stride=1)


def test_what_is_no_part_is_refused() -> None:
    class Unfinished(wn_dqn.nn.Layer):
        pass

    for register, message in (
        (lambda: wn_dqn.register_parameterization("wn", linear=wn_dqn.nn.Linear), "wn is built in"),
        (lambda: wn_dqn.register_network("auto", wn_dqn.nn.QNetwork), "lacks methods .*build, features"),
        (lambda: wn_dqn.register_parameterization("a b", linear=wn_dqn.nn.Linear), "'a b' cannot be the name"),
        (lambda: wn_dqn.register_parameterization("a", linear=DQN), "linear must be a subclass of wn_dqn.nn.layers"),
        (lambda: wn_dqn.register_parameterization("a", linear=Unfinished), "lacks methods .*fold"),
        (lambda: wn_dqn.register_agent("a", 1), "an agent must be a class"),
    ):
        with pytest.raises(wn_dqn.UsageError, match=message):
            register()  # type: ignore[no-untyped-call]


@pytest.mark.survives("settings of somebody else that name a plugin", "it is not run until a person names it, too")
def test_a_plugin_is_imported_when_a_person_names_it_and_by_nothing_else(plugin: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"game: Catch\nparam: mine\nplugins: [{plugin}]\n")
    for args in (["train", "--config", str(config)], ["import", "x.safetensors", "-o", "y", "--config", str(config)]):
        status, _, err = command(*args)
        assert status == 2
    status, _, err = command("train", "--config", str(config))
    assert f"this would run the plugin {plugin}, code from outside of wn-dqn; if you trust it, add --plugin" in err
    assert plugin not in sys.modules
    import_plugins([plugin])
    assert make_settings({"game": "Catch", "param": "mine", "plugins": [plugin]}).plugins == [plugin]


def test_a_run_with_a_plugin_is_read_by_whoever_trusts_it(plugin: str, tmp_path: Path) -> None:
    import_plugins([plugin])
    assert train(settings_for(param="mine", plugins=[plugin]), tmp_path / "run") == 0
    checkpoint = wn_dqn.Run("run").policy("last").path
    readers = [["evaluate", "--protocol", "nature", "--games", "1"], ["card"], ["checkpoint", "list"]]
    readers += [["checkpoint", "verify"], ["report"], ["plot", "-o", "a.svg"], ["export", "-o", "a.safetensors"]]
    readers += [["play", "-o", "a.gif", "--max-frames", "9"]]
    for path in ("run", str(checkpoint)):
        for args in readers if path == "run" else readers[:1]:
            del sys.modules[plugin]
            status, _, err = command(*args, path)
            assert (status, f"add --plugin {plugin}" in err) == (2, True), (args, err)
            assert plugin not in sys.modules
            assert command(*args, path, "--plugin", plugin)[0] == 0, args
    del sys.modules[plugin]
    for read in (wn_dqn.load, wn_dqn.Run):
        with pytest.raises(wn_dqn.UsageError, match=r"in Python: import it first, or trust=True"):
            read("run")
    with pytest.raises(wn_dqn.UsageError, match="import it first"):
        wn_dqn.load("a.safetensors")
    wn_dqn.load("a.safetensors", trust=True)
    del sys.modules[plugin]
    assert wn_dqn.load(checkpoint, trust=True).settings.param == "mine"
    del sys.modules[plugin]
    assert wn_dqn.Run("run", trust=True).policy().num_actions == 3


def test_every_command_that_reads_or_begins_a_run_takes_plugins() -> None:
    without = {"games", "settings", "doctor", "agents", "checkpoint", "sweep", "paper"}
    assert {name for name, each in cli.commands.items() if "plugins" not in {p.name for p in each.params}} == without
    groups = [cli.commands[name].commands for name in ("checkpoint", "sweep")]  # type: ignore[attr-defined]
    for name, each in itertools.chain.from_iterable(group.items() for group in groups):
        assert name == "status" or "plugins" in {param.name for param in each.params}


def test_workers_of_an_evaluation_import_the_plugin(plugin: str, tmp_path: Path) -> None:
    import_plugins([plugin])
    vector = {"game": "CatchVector", "network": {"init_batch_size": 16, "name": "mlp"}}
    assert train(settings_for(param="mine", plugins=[plugin], **vector), tmp_path / "run") == 0
    options = ["--all", "--jobs", "2", "--protocol", "nature", "--games", "1"]
    status, _, err = command("evaluate", "run", "--plugin", plugin, *options)
    assert status == 0, err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my layers", "plugin 'my layers' is not the name of a module"),
        ("surely_not_there", "there is no module surely_not_there"),
    ],
)
def test_a_plugin_that_is_none(name: str, message: str) -> None:
    status, _, err = command("train", "--game", "Catch", "--plugin", name)
    assert status == 2
    assert message in err
