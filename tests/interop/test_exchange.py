"""Networks that go to other programs, and come from them: the same Q-values there and here."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import CPU, OBS_SHAPE, RAINBOW, assert_same, outcome, settings_for, train
from stacked import Stacked
from torch import Tensor, nn

from wn_dqn.cli import main as cli
from wn_dqn.config.files import dump_yaml, merge
from wn_dqn.envs.atari import AtariEnv
from wn_dqn.envs.rules import EnvRules
from wn_dqn.errors import UsageError
from wn_dqn.interop import import_run
from wn_dqn.interop.export import onnx_model
from wn_dqn.interop.import_weights import assign, read_weights
from wn_dqn.interop.load_export import load_exported
from wn_dqn.nn.layers import LayerKit, layer_kit
from wn_dqn.nn.networks import DuelingMlpNetwork, MlpNetwork, NatureNetwork, QNetwork
from wn_dqn.nn.standard import PLAIN
from wn_dqn.runs.policy import load_policy
from wn_dqn.runs.run_directory import RunDirectory

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``wn-dqn``, in this process: exit status, standard output, standard error."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["wn-dqn", *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, *capsys.readouterr()

    return call


@functools.cache
def observations() -> Tensor:
    """1,000 of Breakout under random play, uint8 [1000, 4, 84, 84]."""
    env, rng = Stacked(AtariEnv("breakout", 8, EnvRules())), np.random.default_rng(0)
    obs = [env.reset(np.arange(8))]
    while len(obs) < 125:
        env.send(rng.integers(4, size=8))
        obs.append(env.receive().obs)
    return torch.from_numpy(np.concatenate(obs))


@functools.cache
def sb3() -> Any:
    """A DQN of Stable-Baselines3 on observations like ours; its Q-values are spread so that every action is chosen."""
    import gymnasium
    from stable_baselines3 import DQN

    class Nothing(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
        action_space = gymnasium.spaces.Discrete(4)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            return np.zeros((4, 84, 84), np.uint8), {}

        def step(self, action: Any) -> Any:
            raise AssertionError("nobody plays here")

    model = DQN("CnnPolicy", Nothing(), buffer_size=1, seed=1, device="cpu")
    output = model.q_net.q_net[0]
    with torch.no_grad():
        std, mean = torch.std_mean(model.q_net(observations()[::10]), dim=0)
        output.weight.div_(std[:, None])
        output.bias.sub_(mean).div_(std)
    return model


def sb3_q_values(obs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([sb3().q_net(chunk) for chunk in torch.split(obs, 200)])


class CleanRL(nn.Module):
    """As CleanRL's dqn_atari.py has it."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, num_actions)),
        )

    def forward(self, x: Tensor) -> Tensor:
        q: Tensor = self.network(x / 255.0)
        return q


