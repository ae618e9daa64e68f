"""Model files: weights in safetensors, everything else as JSON in the header; nothing executed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .._files import check_place, expanded, written_whole
from .._version import __version__
from ..preprocessing import Preprocessor
from ..training import checksum_of

_KEY = "bloodseg"
_FORMAT = 1

_SECTIONS = ("parameters", "fitted")

# JSON has neither tuples nor integer keys, so these are written as an object of one marked key.
_TUPLE, _MAPPING, _PREPROCESSOR = "__tuple__", "__mapping__", "__preprocessor__"


def to_json(value: Any, *, name: str) -> Any:
    """Return a value in the form that JSON holds and `from_json` reverses.

    Raises
    ------
    ValueError
        If JSON can't hold it.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        items = [to_json(item, name=name) for item in value]
        return items if isinstance(value, list) else {_TUPLE: items}
    if isinstance(value, Mapping):
        pairs = [[to_json(part, name=name) for part in pair] for pair in value.items()]
        return {_MAPPING: pairs}
    if type(value) is Preprocessor:
        return {_PREPROCESSOR: to_json(value.get_params(deep=False), name=name)}
    if isinstance(value, (os.PathLike, torch.device)):
        return str(value)
    raise ValueError(
        f"A model file holds only what JSON can hold, so {name}={value!r} cannot be saved. "
        f"Keep the whole object with joblib.dump or, if {name} has done its work in fit, set it to "
        "a plain value and save again."
    )


def from_json(value: Any) -> Any:
    """Reverse `to_json`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        ((mark, content),) = value.items()
        if mark == _TUPLE:
            return tuple(from_json(item) for item in content)
        if mark == _MAPPING:
            return {from_json(key): from_json(item) for key, item in content}
        if mark == _PREPROCESSOR:
            return Preprocessor(**from_json(content))
        raise ValueError(f"unknown mark {mark!r}")
    return value


def write_model(path: Any, weights: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Write a model file, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If the header holds what JSON can't; the message names the entry.
    """
    path = check_place(path, "The model")
    encoded = {
        section: {name: to_json(value, name=name) for name, value in entries.items()}
        for section, entries in header.items()
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    checksums = {"checksum": _checksum(tensors), "header_checksum": _checksum_of_header(encoded)}
    metadata = {_KEY: json.dumps({"format": _FORMAT, **checksums, **encoded})}
    with written_whole(path) as unfinished:
        # As bytes: safetensors' own writing leaves a file that only its owner can read.
        unfinished.write_bytes(save(tensors, metadata=metadata))


def _checksum(weights: Mapping[str, torch.Tensor]) -> str:
    return checksum_of(dict(sorted(weights.items())))  # files have an order of their own


def _checksum_of_header(header: Mapping[str, Any]) -> str:
    sections = {section: header[section] for section in _SECTIONS}
    return checksum_of({"header": json.dumps(sections, sort_keys=True)})


def halved(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round weights to float16, but for tensors that hold more than it can, and whole numbers."""

    def halve(weight: torch.Tensor) -> torch.Tensor:
        half = weight.half()
        return half if weight.is_floating_point() and half.isfinite().all() else weight

    return {name: halve(weight) for name, weight in weights.items()}


def check_weights(weights: Mapping[str, torch.Tensor], *, name: str) -> dict[str, torch.Tensor]:
    """Return weights as a network can have them: numbers in float32, and counters.

    Raises
    ------
    ValueError
        If one is not finite, or the variance of a batch normalisation negative.
    """
    checked = {}
    for key, weight in weights.items():
        if weight.is_floating_point():
            weight = weight.float()
            least = 0 if key.endswith("running_var") else -math.inf
            if not (torch.isfinite(weight) & (weight >= least)).all():
                raise ValueError(f"{name} holds numbers in {key} that no training gives.")
        checked[key] = weight
    return checked


def read_model(path: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the weights and the header of a model file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or no model file of this package.
    """
    weights, header, checksum = _read(
        path,
        lambda file: {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
    )
    # safetensors notices no flipped bit, nor a hole that a download has left. Files of before the
    # first release have no checksums.
    if checksum is not None and checksum != _checksum(weights):
        raise ValueError(
            f"{path} was damaged after it was written: its checksum does not fit. Copy it again "
            "from where it came."
        )
    return check_weights(weights, name=str(path)), header


def name_writer(header: Any) -> str:
    """Return in brackets what to do with a header of another version; "" for one of this."""
    try:
        version = header["fitted"]["version"]
    except (KeyError, TypeError):
        return ""
    known = version == __version__
    return "" if known else f" (bloodseg {version} wrote it: use that version, or a newer one)"


def read_header(path: Any) -> dict[str, Any]:
    """Return what a model file says beside its weights, which are not read; as `read_model`."""
    return _read(path, lambda file: {})[1]


def _read(
    path: Any, weights_of: Callable[[Any], dict[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], dict[str, Any], Any]:
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file at {path}.")
    with path.open("rb"):  # of a file that may not be read, safetensors says that there is none
        pass
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(_KEY)
            weights = weights_of(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a model file: it is damaged, cut short or of another "
            f"format ({error}). Save the model again with its `save`."
        ) from error
    if text is None:
        raise ValueError(
            f"{path} is a safetensors file, but was not written by `save` of a bloodseg model."
        )
    header: Any = None
    try:
        header = json.loads(text)
        version = header.pop("format")
        if version == _FORMAT:
            sections = {
                section: {name: from_json(value) for name, value in header[section].items()}
                for section in _SECTIONS
            }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} has a damaged header{name_writer(header)} ({error!r})."
        ) from error
    if version != _FORMAT:
        raise ValueError(
            f"{path} has format {version!r}; this version of bloodseg reads format {_FORMAT}. "
            "Update bloodseg."
        )
    checksum = header.get("header_checksum")
    if checksum is not None and checksum != _checksum_of_header(header):
        raise ValueError(
            f"{path} has a header that was changed after it was written, so that its weights may "
            "mean something else. Load the original, set parameters by `set_params`, and save it "
            "again."
        )
    return weights, sections, header.get("checksum")
