"""The texts that a run prints: three lines at its start, and a few numbers beside the progress bar."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from wn_dqn.config.games import game_of
from wn_dqn.config.registry import AGENTS, PARAMETERIZATIONS
from wn_dqn.config.schema import Settings
from wn_dqn.envs.spec import EnvSpec
from wn_dqn.nn.networks import network_name
from wn_dqn.system.text import number_of, printable, score_text


def opening(settings: Settings, spec: EnvSpec, folder: Path, device: torch.device) -> list[str]:
    """Three lines: what is trained, on which device and for how long; the run's folder; how to watch it."""
    steps = settings.learning.total_steps
    on = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"the CPU, {number_of(torch.get_num_threads(), 'thread')}"
    )
    frames = f" ({steps * spec.frames_per_step:,} frames)" if spec.frames_per_step > 1 else ""
    layers, network = PARAMETERIZATIONS[settings.param].label, network_name(spec.obs_shape, settings.network)
    return [
        f"{AGENTS[settings.agent].label} learns {game_of(settings).short_name} in {steps:,} steps{frames}: {layers}, "
        f"network {network}, seed {settings.seed}, on {on}",
        f"written to {printable(str(folder))}; config.yaml there has all settings",
        f"watch: wn-dqn report {pasteable(folder)} --live, or tensorboard --logdir {pasteable(folder.parent)}",
    ]


def pasteable(path: Path) -> str:
    """A path, quoted for a shell, on one line of a terminal."""
    return printable(shlex.quote(str(path)))


def details(steps_per_s: float | None, epsilon: float, scores: list[tuple[int, float]]) -> str:
    """Speed, exploration, and the last and the best of `scores`, which are (steps, mean return)."""
    parts = [] if steps_per_s is None else [f"{steps_per_s:,.0f} steps/s"]
    parts.append(f"epsilon {epsilon:.2f}")
    if scores:
        best_steps, best = max(scores, key=lambda score: score[1])
        parts += [f"score {score_text(scores[-1][1])}", f"best {score_text(best)} at step {best_steps:,}"]
    return ", ".join(parts)
