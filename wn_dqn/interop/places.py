"""Finds trained networks: a path, ``agent:NAME`` for one in this package, ``hf:USER/NAME`` for one on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wn_dqn.errors import UsageError, closest
from wn_dqn.interop.export import CONTRACT_BYTES, contract_of
from wn_dqn.interop.hub import download
from wn_dqn.system import reading

PRETRAINED, HUB = "agent:", "hf:"


def pretrained_folder() -> Path:
    """The folder of this package's trained networks: inside an installed package, or in the repository."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "pretrained"
    return packaged if packaged.is_dir() else package.parent / "agents" / "pretrained"


def pretrained_names() -> list[str]:
    """The valid names in ``agent:NAME``."""
    return sorted(path.stem for path in pretrained_folder().glob("*.safetensors"))


def pretrained() -> list[dict[str, Any]]:
    """This package's trained networks, from their contracts: name, game, training, last evaluation."""
    rows = []
    for name in pretrained_names():
        contract = reading.read_json(contract_of(locate(Path(PRETRAINED + name))), CONTRACT_BYTES, dict[str, Any])
        score = {key: contract["scores"][-1][key] for key in ("mean", "std", "games", "protocol")}
        about = {"game": contract["game"], "param": contract["param"], "steps": contract["trained_steps"]}
        rows.append({"name": name, **about, "score": score})
    return rows


def locate(place: Path) -> Path:
    """The path of `place`. A network on the Hub is downloaded first, unless it is in the cache.

    Raises UsageError if this package has no network with this name.
    """
    text = place.as_posix()
    if text.startswith(PRETRAINED):
        name = text.removeprefix(PRETRAINED)
        if name not in pretrained_names():
            raise UsageError(f"no network {name!r} comes with wn-dqn; {closest(name, pretrained_names())}")
        return pretrained_folder() / f"{name}.safetensors"
    return download(text.removeprefix(HUB)) if text.startswith(HUB) else place
