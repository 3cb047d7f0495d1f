"""The shared trainer: learning, exact resume, averages, and what a person sees of mistakes."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from wn_dqn.cli.main import cli
from wn_dqn.errors import STOPPED, RunError, UsageError
from wn_dqn.paper import launch
from wn_dqn.paper.data import Images, load_images
from wn_dqn.paper.launch import SYSTEMS, make_system
from wn_dqn.paper.settings import PaperSettings, make_paper_settings
from wn_dqn.paper.trainer import Trainer, average_
from wn_dqn.runs.checkpoint import CheckpointError, NewerFormatError, list_checkpoints, load_checkpoint
from wn_dqn.runs.stop_request import StopRequest
from wn_dqn.system.progress import ProgressReporter

SMALL = {"cifar10": {"width": 2}, "vae": {"width": 2, "hidden": 16, "latents": 4}, "draw": {"width": 8, "glimpses": 2}}
SMALL["vae-cifar10"] = {"width": 2, "latents": 1}
PARAMS = {"cifar10": "wn-mean-only-bn", "vae": "wn", "vae-cifar10": "wn", "draw": "wn"}


@functools.cache
def few(system: str, data: str) -> Images:
    """A few of the embedded images, read once."""
    images = load_images(system, data)
    step = 2 if system == "cifar10" else 1  # fewer pixels to whiten
    train, test = images.train[::17, :, ::step, ::step], images.test[::17, :, ::step, ::step]
    return Images(train[:120], images.train_labels[::17][:120], test, images.test_labels[::17])


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "load_images", few)


def settings_of(system: str, epochs: int = 2, **changes: object) -> PaperSettings:
    given: dict[str, object] = {**SMALL[system], "epochs": epochs, "batch_size": 40, "init_batch_size": 40, **changes}
    return make_paper_settings(system, PARAMS[system], None, **given)


def train(settings: PaperSettings, folder: Path, stop: StopRequest | None = None) -> int:
    return launch.train_paper(settings, folder, torch.device("cpu"), ProgressReporter(), stop or StopRequest())


def last_state(folder: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1].path)
    return {**state["system"], **{f"average {k}": v for k, v in state["average"].items()}}


class StopAfter(StopRequest):
    """Asks to stop once some minibatches are done."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.request("the test")
        super().check()


