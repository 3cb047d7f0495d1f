"""What other programs may know of a run without loading torch: its name, how it is, and whether a process has it."""

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
"""what the command printed, if a sweep started it"""
STOPPED_EARLY = ".stopped-early.json"
"""in a run that lost a comparison of its sweep: no statistic counts it"""
SAVED_STEPS = "saved_steps"
"""in status.json: the steps of the newest checkpoint, null if none was ever saved"""
# What the name of a file may not contain, and may not be up to its first dot, on Windows.
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³])[ ]*(\.|$)", re.IGNORECASE)


def default_name(game: str, param: str, agent: str, seed: int, variant: str = "") -> str:
    """The folder of a run if none is asked for: GAME-PARAM-seedSEED, with the agent if it is another than dqn.

    `variant`: what else sets it apart, if anything does.
    """
    parts = [game, param, *([] if agent == "dqn" else [agent]), *([variant] if variant else []), f"seed{seed}"]
    return portable_name("-".join(parts))


def portable_name(text: str) -> str:
    """`text` as a name that every system allows for a file. What Windows does not allow becomes "_" or is left out."""
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
    """What `write_status` wrote; empty if nothing or nothing readable."""
    try:
        return reading.read_json(run / STATUS, MIB, _Status).model_dump(exclude_unset=True)
    except OSError:
        return {}


def write_status(run: Path, status: str, **details: Any) -> None:
    """Tell other programs how the run is; OSError if not even a full disk's old status can be overwritten."""
    content = {"status": status, **details, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    data = json.dumps(content, indent=2).encode()
    try:
        write_durably(run / STATUS, data)
    except OSError:  # a full disk, but there is room where the old status stands
        with open_file(run / STATUS, "r+b") as file:
            write_all(file, data)
            file.truncate()


def holder(run: Path) -> str:
    """The process that has the run, like "process 5 on host"; empty if none has it.

    The lock is taken for an instant. A `train` that begins in this instant ends with status 3: start it again.
    """
    if not (run / LOCK).exists():
        return ""
    try:
        with hold(run / LOCK), hold_folder(run):
            return ""
    except InUseError as error:
        return str(error)
    except OSError:  # a file system without locks, or a folder of somebody else's: nothing is known
        return ""
