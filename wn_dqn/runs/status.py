"""The part of a run that can be read without torch: its name, its status, and the process that trains it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from wn_dqn.system import reading
from wn_dqn.system.durable import open_file, write_all, write_durably
from wn_dqn.system.locking import InUseError, hold, hold_folder
from wn_dqn.system.reading import MIB, Record, Steps, Text

STATUS, LOCK = "status.json", ".lock"
TRAIN_LOG = "train.log"
"""printed lines of the command, if a sweep started it"""
STOPPED_EARLY = ".stopped-early.json"
"""marks a run that a comparison in its sweep has stopped; no statistic counts it"""
SAVED_STEPS = "saved_steps"
"""in status.json: the steps of the newest checkpoint, null if none was ever saved"""
# On Windows, a file's name may not contain these characters, and its part before the first dot may not be these names.
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³])[ ]*(\.|$)", re.IGNORECASE)


def default_name(game: str, param: str, agent: str, seed: int, variant: str = "") -> str:
    """The default name of a run's folder: GAME-PARAM-seedSEED, or GAME-PARAM-AGENT-seedSEED if the agent is not dqn.

    `variant` is added if it is not empty; it distinguishes runs by other settings.
    """
    parts = [game, param, *([] if agent == "dqn" else [agent]), *([variant] if variant else []), f"seed{seed}"]
    return portable_name("-".join(parts))


def portable_name(text: str) -> str:
    """`text` as a file name that every system allows. Parts that Windows forbids become "_" or are left out."""
    name = _FORBIDDEN.sub("_", text).rstrip(". ") or "_"
    return f"_{name}" if _DEVICES.match(name) else name


class _Status(Record):
    """``status.json``."""

    status: Text
    steps: Steps = 0
    saved_steps: Steps | None = None
    time: Text | None = None
    error: Text | None = None
    reason: Text | None = None


def read_status(run: Path) -> dict[str, Any]:
    """Read what `write_status` wrote; empty if there is no readable status."""
    try:
        return reading.read_json(run / STATUS, MIB, _Status).model_dump(exclude_unset=True)
    except OSError:
        return {}


def write_status(run: Path, status: str, **details: Any) -> None:
    """Write the run's status for other programs. On a full disk, the old status is overwritten in place.

    Raises OSError if that fails, too.
    """
    content = {"status": status, **details, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    data = json.dumps(content, indent=2).encode()
    try:
        write_durably(run / STATUS, data)
    except OSError:  # the disk is full, but the old status can be overwritten in place
        with open_file(run / STATUS, "r+b") as file:
            write_all(file, data)
            file.truncate()


def holder(run: Path) -> str:
    """The process that trains the run, like "process 5 on host"; empty if there is none.

    The check takes the lock for an instant. A `train` that starts in this instant ends with status 3; start it again.
    """
    if not (run / LOCK).exists():
        return ""
    try:
        with hold(run / LOCK), hold_folder(run):
            return ""
    except InUseError as error:
        return str(error)
    except OSError:  # the file system has no locks, or the folder belongs to another user: unknown
        return ""
