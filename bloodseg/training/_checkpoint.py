"""The file that a killed training goes on from."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import tempfile
from pathlib import Path
from typing import Any

import joblib
import torch

from .._files import written_whole
from .._version import __version__
from ..ode import warn_caller

logger = logging.getLogger("bloodseg")


class Checkpoint:
    """One training's state after its last finished epoch.

    What an epoch draws, and its order, are functions of the seed and the epoch's number
    (`AugmentedNet`, `EpochSampler`), so the seed and the history hold them. A checksum tells a file
    that was changed: torch reads one with a flipped bit without a word.

    Parameters
    ----------
    path : path
        The file; written whole or not at all.
    seed : int
        Seed of the training, where there is no file yet.

    Attributes
    ----------
    state : dict or None
        What the file holds, if there is one.
    seed : int
        Seed of the training: the file's, where there is one.

    Raises
    ------
    OSError
        If the folder cannot be made or written to.
    ValueError
        If the file is damaged or no checkpoint.
    """

    def __init__(self, path: Path, *, seed: int):
        self.path = path
        # What would fail after the first epoch shall fail before it.
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise OSError(
                error.errno,
                f"checkpoint_dir must be a folder that can be made and written to; got "
                f"{path.parent} ({error.strerror}).",
            ) from error
        self.state = self._load()
        self.seed = seed if self.state is None else self.state["seed"]

    def save(
        self,
        *,
        network: dict[str, Any],
        optimizer: dict[str, Any],
        history: list[dict[str, Any]],
        best: dict[str, Any],
    ) -> None:
        """Replace the file by a new state; warn where it can't be written, for training goes on.

        Parameters
        ----------
        network, optimizer : dict
            Their state dicts.
        history : list of dict
            One row an epoch, of what JSON can hold.
        best : dict
            What `BestWeights` keeps.
        """
        state = {
            "seed": self.seed,
            "network": network,
            "optimizer": optimizer,
            "history": json.dumps(history, default=str),
            "best": best,
        }
        state["checksum"] = checksum_of(state)
        try:
            with written_whole(self.path) as unfinished:
                torch.save(state, unfinished)
        except (OSError, RuntimeError) as error:  # torch's own for a full disk
            warn_caller(f"The checkpoint {self.path} was not written: {error}", each_time=True)

    def _load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            whole = state.pop("checksum") == checksum_of(state)
            state["history"] = json.loads(state["history"])
        except PermissionError:
            raise
        except Exception as e:  # torch.load meets junk with errors of almost any type
            raise ValueError(
                f"{self.path} cannot be read as a checkpoint ({type(e).__name__}). "
                "Delete it to train from the start."
            ) from e
        if not whole:
            raise ValueError(
                f"{self.path} was damaged after it was written: its checksum does not fit. Delete "
                "it to train from the start."
            )
        logger.info("Going on from %s, after epoch %d.", self.path, len(state["history"]))
        return state


def checksum_of(state: dict[str, Any]) -> str:
    """Return what tells tensors and what lies beside them from all others, in their order."""
    digest = hashlib.blake2b(digest_size=16)

    def add(value: Any) -> None:
        if isinstance(value, dict):
            digest.update(f"{len(value)} entries".encode())
            for key, item in value.items():
                add(key)
                add(item)
        elif isinstance(value, (list, tuple)):
            digest.update(f"{len(value)} items".encode())
            for item in value:
                add(item)
        elif isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            bits = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(bits.numpy().data)
        else:
            digest.update(f"{type(value).__name__} {value!r}".encode())

    add(state)
    return digest.hexdigest()


def fingerprint(parameters: dict[str, Any], *data: Any) -> str:
    """Return a name for what is trained on what, the same in another process.

    Raises
    ------
    ValueError
        If a parameter can't be told from others of its kind, as a lambda.
    """
    try:
        return joblib.hash((__version__, parameters, data))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            "checkpoint_dir needs parameters that can be recognised in another process; a lambda, "
            "or a function or class defined inside a function, cannot. Define it at the top of a "
            f"module, or leave out checkpoint_dir. ({reason[:200]})"
        ) from error
