"""Training from Python: what is trained, what callbacks hear, and what they cannot change."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import wn_dqn as command
from small_runs import SMALL, SMALL_NETWORK, assert_same, network_of, outcome, settings_for

import wn_dqn
from wn_dqn.config.files import dump_yaml, merge
from wn_dqn.runs.callback import CallbackList, Event
from wn_dqn_agents.dqn import DQN

pytestmark = pytest.mark.usefixtures("small_network")
CATCH: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "game"}


def train(folder: Path, *callbacks: wn_dqn.Callback, **settings: Any) -> wn_dqn.Run:
    options = {"device": "cpu", "progress": False, "callbacks": callbacks}
    return wn_dqn.train("Catch", run_dir=folder, **options, **merge([CATCH, settings]))


def test_the_command_and_python_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = merge([SMALL, {"learning": {"total_steps": 160}}])
    Path("small.yaml").write_text(dump_yaml(small))
    assert command("train", "--config", "small.yaml", "--seed", "3", "--device", "cpu")[0] == 0
    by_command = Path("runs/Catch-wn-seed3").rename("by_command")
    runs = [
        wn_dqn.train("small.yaml", seed=3, device="cpu", progress=False),
        wn_dqn.train(
            "Catch",
            seed=3,
            device="cpu",
            progress=False,
            run_dir="b",
            **{k: v for k, v in small.items() if k != "game"},
        ),
        wn_dqn.train(Path("small.yaml"), run_dir="c", progress=False, **{"seed": 3, "learning.discount": 0.99}),
        wn_dqn.train(
            wn_dqn.Settings(**settings_for(seed=3, learning={"total_steps": 160}).model_dump()),
            run_dir="d",
            progress=False,
        ),
    ]
    assert runs[0].directory == Path("runs/Catch-wn-seed3")
    for run in runs:
        assert (run.status, run.steps) == ("finished", 160)
        assert_same(outcome(by_command), outcome(run.directory))


@pytest.mark.parametrize(
    ("what", "settings", "message"),
    [
        ("catchh", {}, "unknown game 'catchh'; did you mean Catch"),
        ("nowhere.yaml", {}, "no config 'nowhere.yaml'"),
        ("catch", {"lerning": {"total_steps": 1}}, "unknown setting 'lerning'; did you mean learning"),
        ("catch", {"learning.total_stps": 1}, "unknown setting 'learning.total_stps'; did you mean"),
        ("catch", {"param": "wm"}, "invalid value 'wm' for param"),
        ("catch", {"callbacks": [print]}, "instances of wn_dqn.Callback; <built-in function print> is not"),
        ("catch", {"callbacks": [wn_dqn.Callback]}, "is not"),
        ("catch", {"device": "gpu"}, "unknown device 'gpu'"),
        ("catch", {"learning.start_steps": 10**9}, "must not exceed"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    what: str, settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(wn_dqn.UsageError) as error:
        wn_dqn.train(what, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_code_that_a_config_names_needs_trust(tmp_path: Path) -> None:
    config = tmp_path / "theirs.yaml"
    config.write_text("game: surely_not_there:make\n")
    with pytest.raises(wn_dqn.UsageError, match="this would run code from outside of wn-dqn, surely_not_there:make"):
        wn_dqn.train(config, run_dir=tmp_path / "run")
    for trusted in (lambda: wn_dqn.train(config, trust=True), lambda: wn_dqn.train("surely_not_there:make")):
        with pytest.raises(wn_dqn.UsageError) as error:
            trusted()
        assert "this would run" not in str(error.value)
    status, _, err = command("train", "--config", str(config), "--run-dir", str(tmp_path / "run"))
    assert (status, "add --env surely_not_there:make" in err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_just_trained_is_trusted(tmp_path: Path) -> None:
    settings = {key: value for key, value in CATCH.items() if key != "learning"}
    learning = {**SMALL["learning"], "total_steps": 120}
    run = wn_dqn.train("toy_envs:Walk", run_dir=tmp_path / "run", progress=False, learning=learning, **settings)
    assert len(run.policy().evaluate("nature", games=2).scores) == 2
    with pytest.raises(wn_dqn.UsageError, match="this would run code from outside of wn-dqn, toy_envs:Walk"):
        wn_dqn.load(tmp_path / "run")
    assert wn_dqn.load(tmp_path / "run", named=["toy_envs:Walk"]).obs_shape == (3,)


@pytest.mark.usefixtures("own_rows")
def test_a_part_that_only_this_process_has_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Mine(DQN):
        pass

    wn_dqn.register_agent("mine", Mine)
    settings = merge([CATCH, {"agent": "mine", "learning": {"total_steps": 24}}])
    run = wn_dqn.train("Catch", run_dir=tmp_path / "run", **settings)
    assert "mine is registered in this process only; others need --plugin MODULE" in capsys.readouterr().err
    assert type(run.policy("last")._network.agent) is Mine


class Diary(wn_dqn.Callback):
    """Writes down all that it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[Event, int]] = []
        self.views: dict[Event, list[wn_dqn.View]] = {}

    def note(self, event: Event, view: wn_dqn.View) -> None:
        self.events.append((event, view.steps))
        self.views.setdefault(event, []).append(view)

    def on_start(self, view: wn_dqn.View) -> None:
        self.note("on_start", view)

    def on_step(self, view: wn_dqn.View) -> None:
        self.note("on_step", view)

    def on_metrics(self, view: wn_dqn.View) -> None:
        self.note("on_metrics", view)

    def on_evaluation(self, view: wn_dqn.View) -> None:
        self.note("on_evaluation", view)

    def on_checkpoint(self, view: wn_dqn.View) -> None:
        self.note("on_checkpoint", view)

    def on_end(self, view: wn_dqn.View) -> None:
        self.note("on_end", view)

    def steps_of(self, event: Event) -> list[int]:
        return [steps for name, steps in self.events if name == event]


