"""The named configs. They are in their own module, so that a help text only lists a folder."""

from __future__ import annotations

from pathlib import Path


def config_folder() -> Path:
    """The folder of the named configs: inside an installed package, or at the top of the repository."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def named_configs() -> list[str]:
    """The names that ``--config`` accepts, in addition to paths."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))
