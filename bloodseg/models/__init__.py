"""Published weights, which come with the package, and what is known of them."""

from __future__ import annotations

from pathlib import Path

from .._files import expanded
from ._hub import download_model, is_repository
from ._hub import upload_model as upload_model

__all__ = ["list_models", "model_card", "model_path"]

_FOLDER = Path(__file__).parent
_NAMES = ("smears-5",)  # the newest first


def list_models() -> list[str]:
    """Return the names of the published models, the newest first.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from bloodseg.models import list_models
    >>> list_models()
    ['smears-5']
    """
    return list(_NAMES)


def model_path(name: str | None = None) -> Path:
    """Return where the model file of a published model lies.

    Parameters
    ----------
    name : str, optional
        One of `list_models`; by default the newest.

    Returns
    -------
    Path
        For `bloodseg.BloodCellSegmenter.load`; `bloodseg.BloodCellSegmenter.from_pretrained` does
        both.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> from bloodseg.models import model_path
    >>> model_path("smears-5").name
    'smears-5.safetensors'
    """
    return _file(name, ".safetensors")


def model_file(given: str | Path) -> Path:
    """Return the file of a published model's name, or the path that was given."""
    return model_path(str(given)) if str(given) in _NAMES else Path(given)


def find_model(given: str | Path, *, revision: str | None = None, argument: str = "name") -> Path:
    """Return the model file of a published model's name, a path, or a repository of the hub.

    Parameters
    ----------
    given : str or path
        The name, path or repository.
    revision : str, optional
        Of the repository.
    argument : str
        What the caller calls it, for the message.

    Raises
    ------
    ImportError, OSError
        As `bloodseg.models._hub.download_model`.
    ValueError
        If it is none of these.
    """
    file = expanded(model_file(given))
    if is_repository(str(given)) and not file.exists():
        return download_model(str(given), revision=revision)
    if revision is not None:
        raise ValueError(
            f"revision is for repositories of the Hugging Face hub, OWNER/NAME; {given} is none."
        )
    if not file.is_file():
        raise ValueError(
            f"{argument} must be that of a published model, one of {', '.join(_NAMES)}, a model "
            f"file, or a repository of the Hugging Face hub, OWNER/NAME; got {str(given)!r}."
        )
    return file


def model_card(name: str | None = None) -> str:
    """Return what is known of a published model: its data, licences, scores and limits.

    Parameters
    ----------
    name : str, optional
        One of `list_models`; by default the newest.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> from bloodseg.models import model_card
    >>> print(model_card().splitlines()[0])
    # smears-5
    """
    return _file(name, ".md").read_text(encoding="utf-8")


def _file(name: str | None, suffix: str) -> Path:
    if name is not None and name not in _NAMES:
        raise ValueError(
            f"name must be that of a published model, one of {', '.join(_NAMES)}; got {name!r}. "
            "Open a model file of your own with BloodCellSegmenter.load."
        )
    return _FOLDER / f"{name or _NAMES[0]}{suffix}"