def test_callbacks_hear_what_happens_in_its_order(tmp_path: Path) -> None:
    diary = Diary()
    run = train(tmp_path, diary)
    assert diary.events[0] == ("on_start", 0)
    assert diary.events[-1] == ("on_end", 320)
    assert diary.steps_of("on_step") == list(range(8, 321, 8))
    assert diary.steps_of("on_metrics") == list(range(24, 321, 24)) == run.metrics["steps"].tolist()
    assert diary.steps_of("on_evaluation") == [120, 240, 320] == run.evaluations["steps"].tolist()
    assert diary.steps_of("on_checkpoint") == [104, 120, 200, 240, 304, 320]
    assert [event for event, steps in diary.events if steps == 120] == [
        "on_step",
        "on_metrics",
        "on_evaluation",
        "on_checkpoint",
    ]
    last = diary.views["on_end"][0]
    assert last.status == "finished"
    assert last.settings == run.settings
    assert (last.run_directory, last.checkpoint) == (tmp_path, run.policy("last").path)
    for table, row in ((run.metrics, last.metrics), (run.evaluations, last.evaluation)):
        newest = {name: column[-1] for name, column in table.items() if name != "steps"}
        assert newest == pytest.approx(row, nan_ok=True)
    assert last.epsilon == 0.1
    assert last.updates == run.metrics["train/updates"][-1] + 2  # the last row is of step 312
    assert diary.views["on_start"][0].metrics == {}


class Nosy(wn_dqn.Callback):
    """Changes all that it can reach."""

    def on_step(self, view: wn_dqn.View) -> None:
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        view.settings.network.hidden.append(1)
        for row in (view.metrics, view.evaluation):
            with pytest.raises(TypeError):
                row["steps"] = 0  # type: ignore[index]
        for name in ("steps", "settings", "status"):
            with pytest.raises(AttributeError):
                setattr(view, name, None)

    on_start = on_metrics = on_evaluation = on_checkpoint = on_end = on_step


@pytest.mark.survives("a callback that changes all that it can reach", "what is learned stays the same to the bit")
def test_a_callback_cannot_change_what_is_learned(trained: Path, tmp_path: Path) -> None:
    train(tmp_path / "watched", Nosy(), Diary())
    assert_same(outcome(trained), outcome(tmp_path / "watched"))