class Distribution(QNetwork):
    """Q-values as means of distributions over five returns, out of one convolution."""

    def build(self, layers: LayerKit) -> None:
        channels, height, width = self.obs_shape
        self.cells = layers.conv2d(channels, 2, 8, stride=8)
        self.output = layers.linear(2 * (height // 8) * (width // 8), 5 * self.num_actions)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.cells(x)).flatten(1)

    def head(self, features: Tensor) -> Tensor:
        probabilities = self.output(features).unflatten(1, (self.num_actions, 5)).softmax(dim=2)
        return (probabilities * torch.arange(5.0)).sum(dim=2)


class Undecided(MlpNetwork):
    """What it computes depends on the values that it computes."""

    def head(self, features: Tensor) -> Tensor:
        q = super().head(features)
        return q if q.mean() > 0 else -q


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of Breakout that begin with SB3's network, by parameterization."""
    folder = tmp_path_factory.mktemp("imported")
    sb3().save(folder / "model.zip")
    network = read_weights(folder / "model.zip")
    runs = {}
    for param in ("wn", "standard"):
        runs[param] = folder / param
        settings = import_run.settings_for_network({"game": "breakout", "param": param}, network)
        import_run.import_run(settings, runs[param], network, CPU)
    return runs


class TestImport:
    """``wn-dqn import``."""

    @pytest.mark.parametrize("param", ["wn", "standard"])
    def test_stable_baselines3(self, imported: dict[str, Path], param: str) -> None:
        """Its own Q-values, of real frames; the target network is the same one."""
        agent = load_policy(imported[param], "best", CPU).agent
        expected = sb3_q_values(observations())
        q = torch.cat([agent.q_values(chunk) for chunk in torch.split(observations(), 200)])
        torch.testing.assert_close(q, expected, rtol=0, atol=1e-4)
        assert len(expected.argmax(dim=1).unique()) > 1
        with torch.no_grad():
            torch.testing.assert_close(agent.target(observations()[:8]), expected[:8], rtol=0, atol=1e-4)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".cleanrl_model"])
    def test_cleanrl(self, tmp_path: Path, suffix: str) -> None:
        torch.manual_seed(0)
        theirs, path = CleanRL(6), tmp_path / f"dqn{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(theirs.state_dict(), path)
        ours = read_weights(path)
        obs = observations()[::50]
        with torch.no_grad():
            torch.testing.assert_close(ours(obs), theirs(obs), rtol=1e-5, atol=1e-6)

    def test_the_network_alone(self, tmp_path: Path) -> None:
        """``model.q_net.state_dict()`` of Stable-Baselines3."""
        torch.save(sb3().q_net.state_dict(), tmp_path / "q_net.pth")
        with torch.no_grad():
            q = read_weights(tmp_path / "q_net.pth")(observations()[:8])
        torch.testing.assert_close(q, sb3_q_values(observations()[:8]), rtol=1e-5, atol=1e-6)

    def test_weight_normalization_takes_the_weight_as_direction(self) -> None:
        """g = ||w||, v = w; a unit that is off stays off, and no NaN comes of it."""
        torch.manual_seed(0)
        plain = NatureNetwork(layer_kit("standard"), OBS_SHAPE, 3)
        for parameter in plain.parameters():
            nn.init.normal_(parameter)
        with torch.no_grad():
            plain.conv2.weight[5] = 0.0  # type: ignore[index,union-attr]
        network: Any = NatureNetwork(layer_kit("wn"), OBS_SHAPE, 3)
        assign(network, plain)
        weight: Any = plain.hidden.weight
        assert torch.equal(network.hidden.v, weight)
        torch.testing.assert_close(network.hidden.g, weight.square().sum(dim=1).sqrt())
        assert torch.equal(network.output.bias, plain.output.bias)
        assert not network.conv2.weight[5].any()
        obs = observations()[:4]
        torch.testing.assert_close(network(obs), plain(obs), rtol=1e-4, atol=1e-3)

    @pytest.mark.parametrize("param", ["wn", "standard"])
    def test_training_goes_on_from_it(self, tmp_path: Path, param: str) -> None:
        """The network is tested at step 0 and never initialized again; stopped and resumed, the bits are the same."""
        torch.manual_seed(0)
        torch.save(CleanRL(3).state_dict(), tmp_path / "catch.pt")
        network = read_weights(tmp_path / "catch.pt")
        settings = settings_for(param=param)
        for name in ("run", "stopped"):
            import_run.import_run(settings, tmp_path / name, network, CPU)
        warm_up = settings_for(param=param, learning={"total_steps": 56})
        assert train(warm_up, tmp_path / "stopped") == 0
        before = load_policy(tmp_path / "stopped", "last", CPU).agent.online.state_dict()
        assert_same(before, load_policy(tmp_path / "stopped", "0", CPU).agent.online.state_dict())
        assert train(settings, tmp_path / "run") == 0
        whole = outcome(tmp_path / "run")
        assert [row["steps"] for row in whole["tables"]["evaluations.csv"]] == ["0", "120", "240", "320"]
        assert whole["tables"]["evaluations.csv"][1]["held_out_max_q"] != ""
        trained = load_policy(tmp_path / "run", "last", CPU).agent.online
        obs = observations()[::100]
        with torch.no_grad():
            change = (trained(obs) - network(obs)).abs().mean() / network(obs).abs().mean()
        assert 0 < change < 3  # 64 small updates; data-dependent initialization would make Q of order 1
        assert network(obs).abs().max() < 0.2

    def test_the_command(self, tmp_path: Path, command: Command) -> None:
        """What it says to go on with is what goes on."""
        torch.manual_seed(0)
        torch.save(CleanRL(3).state_dict(), tmp_path / "catch.pt")
        config = tmp_path / "small.yaml"
        config.write_text(dump_yaml(settings_for().model_dump()))
        run = tmp_path / "run"
        status, out, err = command("import", tmp_path / "catch.pt", "-o", run, "--config", config)
        assert (status, err) == (0, "")
        assert out.splitlines()[0] == str(run / "checkpoints" / "step-0000000000")
        goes_on = out.splitlines()[1].removeprefix("To go on: wn-dqn ").split()
        assert command("evaluate", run, "--protocol", "nature", "--games", 2, "--device", "cpu")[0] == 0
        assert command(*goes_on, "--steps", 32, "--device", "cpu")[0] == 0
        assert RunDirectory(run).read_status()["steps"] == 32
        status, _, err = command("import", tmp_path / "catch.pt", "-o", run, "--config", config)
        assert (status, err) == (2, f"wn-dqn: {run} holds a run already; choose another --output\n")

    def test_all_18_actions_are_taken_where_the_network_has_them(self) -> None:
        def full(game: str, outputs: int) -> bool:
            network = NatureNetwork(layer_kit("standard"), OBS_SHAPE, outputs)
            return import_run.settings_for_network({"game": game}, network).environment.full_action_set

        assert [full("Breakout", 4), full("Breakout", 18), full("Seaquest", 18)] == [False, True, False]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.pt", {"network.0.weight": torch.zeros(32, 4, 8, 8)}, "looks like CleanRL, but has no network.0.bias"),
            ("a.pt", {"conv.weight": torch.zeros(1)}, "contains no known Q-network"),
            ("a.pt", [1, 2], "holds no state_dict"),
            ("a.pt", nn.ReLU(), "holds more than tensors, and that is never loaded"),
            ("a.safetensors", b"nonsense", "a.safetensors is damaged"),
            ("a.zip", b"nonsense", "a.zip is damaged: File is not a zip file"),
            ("a.pth", b"", "a.pth is damaged"),
            ("a.h5", b"", "a.h5 is not a supported kind of file; valid: .safetensors, .pt"),
            ("a.pt", None, "a.pt: No such file or directory"),
            ("shape.pt", "hidden", "network.7.weight has shape [512, 3135]; the Nature network has [512, 3136]"),
            ("nan.pt", "nan", "network.9.bias holds what is no finite number"),
            ("outputs.pt", "outputs", "the network has 5 outputs, but Catch has 3 actions"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, command: Command, name: str, content: Any, message: str) -> None:
        """One line, and no run."""
        path = tmp_path / name
        if isinstance(content, str):
            state = CleanRL(5 if content == "outputs" else 3).state_dict()
            if content == "hidden":
                state["network.7.weight"] = state["network.7.weight"][:, 1:].clone()
            if content == "nan":
                state["network.9.bias"][1] = torch.nan
            torch.save(state, path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        status, out, err = command("import", path, "-o", tmp_path / "run", "--game", "catch")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
        assert not (tmp_path / "run").exists()

    def test_nothing_in_a_file_is_run(self, tmp_path: Path, command: Command) -> None:
        """A pickle that would make a folder, alone and in a zip."""

        class Harm:
            def __reduce__(self) -> Any:
                return Path.mkdir, (tmp_path / "harm",)

        (tmp_path / "a.pt").write_bytes(pickle.dumps({"network.0.weight": Harm()}, protocol=2))
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(tmp_path / "a.pt", "policy.pth")
        for name in ("a.pt", "a.zip"):
            status, _, err = command("import", tmp_path / name, "-o", tmp_path / "run", "--game", "catch")
            assert (status, err.count("\n")) == (2, 1)
            assert "never loaded" in err
        assert not (tmp_path / "harm").exists()


class TestExport:
    """``wn-dqn export``."""

    @pytest.mark.parametrize("param", ["wn", "standard"])
    def test_onnxruntime_plays_the_same(
        self, imported: dict[str, Path], param: str, tmp_path: Path, command: Command
    ) -> None:
        """On 1,000 real observations: equal greedy actions, Q within 1e-4; any batch size."""
        path = tmp_path / "network.onnx"
        status, _, err = command("export", imported[param], "-o", path)
        assert (status, err) == (0, "")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        ((name, type_, shape),) = [(node.name, node.type, node.shape) for node in session.get_inputs()]
        assert (name, type_, shape) == ("obs", "tensor(uint8)", ["batch", 4, 84, 84])
        assert [(node.name, node.type, node.shape) for node in session.get_outputs()] == [
            ("q", "tensor(float)", ["batch", 4])
        ]
        agent = load_policy(imported[param], "best", CPU).agent
        ours = torch.cat([agent.q_values(chunk) for chunk in torch.split(observations(), 200)]).numpy()
        theirs = np.concatenate([session.run(None, {"obs": x.numpy()})[0] for x in torch.split(observations(), 384)])
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
        best_two = np.sort(ours, axis=1)[:, -2:]
        clear = best_two[:, 1] - best_two[:, 0] > 1e-6  # ties are decided by rounding
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(theirs.argmax(axis=1)[clear], ours.argmax(axis=1)[clear])
        assert len(np.unique(ours.argmax(axis=1))) > 1
        (alone,) = session.run(None, {"obs": observations()[:1].numpy()})
        np.testing.assert_allclose(alone, ours[:1], rtol=0, atol=1e-4)

    def test_onnx_is_the_same_to_the_byte_and_tells_nothing_of_the_machine(self) -> None:
        torch.manual_seed(0)
        network = NatureNetwork(PLAIN, OBS_SHAPE, 3)
        first = onnx_model(network)
        assert onnx_model(network) == first
        for word in (str(Path(__file__).parents[1]), "networks.py", "site-packages"):
            assert word.encode() not in first

    @pytest.mark.parametrize(
        ("kind", "obs_shape", "dtype"),
        [
            (Distribution, (4, 24, 24), torch.uint8),
            (MlpNetwork, (6,), torch.float32),
            (DuelingMlpNetwork, (6,), torch.bool),
        ],
    )
    def test_any_network_is_exported(
        self, kind: type[QNetwork], obs_shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        """Of vectors and of other images, with a head that the exporter was never told of."""
        torch.manual_seed(0)
        network = kind(PLAIN, obs_shape, 3, obs_dtype=dtype)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
        obs = torch.randint(0, 2 if dtype == torch.bool else 256, (7, *obs_shape)).to(dtype)
        session = onnxruntime.InferenceSession(onnx_model(network), providers=["CPUExecutionProvider"])
        (q,) = session.run(None, {"obs": obs.numpy()})
        with torch.no_grad():
            expected = network(obs)
        assert (expected.std(dim=0) > 0.01).all()  # it is no constant
        np.testing.assert_allclose(q, expected.numpy(), rtol=1e-4, atol=1e-4)

    def test_a_network_that_torch_cannot_export_is_one_line(self) -> None:
        with pytest.raises(UsageError, match=r"this network has no ONNX form .*; use --format safetensors") as caught:
            onnx_model(Undecided(PLAIN, (6,), 3, obs_dtype=torch.float32))
        assert "\n" not in str(caught.value)

    def test_the_contract(self, imported: dict[str, Path], tmp_path: Path, command: Command) -> None:
        """It says what it is about, with the games that were played, and the file that it belongs to."""
        path = tmp_path / "network.safetensors"
        args = (
            "--protocol",
            "nature",
            "--games",
            1,
            "--time-limit",
            "1s",
            "--num-envs",
            1,
            "--device",
            "cpu",
            "--json",
        )
        status, out, _ = command("evaluate", imported["wn"], *args)
        assert status == 0
        assert command("export", imported["wn"], "-o", path)[0] == 0
        contract = json.loads((tmp_path / "network.safetensors.json").read_text())
        assert contract["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (contract["game"], contract["actions"]) == ("Breakout", ["NOOP", "FIRE", "RIGHT", "LEFT"])
        assert (contract["input"]["dtype"], contract["input"]["shape"]) == ("uint8", ["batch", 4, 84, 84])
        assert contract["output"]["shape"] == ["batch", 4]
        assert [score["returns"] for score in contract["scores"]] == [json.loads(out)["scores"]]
        assert contract["training_score"] is None
        manifest = imported["wn"] / "checkpoints" / contract["checkpoint"]["name"] / "manifest.json"
        assert contract["checkpoint"]["manifest_sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()

    def test_safetensors_are_plain_and_come_back(
        self, imported: dict[str, Path], tmp_path: Path, command: Command
    ) -> None:
        """Torch's names and SB3's weights; `wn-dqn import` reads them, too."""
        path = tmp_path / "network.safetensors"
        assert command("export", imported["wn"], "-o", path)[0] == 0
        state = load_file(path)
        layers = ("conv1", "conv2", "conv3", "hidden", "output")
        assert set(state) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
        torch.testing.assert_close(state["output.weight"], sb3().q_net.q_net[0].weight.detach(), rtol=1e-6, atol=1e-7)
        assert_same(dict(read_weights(path).state_dict()), state)

    def test_mistakes(
        self, imported: dict[str, Path], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = imported["wn"]
        for args, message in (
            ([run, "-o", tmp_path / "network.h5"], "ends in neither .onnx nor .safetensors: give --format"),
            ([run, "-o", tmp_path / "no" / "network.onnx"], "cannot write"),
            ([tmp_path, "-o", tmp_path / "network.onnx"], "is not a run directory"),
        ):
            status, out, err = command("export", *args)
            assert (status, out, err.count("\n")) == (2, "", 1)
            assert message in err
        find_spec = importlib.util.find_spec
        for missing in ("onnx", "onnxscript"):
            monkeypatch.setattr(
                importlib.util,
                "find_spec",
                lambda name, *rest, missing=missing: None if name == missing else find_spec(name, *rest),
            )
            status, _, err = command("export", run, "-o", tmp_path / "network.onnx")
            assert (status, err.count("\n")) == (2, 1)
            assert f"{missing} package: pip install 'wn-dqn[onnx]', or use --format safetensors" in err
        assert list(tmp_path.iterdir()) == []


def test_rainbow_goes_out_and_not_in(tmp_path: Path, command: Command) -> None:
    """A run of it is trained, played, exported and run by onnxruntime, without noise; only plain networks are imported.

    What goes out are the means of its distributions.
    """
    changed = merge([RAINBOW, {"learning": {"total_steps": 120}}])
    settings, run = settings_for(**changed), tmp_path / "run"
    assert train(settings, run) == 0
    assert command("evaluate", run, "--protocol", "nature", "--games", 2, "--device", "cpu")[0] == 0
    card = (run / "model_card.md").read_text()
    assert "and dueling heads (Wang et al., 2016)" in card
    assert "distributions on 51 returns from -10 to 10. Its head has noisy layers (Fortunato et al., 2018)" in card
    onnx, tensors = tmp_path / "network.onnx", tmp_path / "network.safetensors"
    for path in (onnx, tensors):
        assert command("export", run, "-o", path)[0] == 0
        contract = json.loads(path.with_name(path.name + ".json").read_text())
        assert contract["dueling"] == "logits = value + advantage - mean(advantage)"
        assert contract["distribution"] == {"atoms": 51, "v_min": -10, "v_max": 10, "q": "mean of softmax(logits)"}
    obs = observations()[:200]
    q = load_policy(run, "best", CPU).agent.q_values(obs).numpy()
    (theirs,) = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]).run(None, {"obs": obs.numpy()})
    np.testing.assert_allclose(theirs, q, rtol=0, atol=1e-4)
    np.testing.assert_allclose(load_exported(tensors, CPU).agent.q_values(obs), q, rtol=0, atol=1e-4)
    assert {"value.weight", "advantage.weight"} <= load_file(tensors).keys()
    assert not any("sigma" in name for name in load_file(tensors))
    torch.save(CleanRL(3).state_dict(), tmp_path / "catch.pt")
    for args, message in (
        ([tensors], f"{tensors} holds a network with dueling heads; only plain Nature networks are imported"),
        (
            [tmp_path / "catch.pt", "--set", "network.dueling=true"],
            "a network is imported without dueling heads: set network.dueling=false",
        ),
        (
            [tmp_path / "catch.pt", "--set", "agent=c51"],
            "a network is imported with Q-values, not for c51: set agent=dqn",
        ),
    ):
        status, out, err = command("import", *args, "-o", tmp_path / "imported", "--game", "catch")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
        assert not (tmp_path / "imported").exists()


def test_what_a_run_needs_to_be_imported() -> None:
    """The game; a parameterization that a plain network can be put into."""
    network = NatureNetwork(layer_kit("standard"), OBS_SHAPE, 3)
    with pytest.raises(UsageError, match="setting 'game' is missing"):
        import_run.settings_for_network({}, network)
    with pytest.raises(UsageError, match=re.escape("unknown game 'Pomg'; did you mean Pong")):
        import_run.settings_for_network({"game": "Pomg"}, network)
