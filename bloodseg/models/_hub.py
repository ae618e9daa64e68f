"""Model files in repositories of the Hugging Face hub."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._extras import import_extra

_FILE, _CARD = "model.safetensors", "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What the hub reads of a card: how to find the model, and that this package opens it.
_HEADER = "---\nlibrary_name: bloodseg\npipeline_tag: image-segmentation\n---\n\n"


def is_repository(name: str) -> bool:
    """Return whether a name has the form of a repository, OWNER/NAME."""
    return _REPOSITORY.fullmatch(name) is not None and not name.endswith(".safetensors")


def download_model(repository: str, *, revision: str | None = None) -> Path:
    """Return the model file of a repository, which is downloaded once and kept in the hub's cache.

    Raises
    ------
    ImportError
        If huggingface_hub is missing.
    OSError
        If there is no such repository, revision or model in it, or no way to the hub.
    """
    hub = _import_hub()
    return Path(hub.hf_hub_download(repository, _FILE, revision=revision))


def upload_model(
    save: Callable[[Path], object], card: str, repository: str, *, private: bool, overwrite: bool
) -> str:
    """Put a model file and its card into a repository, which is made if it is not there.

    Parameters
    ----------
    save : callable
        Writes the model file to a path.
    card : str
        Markdown.
    repository : str
        OWNER/NAME.
    private : bool
        Whether a new repository is seen by its owner alone.
    overwrite : bool
        Whether a model and a card that are there are replaced.

    Returns
    -------
    str
        Where it is.

    Raises
    ------
    FileExistsError
        If there is a model or a card that is not to be replaced.
    ImportError
        If huggingface_hub is missing.
    OSError
        If the hub refuses it, as without a token, or cannot be reached.
    ValueError
        If it is no name of a repository.
    """
    if not is_repository(repository):
        raise ValueError(
            f"repository must be the name of one of the Hugging Face hub, OWNER/NAME; "
            f"got {repository!r}."
        )
    hub = _import_hub().HfApi()
    for name in () if overwrite else (_FILE, _CARD):
        if hub.file_exists(repository, name):
            raise FileExistsError(
                f"{repository} holds {name} already, to which something was added perhaps. Choose "
                "another repository, or pass overwrite=True to replace model and card."
            )
    with tempfile.TemporaryDirectory(prefix="bloodseg-") as folder:
        save(Path(folder) / _FILE)  # first: what cannot be saved leaves no empty repository
        (Path(folder) / _CARD).write_text(_HEADER + card, encoding="utf-8")
        url = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload a model of bloodseg"
        )
    return str(url)


def _import_hub() -> Any:
    need = "repositories of the Hugging Face hub need the package huggingface_hub"
    return import_extra("huggingface_hub", extra="hub", need=need)