def test_no_step_is_told_to_those_who_do_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(wn_dqn.Callback):
        def on_end(self, view: wn_dqn.View) -> None:
            pass

    monkeypatch.delattr(wn_dqn.Callback, "on_step")
    with pytest.raises(AttributeError):  # otherwise this test would show nothing
        Deaf().on_step  # noqa: B018
    monkeypatch.undo()
    events: list[str] = []
    monkeypatch.setattr(CallbackList, "notify", lambda _self, event, _view: events.append(event))
    train(tmp_path, Deaf(), learning={"total_steps": 80})
    assert "on_step" not in events
    assert "on_metrics" in events


@pytest.mark.parametrize("event", ["on_start", "on_step", "on_metrics", "on_evaluation", "on_checkpoint"])
def test_a_run_that_a_callback_stops_is_saved_and_goes_on_to_the_same_bits(
    event: str, trained: Path, tmp_path: Path
) -> None:
    class Enough(wn_dqn.Callback):
        pass

    def stop(_self: Enough, view: wn_dqn.View) -> None:
        if view.steps >= 150 or event == "on_start":
            raise wn_dqn.StopTraining("enough")

    setattr(Enough, event, stop)
    run, diary = train(tmp_path / "stopped", Enough()), Diary()
    assert run.status == "paused"
    assert json.loads((run.directory / "status.json").read_text())["reason"] == "enough"
    stopped_at = run.steps
    assert stopped_at < 320
    train(tmp_path / "stopped", diary)
    assert diary.events[0] == ("on_start", stopped_at)
    whole, stopped = outcome(trained), outcome(tmp_path / "stopped")
    assert_same(whole["state"]["agent"], stopped["state"]["agent"])
    assert_same(whole["replay"], stopped["replay"])


@pytest.mark.survives("a callback that fails", "the run ends with one line, its checkpoints are whole, and it goes on")
def test_a_callback_that_fails_ends_the_run_and_all_hear_of_the_end(tmp_path: Path) -> None:
    class Broken(wn_dqn.Callback):
        def on_evaluation(self, view: wn_dqn.View) -> None:
            raise ZeroDivisionError("1/0")

        def on_end(self, view: wn_dqn.View) -> None:
            raise wn_dqn.StopTraining

    diary = Diary()
    with pytest.raises(wn_dqn.RunError, match=r"Broken\.on_evaluation failed: ZeroDivisionError: 1/0") as error:
        train(tmp_path, Broken(), diary)
    assert type(error.value.__cause__) is ZeroDivisionError
    assert diary.events[-1] == ("on_end", 120)
    assert diary.views["on_end"][0].status == "failed"
    assert wn_dqn.Run(tmp_path).status == "failed"
    assert train(tmp_path).status == "finished"


def test_what_fails_in_the_end_is_passed_on_once_all_is_saved(tmp_path: Path) -> None:
    class Pruned(wn_dqn.Callback):
        def on_end(self, view: wn_dqn.View) -> None:
            raise KeyError("pruned")

    diary = Diary()
    with pytest.raises(KeyError, match="pruned"):
        train(tmp_path, Pruned(), diary)
    assert diary.events[-1] == ("on_end", 320)
    assert wn_dqn.Run(tmp_path).status == "finished"


def test_runs_beside_each_other_in_threads_keep_their_bits(tmp_path: Path) -> None:
    """Other seeds and layers before, beside and after; a thread has no signals and needs none."""
    arms: dict[str, dict[str, Any]] = {"a": {"seed": 1}, "b": {"seed": 2, "param": "standard"}}
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda name: train(tmp_path / f"{name}-beside", **arms[name]), arms))
    for name, arm in arms.items():
        train(tmp_path / f"{name}-alone", **arm)
        assert_same(outcome(tmp_path / f"{name}-alone"), outcome(tmp_path / f"{name}-beside"))


def train_in_a_process(folder: Path) -> float:
    torch.set_num_threads(1)
    with network_of(SMALL_NETWORK):
        run = train(folder)
    assert run.best is not None
    return float(run.evaluations["mean_return"][-1])


def test_a_run_in_a_spawned_process_has_the_same_bits(trained: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as processes:
        processes.submit(train_in_a_process, tmp_path / "there").result()
    assert_same(outcome(trained), outcome(tmp_path / "there"))
