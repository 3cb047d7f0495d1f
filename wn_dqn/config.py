"""Settings: typed, frozen, complete. The defaults are the paper's protocol; a config file holds differences only.

Counts carry their unit in their name: `_steps` are agent steps (4 frames each, summed over all environments),
`_frames` are emulator frames, `_updates` are gradient steps.
"""

from __future__ import annotations

import importlib.resources
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wn_dqn.errors import UsageError, closest

Param = Literal["standard", "wn", "wn-exp", "mean-only-bn", "wn-mean-only-bn", "bn"]
AgentName = Literal["dqn", "double-dqn"]
OptimizerName = Literal["adamax", "adamax-salimans", "rmsprop-nature", "adam", "sgd"]
Precision = Literal["float32", "tf32", "bf16"]
Count = Annotated[int, Field(gt=0, le=10**12)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]

BATCH_STATISTICS_PARAMS: tuple[Param, ...] = ("mean-only-bn", "wn-mean-only-bn", "bn")
"""Those whose training output depends on the whole minibatch."""

# Adamax with standard and wn: Salimans & Kingma 2016, section 5.4. The rest is our choice: 3e-4 where the scale of v
# or w is of no account to the function, as with wn; 1e-4 where it is.
_ADAMAX_LEARNING_RATES: dict[Param, float] = {
    "standard": 1e-4,
    "wn": 3e-4,
    "wn-exp": 3e-4,
    "mean-only-bn": 1e-4,
    "wn-mean-only-bn": 3e-4,
    "bn": 3e-4,
}
LEARNING_RATES: dict[OptimizerName, dict[Param, float]] = {
    "adamax": _ADAMAX_LEARNING_RATES,
    "adamax-salimans": _ADAMAX_LEARNING_RATES,
    "adam": _ADAMAX_LEARNING_RATES,  # our choice
    "rmsprop-nature": dict.fromkeys(get_args(Param), 2.5e-4),  # Mnih et al. 2015, extended data table 1
    "sgd": dict.fromkeys(get_args(Param), 1e-2),  # our choice
}
EPSILONS: dict[OptimizerName, float] = {
    "adamax": 1e-8,
    "adamax-salimans": 1e-6,  # the paper's reference code
    "rmsprop-nature": 0.01,
    "adam": 1e-8,
    "sgd": 1e-8,  # has none
}
BETA1S: dict[OptimizerName, float] = dict.fromkeys(get_args(OptimizerName), 0.5) | {"adam": 0.9}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class EnvironmentSettings(_Section):
    """How the games are played in training."""

    num_envs: int = Field(
        8, gt=0, le=1024, description="games played in lockstep; part of the experiment: it changes results"
    )
    repeat_action_probability: Probability = Field(0.0, description="sticky actions; 0 as in the paper")
    full_action_set: bool = Field(False, description="all 18 actions instead of the game's minimal set")
    max_noop_frames: int = Field(30, ge=0, le=1000, description="no-op frames at a game's start: uniform on 0..this")
    max_game_frames: Count | None = Field(
        None, description="cut a game after so many frames; null: never, as in the paper"
    )
    terminal_on_life_loss: bool = Field(True, description="a lost life ends the episode for the learner, not the game")


class ReplaySettings(_Section):
    """The replay buffer, and prioritized replay (Schaul et al. 2016, the proportional variant)."""

    capacity: Count = Field(1_000_000, description="transitions kept; each takes 7 KB of memory")
    priority_exponent: Probability = Field(
        0.0,
        description=(
            "alpha: a transition is drawn in proportion to (|TD error| + priority_epsilon)^alpha. 0: uniformly, as in "
            "DQN, and the next three are of no account; the paper of prioritized replay has 0.6 and a quarter of the "
            "learning rate"
        ),
    )
    priority_epsilon: float = Field(
        1e-6, gt=0, le=1, description="added to |TD error|: what has no error left is still drawn (our choice)"
    )
    importance_exponent: Probability = Field(
        0.4,
        description=(
            "beta when learning starts: a drawn transition counts (N P(i))^-beta, relative to the largest of its "
            "minibatch; then beta goes to 1 on a straight line"
        ),
    )
    importance_anneal_steps: Count = Field(
        50_000_000,
        description="steps from the start of learning until beta is 1; set it to the length of a shorter run",
    )


class NetworkSettings(_Section):
    """The network's head, and its initialization (section 3 of the paper)."""

    dueling: bool = Field(
        False,
        description="dueling heads (Wang et al. 2016): a state's value and its actions' advantages, apart, add up to Q",
    )
    init: Literal["data", "torch", "nature"] = Field(
        "data",
        description=(
            "data: from a batch, section 3; torch: uniform on +-1/sqrt(fan-in), torch's default and Mnih's; nature: "
            "uniform on +-sqrt(3/fan-in), biases 0.1, the Nature network of deep_q_rl"
        ),
    )
    init_batch_size: int = Field(
        1024,
        ge=2,
        description="transitions in the batch of the data-dependent initialization, and of the first running "
        "statistics (our choice)",
    )
    output_init_scale: float = Field(
        1.0, gt=0, description="scale of the Q-values after initialization; 1 is the paper's reading"
    )


