"""Writes the files of a trained network for a repository of the Hugging Face Hub.

``model.safetensors`` has plain weights and ``config.json`` their contract. The model card is ``README.md``; beside it
are ``replay.mp4``, the learning curve, the evaluations and the settings.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from wn_dqn.analysis import plotting
from wn_dqn.analysis.model_card import CURVE, card_text
from wn_dqn.analysis.read_runs import group_runs, read_run
from wn_dqn.evaluation.protocols import find_protocol
from wn_dqn.interop.export import HUB_CONTRACT, HUB_MODEL, export
from wn_dqn.render.video import FRAMES_PER_S, write_video
from wn_dqn.runs.film import watch
from wn_dqn.runs.metrics_writer import EVALUATIONS_CSV
from wn_dqn.runs.policy import Policy
from wn_dqn.runs.reevaluation import read_records
from wn_dqn.runs.run_directory import CONFIG
from wn_dqn.system.output_file import write
from wn_dqn.system.progress import ProgressReporter

CARD, FILM = "README.md", "replay.mp4"
_FILM_FRAMES = 120 * FRAMES_PER_S


def write_files(run: Path, policy: Policy, repo_id: str, folder: Path, reporter: ProgressReporter) -> None:
    """Write the files of the repository `repo_id` about `run`, whose best network is `policy`, to an empty `folder`."""
    read = read_run(run)
    export(policy, folder / HUB_MODEL, "safetensors", read_records(policy.path)[0], folder / HUB_CONTRACT)
    figure, _ = plotting.learning_curves(group_runs([read])[0])
    write(folder / CURVE, plotting.figure_bytes(figure, "png"))
    write(folder / CARD, card_text(read, picture=True, place=f"hf:{repo_id}").encode())
    for name in (CONFIG, EVALUATIONS_CSV):
        shutil.copyfile(run / name, folder / name)
    film = watch(policy, find_protocol("nature"), 1, 0, None, reporter)
    write_video(folder / FILM, itertools.islice(film, _FILM_FRAMES))
