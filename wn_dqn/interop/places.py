"""Where a trained network is: a path, ``agent:NAME`` for one that comes along, ``hf:USER/NAME`` for one on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wn_dqn.errors import UsageError, closest
from wn_dqn.interop.export import CONTRACT_BYTES, contract_of
from wn_dqn.interop.hub import download
from wn_dqn.system import reading

PRETRAINED, HUB = "agent:", "hf:"


def pretrained_folder() -> Path:
    """The folder of the networks that come along: inside an installed package, or in the repository."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "pretrained"
    return packaged if packaged.is_dir() else package.parent / "agents" / "pretrained"


def pretrained_names() -> list[str]:
    """What ``agent:NAME`` may name."""
    return sorted(path.stem for path in pretrained_folder().glob("*.safetensors"))


def pretrained() -> list[dict[str, Any]]:
    """What the contracts of the networks that come along say of them: name, game, how it was trained, last test."""
    rows = []
    for name in pretrained_names():
        contract = reading.read_json(contract_of(locate(Path(PRETRAINED + name))), CONTRACT_BYTES, dict[str, Any])
        score = {key: contract["scores"][-1][key] for key in ("mean", "std", "games", "protocol")}
        about = {"game": contract["game"], "param": contract["param"], "steps": contract["trained_steps"]}
        rows.append({"name": name, **about, "score": score})
    return rows


def locate(place: Path) -> Path:
    """The path that `place` means. A network on the Hub is downloaded first, unless it has been before.

    UsageError if no such network comes along.
    """
    text = place.as_posix()
    if text.startswith(PRETRAINED):
        name = text.removeprefix(PRETRAINED)
        if name not in pretrained_names():
            raise UsageError(f"no network called {name!r} comes along; {closest(name, pretrained_names())}")
        return pretrained_folder() / f"{name}.safetensors"
    return download(text.removeprefix(HUB)) if text.startswith(HUB) else place
