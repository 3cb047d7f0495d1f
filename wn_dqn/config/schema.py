"""Settings: typed, frozen, complete. The defaults are the paper's protocol; a config file contains only differences.

The names of counts include their unit: `_steps` are agent steps (4 frames each, summed over all environments),
`_frames` are emulator frames, `_updates` are gradient steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wn_dqn.config.registry import AGENTS, DEFAULT_PARAMETERIZATION, NETWORKS, OPTIMIZERS, PARAMETERIZATIONS
from wn_dqn.errors import closest

Precision = Literal["float32", "tf32", "bf16"]
DEFAULT_ATOMS = 51  # Bellemare et al. 2017, figure 3: the largest number they tried, and the best


def _whole(value: object) -> object:
    """1000000 for 1e6, which YAML reads as a float. 1.5 is returned unchanged, and refused later."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A count, which may be written 1e6."""
Count = Annotated[Whole, Field(gt=0, le=10**12)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def _name_in(rows: Mapping[str, object], *besides: str) -> AfterValidator:
    """A validator of names. It reads `rows` at each call, because rows may be added. `besides` are also valid."""

    def check(name: str) -> str:
        if name not in rows and name not in besides:
            *others, last = map(repr, (*besides, *rows))
            expected = f"{', '.join(others)} or {last}"
            raise ValueError(f"Input should be {expected} ({closest(name, rows)})")
        return name

    return AfterValidator(check)


def _is_key(name: object, rows: Mapping[str, object]) -> bool:
    return isinstance(name, str) and name in rows


ParameterizationName = Annotated[str, _name_in(PARAMETERIZATIONS)]
NetworkName = Annotated[str, _name_in(NETWORKS, "auto")]
AgentName = Annotated[str, _name_in(AGENTS)]
OptimizerName = Annotated[str, _name_in(OPTIMIZERS)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _plain(value: Any) -> Any:
    """`value`, if YAML and JSON can represent it. Raises ValueError for anything else."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"a key must be text, not {key!r}")
            _plain(item)
    elif isinstance(value, list):
        for item in value:
            _plain(item)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"a value must be plain (text, numbers, lists, mappings), not a {type(value).__name__}")
    return value


class EnvironmentSettings(_Section):
    """The rules of the training games. External environments ignore settings that only Atari has."""

    num_envs: Whole = Field(
        8, gt=0, le=1024, description="games played in lockstep; part of the experiment: it changes results"
    )
    repeat_action_probability: Probability = Field(0.0, description="sticky actions; 0 as in the paper")
    full_action_set: bool = Field(False, description="all 18 actions instead of the game's minimal set")
    max_noop_frames: Whole = Field(30, ge=0, le=1000, description="no-op frames at a game's start: uniform on 0..this")
    max_game_frames: Count | None = Field(
        None, description="truncate a game after this many frames; null: never, as in the paper"
    )
    terminal_on_life_loss: bool = Field(True, description="a lost life ends the episode for the learner, not the game")
    args: Annotated[dict[str, Any], BeforeValidator(_plain)] = Field(
        {}, description="keyword arguments of an external environment; --env-arg KEY=VALUE sets one"
    )
    vectorization: Literal["sync", "async"] = Field(
        "sync",
        description="external environments: sync plays all games in this process, async each in its own process",
    )
    stack: Whole | None = Field(
        None, ge=1, le=64, description="frames in an observation of an external environment; null: 1"
    )
    normalize_observations: bool = Field(
        False,
        description="normalize float32 vectors by the running mean and variance of the training games",
    )
    repeats: bool | None = Field(
        None,
        description="whether seeds and actions determine the environment, so that a stopped run resumes exactly. "
        "null: known for Atari and Catch; others are tested at the start, and config.yaml records the result",
    )


class ReplaySettings(_Section):
    """The replay buffer, and prioritized replay (Schaul et al. 2016, the proportional variant)."""

    capacity: Count = Field(
        1_000_000,
        description="number of transitions; each takes 7 KB of memory, or 0.2 to 1.5 KB if frames are compressed",
    )
    compression: Literal["auto", "none", "zstd"] = Field(
        "auto",
        description="lossless compression of the frames in memory; it does not change results. auto: zstd if the "
        "replay would take more than half of the free memory. Never on a GPU",
    )
    priority_exponent: Probability = Field(
        0.0,
        description=(
            "alpha: a transition is drawn in proportion to (|TD error| + priority_epsilon)^alpha. 0: uniformly, as in "
            "DQN, and the next three settings are ignored; the paper of prioritized replay uses 0.6 and a quarter of "
            "the learning rate"
        ),
    )
    priority_epsilon: float = Field(
        1e-6, gt=0, le=1, description="added to |TD error|, so that transitions without error are drawn (our choice)"
    )
    importance_exponent: Probability = Field(
        0.4,
        description=(
            "initial beta: the weight of a transition is (N P(i))^-beta, relative to the largest one of its minibatch; "
            "beta rises linearly to 1"
        ),
    )
    importance_anneal_steps: Count = Field(
        50_000_000,
        description="steps from the start of learning until beta is 1; in a shorter run, set it to the run's length",
    )


class NetworkSettings(_Section):
    """The network's shape, its head, and its initialization (section 3 of the paper)."""

    name: NetworkName = Field(
        "auto",
        description="auto: nature for images of 36 pixels or more, minatar for smaller ones, mlp for vectors; or one "
        "of " + ", ".join(NETWORKS),
    )
    hidden: list[Annotated[int, Field(gt=0, le=65_536)]] = Field(
        [64, 64], min_length=1, description="units of the hidden layers of mlp, input first; other networks ignore it"
    )
    width: Whole = Field(
        1, ge=1, le=64, description="impala has 16, 32 and 32 times as many channels; other networks ignore it"
    )
    dueling: bool = Field(
        False,
        description="dueling heads (Wang et al. 2016): separate streams for the state's value and the advantages",
    )
    noisy: bool = Field(
        False,
        description="learned noise on the weights of the head (Fortunato et al. 2018, factorized). It replaces "
        "epsilon: set exploration.final=0. Evaluations and videos are without noise",
    )
    noisy_sigma: float = Field(
        0.5,
        ge=0,
        le=1e3,
        description="sigma_0: the initial noise is sigma_0/sqrt(fan-in), scaled with a layer's outputs",
    )
    spectral_layers: list[str] = Field(
        [], description="names of the layers that sn normalizes, like conv1 or hidden; []: the last hidden ones"
    )
    init: Literal["data", "torch", "nature", "glorot"] = Field(
        "data",
        description=(
            "data: from a batch, section 3; torch: uniform on +-1/sqrt(fan-in), torch's default and Mnih's; nature: "
            "uniform on +-sqrt(3/fan-in), biases 0.1, the Nature network of deep_q_rl; glorot: uniform on "
            "+-sqrt(6/(fan-in + fan-out)), biases 0, Dopamine's"
        ),
    )
    init_batch_size: Whole = Field(
        1024,
        ge=2,
        description="transitions in the batch of the data-dependent initialization, and of the first running "
        "statistics (our choice)",
    )
    init_centred: bool = Field(
        False,
        description="subtract the mean of each unit's initial weights; with it, ws starts as the same function as the "
        "other parameterizations",
    )
    output_init_scale: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="scale of the Q-values (with atoms, of the logits) after initialization; 1 follows the paper",
    )
    atoms: Whole | None = Field(
        None,
        ge=2,
        le=10_000,
        description="number of atoms, evenly spaced from v_min to v_max; null: 51 for agents that learn "
        "distributions ("
        + ", ".join(name for name, row in AGENTS.items() if row.distributional)
        + "), none for the others",
    )
    v_min: float = Field(-10.0, ge=-1e9, le=1e9, description="the lowest atom; returns below it are clipped")
    v_max: float = Field(10.0, ge=-1e9, le=1e9, description="the highest atom; returns above it are clipped")


class LearningSettings(_Section):
    """The DQN loop (Mnih et al. 2015, extended data table 1; minibatch of 64 from Salimans & Kingma 2016)."""

    total_steps: Count = Field(50_000_000, description="agent steps of training: 200 epochs of 250,000")
    start_steps: Count = Field(50_000, description="steps of random play before learning starts")
    update_period_steps: Count = Field(4, description="one update per this many transitions, for any num_envs")
    batch_size: Count = Field(64, description="transitions per update")
    discount: float = Field(0.99, ge=0, le=1, description="gamma")
    n_steps: Whole = Field(
        1, ge=1, le=1000, description="rewards summed, discounted, before the target network's estimate; 1 as in DQN"
    )
    target_period_steps: Count = Field(
        10_000, description="copy the network to the target network every this many steps of learning"
    )
    loss: Literal["huber", "mse"] = Field(
        "huber",
        description="huber: the TD error is clipped at 1; mse: half its square, not clipped, so large errors make "
        "large steps. Agents that learn distributions ignore it and use the cross-entropy",
    )
    loss_reduction: Literal["mean", "sum"] = Field(
        "mean", description="over the batch; Adamax ignores the difference, except through its epsilon"
    )
    precision: Precision = Field(
        "float32",
        description=(
            "precision of matrix products and convolutions: tf32 (GPU) and bf16 round factors; parameters are float32"
        ),
    )
    deterministic: bool = Field(
        False, description="on a GPU, use only deterministic kernels, which are slower; a CPU is always deterministic"
    )


class ExplorationSettings(_Section):
    """Epsilon-greedy exploration: epsilon falls linearly from `initial` to `final` after learning starts."""

    initial: Probability = Field(1.0, description="epsilon until learning starts")
    final: Probability = Field(0.1, description="epsilon at the end")
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
        le=1e38,
        description=(
            "null: 2.5e-4 for rmsprop-nature (Mnih's), 1e-2 for sgd (our choice); the others use that of the "
            "parameterization: "
            + ", ".join(f"{name} {row.learning_rate:g}" for name, row in PARAMETERIZATIONS.items())
            + " (standard and wn: the paper's)"
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
    final_learning_rate: float | None = Field(
        None,
        ge=0,
        le=1e38,
        description="the rate falls linearly to this after learning starts; null: it is constant, as in the paper",
    )
    decay_steps: Count = Field(
        50_000_000, description="steps from the start of learning until the rate is final_learning_rate"
    )
    epsilon: float = Field(
        gt=0, le=1e6, description="null: 1e-8 for adamax and adam, 1e-6 for adamax-salimans, 0.01 for rmsprop-nature"
    )


class EvaluationSettings(_Section):
    """The evaluation after each epoch: the `paper` protocol, by default as long as the paper's."""

    epoch_steps: Count = Field(
        250_000, description="training steps per epoch; an evaluation and a checkpoint follow each"
    )
    steps: Count = Field(125_000, description="test steps per evaluation; games completed within them count")
    epsilon: Probability = Field(0.05, description="epsilon of the test policy")
    num_envs: Whole = Field(16, gt=0, le=1024, description="games played at once; the result does not depend on it")
    held_out_states: Count = Field(
        3_200, description="number of states, drawn once when learning starts, on which mean max-Q is measured"
    )
    curvature_products: Whole = Field(
        0,
        ge=0,
        le=1000,
        description="Hessian-vector products at each evaluation, to measure the loss's curvature. 24 are enough; each "
        "takes as long as three updates. 0: curvature is not measured",
    )


class OutputSettings(_Section):
    """The output of a run. These settings do not change what is learned."""

    log_period_steps: Count = Field(10_000, description="steps between rows of metrics.csv")
    checkpoint_period_steps: Count = Field(
        250_000, description="steps between checkpoints; each end of an epoch saves one, too"
    )
    keep_checkpoints: Count = Field(2, description="newest checkpoints that are kept, in addition to the best")
    save_replay: bool = Field(
        True, description="save the replay; without it a resumed run starts with an empty one and is not exact"
    )
    video_period_epochs: Whole = Field(
        0, ge=0, description="epochs between TensorBoard clips (ten seconds of the best network so far); 0: no clips"
    )


class Settings(_Section):
    """All settings of a run.

    >>> settings = wn_dqn.Settings(game="Catch", learning={"total_steps": 1_000_000})
    >>> settings.param, settings.optimizer.learning_rate
    ('wn', 0.0003)
    """

    game: str = Field(
        description="name of the game, or an external environment: gymnasium:ID, gymnasium:MODULE:ID, MODULE:FACTORY"
    )
    param: ParameterizationName = Field(
        DEFAULT_PARAMETERIZATION, description="parameterization of the network: " + ", ".join(PARAMETERIZATIONS)
    )
    agent: AgentName = Field("dqn", description="; ".join(f"{name}: {row.label}" for name, row in AGENTS.items()))
    seed: int = Field(0, ge=0, lt=2**63, description="the seed of all random numbers")
    plugins: list[str] = Field(
        [], description="Python modules that register your own parts; see --plugin. Imported before anything else"
    )
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
        name, param = optimizer.get("name", "adamax"), data.get("param", DEFAULT_PARAMETERIZATION)
        if _is_key(name, OPTIMIZERS) and _is_key(param, PARAMETERIZATIONS):
            row = OPTIMIZERS[name]
            optimizer.setdefault("learning_rate", row.learning_rate or PARAMETERIZATIONS[param].learning_rate)
            optimizer.setdefault("beta1", row.beta1)
            optimizer.setdefault("epsilon", row.epsilon)
        else:  # report the wrong name, not an error that follows from it
            optimizer = {"learning_rate": 1.0, "beta1": 0.5, "epsilon": 1.0} | optimizer
        return {**data, "optimizer": optimizer}

    @model_validator(mode="before")
    @classmethod
    def _fill_what_depends_on_the_agent(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("network", {}), dict):
            return data
        agent, network = data.get("agent"), data.get("network", {})
        if isinstance(agent, str) and agent in AGENTS and AGENTS[agent].distributional and network.get("atoms") is None:
            network = {**network, "atoms": DEFAULT_ATOMS}
        return {**data, "network": network}

    @model_validator(mode="after")
    def _atoms_fit_the_agent(self) -> Settings:
        network = self.network
        if AGENTS[self.agent].distributional and network.atoms is None:
            raise ValueError(f"network.atoms must be given for {self.agent}, which learns distributions")
        if not AGENTS[self.agent].distributional and network.atoms is not None:
            names = ", ".join(name for name, row in AGENTS.items() if row.distributional)
            raise ValueError(f"network.atoms is for agents that learn distributions ({names}), not for {self.agent}")
        if network.v_min >= network.v_max:
            raise ValueError(f"network.v_min ({network.v_min:g}) must be less than network.v_max ({network.v_max:g})")
        return self

    @model_validator(mode="after")
    def _environment_fits_the_game(self) -> Settings:
        if ":" in self.game:
            return self
        environment = self.environment
        for name in ("args", "stack"):
            if getattr(environment, name):
                raise ValueError(f"environment.{name} is for external environments (--env), not for {self.game}")
        return self

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
        if learning.batch_size == 1 and PARAMETERIZATIONS[self.param].batch_statistics:
            raise ValueError(f"learning.batch_size must be at least 2 for {self.param}: one sample is its own mean")
        return self

    def ends_epoch(self, steps: int) -> bool:
        """Whether an epoch ends at `steps`."""
        epoch_steps = self.evaluation.epoch_steps
        return steps // epoch_steps > (steps - self.environment.num_envs) // epoch_steps

    def counts_test_at(self, steps: int) -> bool:
        """Whether an evaluation at `steps` counts: at the end of an epoch or of the run.

        A run that was extended may have others: those at its earlier ends.
        """
        return self.ends_epoch(steps) or steps >= self.learning.total_steps

    @property
    def target_period_updates(self) -> int:
        """Updates between copies to the target network: 2,500 by default."""
        return self.learning.target_period_steps // self.learning.update_period_steps
