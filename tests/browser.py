"""The script that drives a real browser, as a module."""

from __future__ import annotations

from load_script import load_script

script = load_script("screenshot_tensorboard")
