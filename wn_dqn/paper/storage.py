"""The folder of a run of the paper's systems: as any run's, with ``paper.json`` in place of ``config.yaml``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from wn_dqn.errors import UsageError
from wn_dqn.paper.settings import PaperSettings, differing
from wn_dqn.runs.run_directory import RunDirectory
from wn_dqn.system import reading
from wn_dqn.system.durable import write_durably
from wn_dqn.system.reading import KIB

SETTINGS = "paper.json"
_FORM = TypeAdapter(PaperSettings)


class PaperDirectory(RunDirectory):
    """Paths and small files of one run."""

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / SETTINGS).is_file()

    def write_paper_settings(self, settings: PaperSettings) -> None:
        """Write the resolved settings; OSError if the disk refuses."""
        write_durably(self.path / SETTINGS, json.dumps(dataclasses.asdict(settings), indent=2).encode())

    def require_same(self, settings: PaperSettings) -> None:
        """UsageError if a run with other settings was begun here."""
        changes = differing(read_paper_settings(self.path), settings)
        if changes:
            raise UsageError(f"{self.path} holds a run with other settings ({changes[0]}); choose another --run-dir")


def read_paper_settings(folder: Path) -> PaperSettings:
    """The settings of the run in `folder`. UsageError if the file is missing or damaged."""
    try:
        content: Any = reading.parse_json(reading.read_bytes(folder / SETTINGS, 64 * KIB))
        return _FORM.validate_python(content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise UsageError(f"{folder / SETTINGS} cannot be read: {reason}") from None
