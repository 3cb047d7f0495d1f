"""Configs that go by a name. Apart from the settings, so that a help text needs no more than a folder's listing."""

from __future__ import annotations

from pathlib import Path


def config_folder() -> Path:
    """The folder of the named configs: inside an installed package, or at the top of the repository."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def named_configs() -> list[str]:
    """Names that ``--config`` takes beside file paths."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))