class LearningSettings(_Section):
    """The DQN loop (Mnih et al. 2015, extended data table 1; minibatch of 64 from Salimans & Kingma 2016)."""

    total_steps: Count = Field(50_000_000, description="agent steps of training: 200 epochs of 250,000")
    start_steps: Count = Field(50_000, description="steps of random play before learning starts")
    update_period_steps: Count = Field(4, description="one update per so many transitions, whatever num_envs is")
    batch_size: Count = Field(64, description="transitions per update")
    discount: float = Field(0.99, ge=0, le=1, description="gamma")
    n_steps: int = Field(
        1, ge=1, le=1000, description="rewards summed, discounted, before the target network's estimate; 1 as in DQN"
    )
    target_period_steps: Count = Field(
        10_000, description="copy the network to the target network every so many steps of learning"
    )
    loss: Literal["huber", "mse"] = Field(
        "huber",
        description="huber: the TD error is clipped at 1; mse: half its square, not clipped: large errors, large steps",
    )
    loss_reduction: Literal["mean", "sum"] = Field(
        "mean", description="over the batch; Adamax is blind to the difference but for its epsilon"
    )
    precision: Precision = Field(
        "float32",
        description=(
            "of matrix products and convolutions: tf32 (GPU) and bf16 round what they multiply; parameters stay float32"
        ),
    )
    deterministic: bool = Field(
        False, description="on a GPU, only kernels that repeat to the bit: slower; a CPU always repeats itself"
    )


class ExplorationSettings(_Section):
    """Epsilon-greedy exploration: epsilon falls on a straight line from `initial` to `final` once learning starts."""

    initial: Probability = Field(1.0, description="epsilon until learning starts")
    final: Probability = Field(0.1, description="epsilon in the end")
    decay_steps: Count = Field(1_000_000, description="steps from the start of learning until epsilon is final")


class OptimizerSettings(_Section):
    """The optimizer."""

    name: OptimizerName = Field(
        "adamax",
        description=(
            "adamax (torch's), adamax-salimans (the paper's reference code: no bias correction), rmsprop-nature "
            "(centred, epsilon inside the root), adam, or sgd (plain)"
        ),
    )
    learning_rate: float = Field(
        gt=0,
        description=(
            "null: for adamax what the paper found, 3e-4 for wn and 1e-4 for standard; adamax-salimans and adam the "
            "same, wn-exp, wn-mean-only-bn and bn like wn, mean-only-bn like standard (our choice); 2.5e-4 for "
            "rmsprop-nature (Mnih's); 1e-2 for sgd (our choice)"
        ),
    )
    beta1: float = Field(ge=0, lt=1, description="adamax, adam: momentum; null: 0.5, the paper's; 0.9 for adam")
    beta2: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="adamax, adam: decay of the infinity norm, of the squares (the paper does not state it)",
    )
    rho: float = Field(0.95, ge=0, lt=1, description="rmsprop-nature: decay of both moving averages")
    epsilon: float = Field(
        gt=0, description="null: 1e-8 for adamax and adam, 1e-6 for adamax-salimans, 0.01 for rmsprop-nature"
    )


class EvaluationSettings(_Section):
    """The evaluation after each epoch: the `paper` protocol, by default as long as the paper's."""

    epoch_steps: Count = Field(
        250_000, description="training steps per epoch; an evaluation and a checkpoint follow each"
    )
    steps: Count = Field(125_000, description="test steps per evaluation; games completed within them count")
    epsilon: Probability = Field(0.05, description="epsilon of the test policy")
    num_envs: int = Field(
        16, gt=0, le=1024, description="games played at once; the rule that counts games is blind to it"
    )
    held_out_states: Count = Field(
        3_200, description="states drawn once when learning starts, on which mean max-Q is followed"
    )


class OutputSettings(_Section):
    """What is written, and how often. None of this changes what is learned."""

    log_period_steps: Count = Field(10_000, description="steps between rows of metrics.csv")
    checkpoint_period_steps: Count = Field(
        250_000, description="steps between checkpoints; each end of an epoch saves one, too"
    )
    keep_checkpoints: Count = Field(2, description="newest checkpoints kept, beside the best")
    save_replay: bool = Field(
        True, description="save the replay; without it a resumed run starts with an empty one and is not exact"
    )
    video_period_epochs: int = Field(
        0, ge=0, description="epochs between clips in TensorBoard of ten seconds of the best network so far; 0: none"
    )


