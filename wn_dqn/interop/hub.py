"""Uploads to and downloads from repositories of the Hugging Face Hub. ``huggingface_hub`` is an extra."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from wn_dqn.errors import RunError, UsageError, first_line
from wn_dqn.interop.export import HUB_CONTRACT, HUB_MODEL

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


def require_repository(repo_id: str) -> None:
    """Raise UsageError unless `repo_id` has the form USER/NAME."""
    if not _REPOSITORY.fullmatch(repo_id):
        raise UsageError(f"a repository of the Hub is USER/NAME, not {repo_id!r}")


def require_hub() -> None:
    """Raise UsageError, with the remedy, if huggingface_hub is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError("the Hugging Face Hub needs its package: pip install 'wn-dqn[hub]'; push --to FOLDER does not")


def upload(folder: Path, repo_id: str, *, private: bool) -> str:
    """Send the files in `folder` to the repository, which is created if needed. Returns its address.

    Raises RunError if the Hub cannot be reached or refuses. In that case, the repository has not changed.
    """
    require_hub()
    from huggingface_hub import HfApi

    with _in_one_line(f"the Hub did not take {repo_id}"):
        api = HfApi(library_name="wn-dqn")
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="A network trained by wn-dqn")
    return str(address)


def download(repo_id: str) -> Path:
    """Download the network of a repository and its contract to the Hub's cache. Returns the network's path.

    Raises UsageError if `repo_id` is not USER/NAME, and RunError if the Hub cannot be reached or has no such files.
    """
    require_repository(repo_id)
    require_hub()
    from huggingface_hub import snapshot_download

    with _in_one_line(f"cannot get {repo_id} from the Hub"):
        return Path(snapshot_download(repo_id, allow_patterns=[HUB_MODEL, HUB_CONTRACT])) / HUB_MODEL


@contextlib.contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Convert errors of the Hub's library and of the network to one RunError."""
    from huggingface_hub import errors

    network: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]  # of the library under it
    try:
        yield
    except (network, errors.EntryNotFoundError, errors.RevisionResolutionError, OSError, ValueError) as error:
        raise RunError(f"{what}: {first_line(error)}") from None
