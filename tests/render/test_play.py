"""Games to watch: every frame is there, what is drawn is what happened, and the command keeps its promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from small_runs import settings_for, train
from torch import Tensor

from wn_dqn.cli import main as cli
from wn_dqn.config.games import find_game
from wn_dqn.envs.catch import CatchGame
from wn_dqn.envs.factory import single_game
from wn_dqn.evaluation.protocols import PROTOCOLS, EvaluationProtocol, changed_protocol
from wn_dqn.nn.folding import fold
from wn_dqn.render import play
from wn_dqn.render.q_panel import Moment, QPanel, readable
from wn_dqn.runs.film import watch
from wn_dqn.runs.policy import load_policy
from wn_dqn.system.progress import ProgressReporter

pytestmark = pytest.mark.usefixtures("small_network")
GREEDY = EvaluationProtocol("greedy", epsilon=0.0, games=1, max_game_frames=102, max_noop_frames=0)
CPU = torch.device("cpu")
Command = Callable[..., tuple[int, str, str]]


def looks_at_the_picture(obs: Tensor) -> Tensor:
    """Q-values that differ from state to state."""
    return torch.stack([obs[:, :, i::18].float().mean(dim=(1, 2, 3)) for i in range(7)], dim=1)


def test_all_frames_of_a_real_game_are_shown() -> None:
    """Four per step, in colour; the last two of a step are what the network sees of it."""
    env = single_game(find_game("Assault"), GREEDY.env_rules)
    steps = list(play.play(looks_at_the_picture, env, GREEDY, 1, seed=3))
    assert [len(step.rgb_frames) for step in steps] == [5] + 24 * [4] + [2]  # 102 frames and the opening one
    assert [step.ended for step in steps] == 25 * [False] + [True]
    shown = np.concatenate([step.rgb_frames for step in steps])
    assert np.ptp(shown, axis=-1).max() > 100  # colours
    assert sum(bool((a != b).any()) for a, b in itertools.pairwise(shown)) > 80  # no frame shown four times
    for step, after in itertools.pairwise(steps):
        gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in step.rgb_frames[-2:]]
        seen = cv2.resize(np.maximum(*gray), (84, 84), interpolation=cv2.INTER_AREA)
        assert np.abs(seen.astype(int) - after.obs[-1]).max() <= 2  # the emulator has a palette of grays of its own
    for step in steps:
        q = looks_at_the_picture(torch.from_numpy(step.obs)[None])[0]
        assert step.moment.action == int(q.argmax())
        assert not step.moment.explored
    assert env.spec.action_names == ("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert steps[0].moment.lives == 4


def test_games_are_repeated_by_their_seed_and_explored_by_chance() -> None:
    """Epsilon, no-ops and lives are the protocol's; scores are summed."""
    rules = changed_protocol(GREEDY, epsilon=0.5, max_noop_frames=30, max_game_frames=802)
    game = find_game("Assault")

    def moments(seed: int) -> list[tuple[int, bool, float]]:
        env = single_game(game, rules.env_rules)
        rewards: list[float] = []

        def step(action: int, original: Any = env.step) -> Any:
            outcome = original(action)
            rewards.append(outcome[1])
            return outcome

        env.step = step  # type: ignore[method-assign]
        steps = list(play.play(looks_at_the_picture, env, rules, 2, seed))
        shown = [step.moment.score for step in steps]
        half = len(steps) // 2
        assert shown == [*np.cumsum(rewards[:half]), *np.cumsum(rewards[half:])]
        assert sum(rewards[:half]) > max(rewards)
        return [(step.moment.action, step.moment.explored, step.moment.score) for step in steps]

    first = moments(0)
    assert first == moments(0) != moments(1)
    assert len(first) == 2 * 201
    assert 150 < sum(explored for _, explored, _ in first) < 250


def test_catch_is_shown_to_its_end() -> None:
    """The frame in which the ball lands is there, and the score says what it shows."""
    env = CatchGame()
    steps = list(play.play(lambda obs: torch.tensor([[0.0, 1.0, 0.0]]), env, GREEDY, 20, seed=0))
    ends = [step for step in steps if step.ended]
    assert len(steps) == 20 * 6
    assert [len(step.rgb_frames) for step in steps[:6]] == [13, *5 * [12]]
    for step in ends:
        bottom = step.rgb_frames[-1][-6, ::12, 0]
        assert step.moment.score == (1.0 if sorted(bottom)[-2:] == [0, 255] else -1.0)
    assert len({step.moment.score for step in ends}) == 2


def moment(q: list[float], action: int, explored: bool = False) -> Moment:
    return Moment(np.array(q, np.float32), action, explored, score=1230.0, lives=2, game=0, games=3, step=9)


def pixels(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(color, np.uint8)).all(axis=-1)


def test_bars_are_as_long_as_q_is_high() -> None:
    """Blue for the network's choice, orange for chance; the range is that of all values shown."""
    from wn_dqn.render import q_panel as panel

    drawn = QPanel("Pong", "wn", ("NOOP", "FIRE", "UP")).draw(moment([0.0, 1.0, 0.5], 1))
    bars = pixels(drawn, panel._BAR).sum(axis=1), pixels(drawn, panel._CHOSEN)[:, 138:247].sum(axis=1)
    assert drawn.shape == (420, 320, 3)
    assert (bars[0].max(), bars[1][:300].max()) == (55, 109)  # of 108 pixels, both ends drawn
    assert not pixels(drawn, panel._RANDOM).any()
    drawn = QPanel("Pong", "wn", ("NOOP", "FIRE", "UP")).draw(moment([0.0, 1.0, 0.5], 2, explored=True))
    assert pixels(drawn, panel._RANDOM)[:, 138:247].sum(axis=1).max() == 55