class Settings(_Section):
    """All settings of a run."""

    game: str = Field(description="name of the game")
    param: Param = Field("wn", description="parameterization of the network: " + ", ".join(get_args(Param)))
    agent: AgentName = Field(
        "dqn", description="dqn, or double-dqn: the online network chooses the next action that the target values"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="one integer that all randomness comes from")
    environment: EnvironmentSettings = EnvironmentSettings()
    replay: ReplaySettings = ReplaySettings()
    network: NetworkSettings = NetworkSettings()
    learning: LearningSettings = LearningSettings()
    exploration: ExplorationSettings = ExplorationSettings()
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    output: OutputSettings = OutputSettings()

    @model_validator(mode="before")
    @classmethod
    def _fill_what_depends_on_the_parameterization(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("optimizer", {}), dict):
            return data
        optimizer = {key: value for key, value in data.get("optimizer", {}).items() if value is not None}
        name, param = optimizer.get("name", "adamax"), data.get("param", "wn")
        if name in get_args(OptimizerName) and param in get_args(Param):
            optimizer.setdefault("learning_rate", LEARNING_RATES[name][param])
            optimizer.setdefault("beta1", BETA1S[name])
            optimizer.setdefault("epsilon", EPSILONS[name])
        else:  # the wrong name gets the error message, not what follows from it
            optimizer = {"learning_rate": 1.0, "beta1": 0.5, "epsilon": 1.0} | optimizer
        return {**data, "optimizer": optimizer}

    @model_validator(mode="after")
    def _sizes_fit_together(self) -> Settings:
        learning, capacity, num_envs = self.learning, self.replay.capacity, self.environment.num_envs
        for name, smaller, other, larger in (
            ("learning.start_steps", learning.start_steps, "replay.capacity", capacity),
            ("learning.batch_size", learning.batch_size, "learning.start_steps", learning.start_steps),
            ("network.init_batch_size", self.network.init_batch_size, "learning.start_steps", learning.start_steps),
            (
                "evaluation.held_out_states",
                self.evaluation.held_out_states,
                "learning.start_steps",
                learning.start_steps,
            ),
            ("environment.num_envs", num_envs, "learning.start_steps", learning.start_steps),
            (
                "learning.n_steps times environment.num_envs",
                learning.n_steps * num_envs,
                "learning.start_steps",
                learning.start_steps,
            ),
        ):
            if smaller > larger:
                raise ValueError(f"{name} ({smaller:,}) must not exceed {other} ({larger:,})")
        if learning.target_period_steps % learning.update_period_steps:
            raise ValueError("learning.target_period_steps must be a multiple of learning.update_period_steps")
        if learning.batch_size == 1 and self.param in BATCH_STATISTICS_PARAMS:
            raise ValueError(f"learning.batch_size must be at least 2 for {self.param}: one sample is its own mean")
        return self

    @property
    def target_period_updates(self) -> int:
        """Updates between copies to the target network: 2,500 by default."""
        return self.learning.target_period_steps // self.learning.update_period_steps


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)  # YAML 1.2: 1e-4 is a number, `no` is a word
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def parse_yaml(text: str, source: str) -> Any:
    """What a YAML 1.2 text says; UsageError, naming `source`, if it is none."""
    try:
        return _yaml().load(text)
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())  # a tag that lies raises anything
        raise UsageError(f"{source} is not valid YAML: {reason}") from None


def dump_yaml(data: Mapping[str, Any]) -> str:
    """`data` as YAML."""
    stream = io.StringIO()
    _yaml().dump(dict(data), stream)
    return stream.getvalue()


def config_folder() -> Path:
    """The folder of the named configs: inside an installed package, or at the top of the repository."""
    packaged = Path(str(importlib.resources.files("wn_dqn"))) / "configs"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[1] / "configs"


def named_configs() -> list[str]:
    """Names that ``--config`` takes beside file paths."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))


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
    """The mapping in a YAML file; UsageError, calling it `kind`, if it cannot be read or is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {kind} {path}: {error}") from None
    data = parse_yaml(text, f"{kind} {path}")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{kind} {path} must be a mapping of settings, not a {type(data).__name__}")
    return data


def parse_assignment(assignment: str) -> dict[str, Any]:
    """``section.key=value`` as a nested mapping, the value read as YAML."""
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
    """One nested mapping out of several; later layers win, key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge([merged[key], value]) if both else value
    return merged


def make_settings(data: Mapping[str, Any]) -> Settings:
    """Validated settings; UsageError with the first mistake, the key it is at, and the closest valid one."""
    try:
        return Settings.model_validate(dict(data))
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
    """The dotted keys in which two nested mappings differ, each with both values: ``key: old -> new``."""
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
    """`value` for a message of one line."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print a number of more than 4,300 digits
        return "of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