@pytest.mark.parametrize("system", list(SYSTEMS))
def test_a_stopped_run_ends_in_the_same_bits(system: str, tmp_path: Path) -> None:
    settings = settings_of(system)
    assert train(settings, tmp_path / "whole") == 0
    assert train(settings, tmp_path / "parts", StopAfter(1)) == STOPPED
    assert train(settings, tmp_path / "parts", StopAfter(2)) == STOPPED
    assert train(settings, tmp_path / "parts") == 0
    whole, parts = last_state(tmp_path / "whole"), last_state(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    tables = [(tmp_path / name / "evaluations.csv").read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("draw", epochs=3)
    assert train(settings, tmp_path / "whole") == 0

    class Killed(BaseException):
        pass

    once = Trainer.train_minibatch

    def killed(self: Trainer) -> None:
        if self.steps == 5:
            raise Killed
        once(self)

    monkeypatch.setattr(Trainer, "train_minibatch", killed)
    with pytest.raises(Killed):
        train(settings, tmp_path / "killed")
    monkeypatch.setattr(Trainer, "train_minibatch", once)
    assert train(settings, tmp_path / "killed") == 0
    whole, again = last_state(tmp_path / "whole"), last_state(tmp_path / "killed")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert (tmp_path / "whole/evaluations.csv").read_text() == (tmp_path / "killed/evaluations.csv").read_text()


@pytest.mark.parametrize("system", ["vae", "draw"])
def test_the_bound_rises_and_pictures_are_written(system: str, tmp_path: Path) -> None:
    settings = settings_of(system, epochs=8, learning_rate=0.01)
    train(settings, tmp_path)
    rows = list(csv.DictReader((tmp_path / "evaluations.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert float(rows[-1]["bound"]) > float(rows[0]["bound"]) + 20
    assert (tmp_path / "reconstructions.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_and_the_training_error_of_the_classifier_fall(tmp_path: Path) -> None:
    train(settings_of("cifar10", epochs=8, width=4), tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    for name in ("train/loss", "train/error_percent"):
        assert 0 < float(rows[-1][name]) < float(rows[0][name]) < 100


def test_the_classifiers_loss_and_error_by_hand() -> None:
    """Three of four labels are hit; the loss is the mean of -log softmax."""
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.5, 0.0]])
    system = make_system(settings_of("cifar10"))
    system.forward = lambda x, generator: logits  # type: ignore[method-assign]
    loss, others = system.loss(torch.zeros(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]), torch.Generator())
    by_hand = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(-2)), math.log1p(math.exp(0.5))]
    assert loss.item() == pytest.approx(sum(by_hand) / 4)
    assert others["error_percent"].item() == 25.0


def test_the_loss_is_compiled_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile returns is what is learned from, and nothing is compiled otherwise."""
    calls: list[str] = []

    def compile_(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        calls.append("compiled")
        return lambda *args: (calls.append("called"), function(*args))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    train(settings_of("draw", epochs=1), tmp_path / "plain")
    assert not calls
    train(settings_of("draw", epochs=1, compile=True), tmp_path / "compiled")
    assert calls == ["compiled", *["called"] * 3]


def test_other_settings_are_refused_and_a_finished_run_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(settings_of("draw", epochs=1), tmp_path)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"look: wn-dqn report {tmp_path}, wn-dqn plot {tmp_path} -o curves.png, tensorboard --logdir {tmp_path}"
    )
    before = last_state(tmp_path)
    assert train(settings_of("draw", epochs=1), tmp_path) == 0
    assert all(torch.equal(value, last_state(tmp_path)[name]) for name, value in before.items())
    with pytest.raises(UsageError, match="epochs: 1 -> 2"):
        train(settings_of("draw", epochs=2), tmp_path)


def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("wn_dqn.paper.trainer.save_checkpoint", full)
        with pytest.raises(RunError, match="No space left"):
            train(settings_of("draw", epochs=1), tmp_path / "run")
    assert train(settings_of("draw", epochs=1), tmp_path / "run") == 0  # nothing was saved: it begins again


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "wn_dqn.paper.draw.Draw.loss", lambda self, *_: (sum(p.sum() for p in self.parameters()) * torch.nan, {})
    )
    with pytest.raises(RunError, match="loss of minibatch 0 is nan"):
        train(settings_of("draw", epochs=1), tmp_path)


def test_the_average_against_a_naive_one() -> None:
    current, average = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    values, naive = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), 0.0
    for step, value in enumerate(values, start=1):
        with torch.no_grad():
            current.weight.copy_(value[None])
        if step == 1:
            average.load_state_dict(current.state_dict())
        average_(average, current, step, horizon=4)
        rate = 1 / min(4, 1 + step / 10)
        naive = value if step == 1 else (1 - rate) * naive + rate * value
    torch.testing.assert_close(average.weight[0].detach(), naive)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vae", "--param", "bn"], "vae has no parameterization 'bn'"),
        (["vae", "--data", "photos"], "its embedded data is mnist-5k"),
        (["draw", "--data", "nowhere"], "there is no nowhere"),
        (["cifar10", "--device", "cuda:7"], "cuda"),
    ],
)
def test_mistakes_are_one_line(args: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(cli, ["paper", *args]).exception
    assert isinstance(error, UsageError)
    assert message in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("error", [CheckpointError, NewerFormatError])
def test_checkpoints_that_cannot_be_read_stay_where_they_are(
    error: type[CheckpointError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(settings_of("draw"), tmp_path, StopAfter(4)) == STOPPED
    before = sorted((tmp_path / "checkpoints").iterdir())

    def refuse(path: Path) -> None:
        raise error(f"{path} is not for us")

    monkeypatch.setattr("wn_dqn.paper.trainer.load_checkpoint", refuse)
    with pytest.raises(RunError, match="is not for us"):
        train(settings_of("draw"), tmp_path)
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