@pytest.mark.parametrize("actions", [3, 18])
def test_everything_fits_on_the_panel(actions: int) -> None:
    """The margins stay empty; a history comes where there is room."""
    names = ("NOOP", "RIGHT", "UPRIGHTFIRE", *("DOWNRIGHTFIRE" for _ in range(15)))[:actions]
    drawn = QPanel("NameThisGame", "standard, step 50,000,000, epsilon 0.05", names).draw(
        moment(np.linspace(-1234, 99, actions).tolist(), 2)
    )
    for margin in (drawn[:8], drawn[-8:], drawn[:, :8], drawn[:, -8:]):
        assert (margin == drawn[0, 0]).all()
    assert [readable(name) for name in ("NOOP", "UPRIGHTFIRE", "LEFT")] == ["noop", "up right fire", "left"]


def test_saliency_glows_on_the_screen() -> None:
    step = next(play.play(lambda obs: torch.tensor([[0.0, 1.0, 0.0]]), CatchGame(), GREEDY, 1, seed=0))
    panel_ = QPanel("Catch", "", ("LEFT", "STAY", "RIGHT"))
    plain = next(play.Painter(panel_).paint(step))
    assert plain.shape == (420, 740, 3)
    np.testing.assert_array_equal(plain[::60, :420:60], step.rgb_frames[0][::12, ::12])
    glowing = next(play.Painter(panel_, lambda x: x[:, 3, :3, 40], "gradient").paint(step))
    guided = next(play.Painter(panel_, lambda x: x[:, 3, :3, 40], "guided").paint(step))
    at = (slice(0, 20), slice(195, 210))
    assert (glowing[at] <= plain[at]).all()  # black, so it has no share in Q: only darker
    assert guided[5:10, 200:205].mean() > 60 > plain[at].mean()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("play") / "run"
    assert train(settings_for(), folder) == 0
    return folder


def test_watching_a_run(run: Path) -> None:
    """The stream has the frames of all games; saliency comes from the folded network."""
    policy = load_policy(run, "last", CPU)
    frames = list(watch(policy, PROTOCOLS["nature"], 2, 0, "guided", ProgressReporter()))
    assert len(frames) == 2 * (1 + 6 * 12)
    assert {frame.shape for frame in frames} == {(420, 740, 3)}
    plain = fold(policy.agent.online)
    env = single_game(find_game("Catch"), GREEDY.env_rules)
    for step in play.play(policy.agent.q_values, env, GREEDY, 2, 0):
        torch.testing.assert_close(plain(torch.from_numpy(step.obs)[None])[0], torch.from_numpy(step.moment.q))


class TestCommand:
    """``wn-dqn play``."""

    @staticmethod
    def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["wn-dqn", "play", *args, "--device", "cpu"])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, *capsys.readouterr()

    @pytest.fixture
    def command(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        return lambda *args: self.call(capsys, monkeypatch, *args)

    def test_a_video(self, run: Path, tmp_path: Path, command: Command) -> None:
        path = tmp_path / "game.webm"
        status, out, err = command(str(run), "-o", str(path), "--episodes", "2", "--epsilon", "0")
        assert (status, out) == (0, f"{path}: 146 frames, 2.4 seconds; in a browser: {path.as_uri()}\n")
        assert "game 2: score" in err
        status, out, _ = command(str(run), "-o", str(path), "--max-frames", "30")
        assert (status, out) == (0, f"{path}: 30 frames, 0.5 seconds; in a browser: {path.as_uri()}\n")

    def test_a_window(self, run: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        """Frames are shown until q is pressed; where there is no window, one line says what to do."""
        args = (str(run), "--show")
        status, _, err = command(*args)
        assert (status, err.count("\n")) == (2, 1)
        assert "no display here; leave out --show" in err
        monkeypatch.setenv("DISPLAY", ":7")
        monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:      NONE\n")
        status, _, err = command(*args)
        assert (status, err.count("\n")) == (2, 1)
        assert "pip uninstall opencv-python-headless && pip install opencv-python" in err
        monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:      QT5\n")
        shown: list[np.ndarray] = []
        monkeypatch.setattr(cv2, "imshow", lambda _title, frame: shown.append(frame))
        monkeypatch.setattr(cv2, "waitKey", lambda _ms: ord("q") if len(shown) == 20 else -1)
        assert command(*args)[0] == 0
        assert len(shown) == 20

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["{run}"], "give a file to write, like -o game.webm, or --show"),
            (["{run}", "-o", "game.avi"], "game.avi is not a known video format"),
            (["{run}", "-o", "game.webm", "--protocol", "natur"], "unknown protocol 'natur'; did you mean nature?"),
            (["{run}", "-o", "game.webm", "--time-limit", "soon"], "'soon' is not a duration"),
            (["nothing", "-o", "game.webm"], "nothing is not a run directory"),
        ],
    )
    def test_mistakes(self, run: Path, command: Command, args: list[str], message: str, tmp_path: Path) -> None:
        status, out, err = command(*(arg.format(run=run) for arg in args))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
