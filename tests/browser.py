"""The script that drives a real browser, as a module."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "screenshot_tensorboard.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screenshot_tensorboard", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()
