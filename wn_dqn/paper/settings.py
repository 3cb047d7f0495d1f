"""What a run of the paper's systems is made from, resolved: torch is not imported here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from wn_dqn.errors import UsageError, closest

ARMS = {
    "cifar10": ("standard", "bn", "wn", "wn-mean-only-bn", "mean-only-bn"),
    "vae": ("standard", "wn"),
    "vae-cifar10": ("standard", "wn"),
    "draw": ("standard", "wn"),
}
"""system -> the parameterizations that the paper compares in it"""
SYSTEM_LABELS = {
    "cifar10": "convolutional classifier",
    "vae": "convolutional VAE",
    "vae-cifar10": "convolutional VAE",
    "draw": "DRAW",
}
OFFICIAL = {"cifar10": "CIFAR-10", "vae": "MNIST", "vae-cifar10": "CIFAR-10", "draw": "MNIST"}
"""system -> the data of the paper"""
EMBEDDED = {"cifar10": "photos", "vae": "mnist-5k", "vae-cifar10": "photos", "draw": "mnist-5k"}
"""system -> the embedded data that it trains on where --data is left out"""
DATA_LABELS = {"photos": "photos (embedded)", "mnist-5k": "mnist-5k (embedded)"}
# system -> (width, epochs), first on the official data (the paper's), then on the embedded data (minutes on two cores).
_SIZES = {
    "cifar10": ((96, 200), (12, 20)),
    "vae": ((16, 300), (8, 15)),
    "vae-cifar10": ((64, 450), (16, 20)),
    "draw": ((256, 100), (64, 40)),
}
_EMBEDDED_RATES = {
    ("cifar10", "standard"): 0.003,
    ("cifar10", "wn"): 0.0005,
    ("draw", "standard"): 0.003,
    ("draw", "wn"): 0.003,
}
"""(system, arm) -> learning rate on the embedded data, where it is not that of the official data"""
_EMBEDDED_ONLY: dict[str, dict[str, Any]] = {
    "cifar10": {"zca_epsilon": 0.01},
    "vae": {},
    "vae-cifar10": {"latents": 8},
    "draw": {"glimpses": 16},
}


@dataclass(frozen=True)
class PaperSettings:
    """A run of one system. Two runs with equal settings on the same machine end in the same bits."""

    system: str
    """cifar10, vae, vae-cifar10 or draw"""
    param: str
    """parameterization: a key of the system's ARMS"""
    data: str
    """the embedded data's name, or the folder (or archive) of the official files"""
    seed: int
    epochs: int
    width: int
    """cifar10: maps of the first convolutions (the others have twice as many); vae: maps of the first sequence;
    vae-cifar10: maps everywhere; draw: units of both LSTMs"""
    learning_rate: float
    batch_size: int = 100
    compile: bool = False
    """the loss through torch.compile: a minute to begin, other last bits; docs/paper-systems.md has when it pays"""
    init_batch_size: int = 500
    """examples of the data-dependent initialization"""
    reference_code: bool = False
    """cifar10: what the paper's own code does differently from its text (wn_dqn/paper/reference_code.py)"""
    zca_epsilon: float = 1e-5
    """cifar10: added to the eigenvalues of the covariance; on few images more is needed (docs/paper-systems.md)"""
    posterior: str = "iaf"
    """vae: iaf or diagonal"""
    flow_steps: int = 2
    """vae: steps of inverse autoregressive flow"""
    latents: int = 32
    """vae: latent variables; vae-cifar10: latent maps of each level"""
    levels: int = 3
    """vae-cifar10: resolutions that have latent maps, from 16 x 16 on"""
    hidden: int = 450
    """vae: units of the fully connected layer"""
    glimpses: int = 64
    """draw: time steps"""
    attention: bool = True
    """draw: selective attention for reading and writing"""

    @property
    def data_label(self) -> str:
        """How titles and tables name the data: a figure on embedded data is never called MNIST's or CIFAR-10's."""
        return DATA_LABELS.get(self.data, OFFICIAL[self.system])

    @property
    def title(self) -> str:
        """System and data, for a person."""
        return f"{SYSTEM_LABELS[self.system]} on {self.data_label}"


def default_learning_rate(system: str, param: str, *, embedded: bool) -> float:
    """The paper's rates: sections 5.1 and 5.2. Section 5.3 states none: DRAW has 0.001, our choice."""
    if embedded and (system, param) in _EMBEDDED_RATES:
        return _EMBEDDED_RATES[system, param]
    if system == "cifar10":
        return 0.0003 if param == "standard" else 0.003
    return 0.001 if system == "draw" else 0.002


def make_paper_settings(system: str, param: str, data: str | None, **given: Any) -> PaperSettings:
    """Settings with the defaults of the system and its data; None in `given` is a default. UsageError if wrong.

    On the official data the defaults are the paper's. On embedded data width and epochs are small.
    """
    if param not in ARMS[system]:
        raise UsageError(f"{system} has no parameterization {param!r}; {closest(param, ARMS[system])}")
    if data is None:
        data = EMBEDDED[system]
    if data in DATA_LABELS and data != EMBEDDED[system]:
        raise UsageError(f"{system} does not train on {data}; its embedded data is {EMBEDDED[system]}")
    embedded = data in DATA_LABELS
    width, epochs = _SIZES[system][embedded]
    learning_rate = default_learning_rate(system, param, embedded=embedded)
    defaults: dict[str, Any] = {"width": width, "epochs": epochs, "learning_rate": learning_rate, "seed": 0}
    if embedded:
        defaults |= _EMBEDDED_ONLY[system]
    chosen = {name: value for name, value in given.items() if value is not None}
    return PaperSettings(system, param, data, **{**defaults, **chosen})


def differing(before: PaperSettings, after: PaperSettings) -> list[str]:
    """One text for each setting that differs, like "width: 12 -> 24"."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    return [f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]
