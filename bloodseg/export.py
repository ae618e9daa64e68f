"""Fitted segmenters as ONNX files, for programs without torch and without this package."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ._extras import import_extra
from ._files import check_place, written_whole
from ._version import __version__
from .estimators import BloodCellSegmenter
from .model_selection import share_that_differs
from .ode import FixedStepBlock, ODEBlock, choose_n_steps

__all__ = ["OnnxExport", "to_onnx"]

_OPSET = 17  # the newest that every torch from 2.4 on writes
_AXES = {0: "n", 2: "height", 3: "width"}

# Sides no multiple of the network's stride: what is traced, and another size to check it with.
_TRACED, _CHECKED = (2, 3, 33, 47), (1, 3, 50, 70)
_AGREEMENT = 1e-3  # of logits, relative to the largest; float32 in another order gives about 1e-6

_NOTICE = "Research software, not a medical device."
_INPUT = (
    "images: float32 (n, 3, height, width), RGB in [0, 1], after the preprocessor. Sides of any "
    "length."
)
_SCALED = " Scaled so that red cells are about {:.0f} pixels wide: the file does not do that."
_OUTPUT = "logits: float32 (n, {}, height, width). The class of a pixel is the argmax over axis 1."


@dataclass(frozen=True)
class OnnxExport:
    """What `to_onnx` has written.

    Attributes
    ----------
    path : Path
        The file.
    methods : dict of int to str
        Runge-Kutta method of the ODE-block at each position.
    steps : dict of int to int
        Its number of equal steps.
    changed : float or None
        Share of the pixels of the images, in [0, 1], whose class is not the segmenter's; None
        without images.
    """

    path: Path
    methods: dict[Any, str]
    steps: dict[Any, int]
    changed: float | None


def to_onnx(
    segmenter: BloodCellSegmenter,
    path: Any,
    images: Any = None,
    *,
    steps: int | Mapping[int, int] | None = None,
) -> OnnxExport:
    """Write the network of a fitted segmenter as an ONNX file.

    ONNX has no solver, so the file holds a twin of the network, in float32: each ODE-block takes
    equal steps, as many for every image, of the method that it uses in prediction. The twin is
    checked in onnxruntime against torch before it is written.

    Its input ``images`` is float32 (n, 3, height, width) in [0, 1], after the preprocessor, which
    is not in the file; its output ``logits`` is float32 (n, n_classes, height, width). n, height
    and width may be any. The file's metadata says so, and names classes, steps and the
    preprocessor's parameters.

    Parameters
    ----------
    segmenter : BloodCellSegmenter
        Fitted. It is left as it is.
    path : path
        File to write, by custom ``*.onnx``. Written whole or not at all.
    images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths, optional
        Example images, as for `bloodseg.BloodCellSegmenter.predict`. The solver is watched on them
        for the number of steps, and the file's class maps are compared with the segmenter's.
    steps : int or {position: int}, optional
        Numbers of steps, for all blocks or some of them. The others take as many as the image that
        was hardest for them needs; without images, as many as in the last ``predict``; and if
        there was none, steps as long as the solver's first.

    Returns
    -------
    OnnxExport

    Raises
    ------
    ImportError
        If onnx or onnxruntime is missing.
    OSError
        If the file cannot be written.
    ValueError
        If an argument is not as described, or a network of the user's own cannot be traced.

    Examples
    --------
    >>> import tempfile
    >>> from bloodseg import BloodCellSegmenter
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.export import to_onnx
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> segmenter = BloodCellSegmenter(width=4, max_epochs=1, crop_size=32, random_state=0)
    >>> segmenter = segmenter.fit(smears.images, smears.masks)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = to_onnx(segmenter, f"{folder}/cells.onnx", smears.images, steps=2)
    >>> written.steps, written.changed < 0.01
    ({4: 2, 5: 2, 6: 2}, True)
    """
    for package in ("onnx", "onnxruntime"):
        _imported(package)
    _check_segmenter(segmenter)
    path = check_place(path, "The network")
    model = copy.copy(segmenter)  # predicts below; what it has predicted last is its own
    maps = None if images is None else model.predict(images)
    network = model._copy_network(device="cpu", precision="float32").network
    blocks = _blocks(network)
    chosen = _chosen_steps(blocks, getattr(model, "n_function_evaluations_", {}), steps)
    described: dict[Any, dict[str, Any]] = {
        position: {
            "method": block.method_at(block.predict_tol),
            "steps": chosen[position],
            "tolerance": block.predict_tol,
        }
        for position, block in blocks.items()
    }
    _fix_steps(network, blocks, chosen)
    changed = None
    with written_whole(path) as unfinished:
        _write(network, unfinished, _metadata(model, described))
        runtime = _OnnxNetwork(unfinished)
        _check_agreement(network, runtime)
        if maps is not None:
            model.set_params(device="cpu").network_ = runtime
            changed = share_that_differs(maps, model.predict(images))
    methods = {position: block["method"] for position, block in described.items()}
    return OnnxExport(path, methods, chosen, changed)


def _imported(package: str) -> Any:
    return import_extra(package, extra="onnx", need="ONNX files need onnx and onnxruntime")


def _check_segmenter(segmenter: Any) -> None:
    if not isinstance(segmenter, BloodCellSegmenter):
        raise ValueError(
            f"segmenter must be a BloodCellSegmenter; got {type(segmenter).__name__}. Of a search "
            "pass its best_estimator_, of a Pipeline the last step."
        )
    check_is_fitted(segmenter, "network_")


def _blocks(network: nn.Module) -> dict[Any, ODEBlock]:
    """Return the ODE-blocks by position; in a network of the user's own, by the module's name."""
    of_unet: Mapping[int, nn.Module] = getattr(network, "ode_blocks", {})
    positions = {id(block): position for position, block in of_unet.items()}
    return {
        positions.get(id(module), name): module
        for name, module in network.named_modules()
        if isinstance(module, ODEBlock)
    }


def _chosen_steps(
    blocks: Mapping[Any, ODEBlock], evaluations: Mapping[Any, Any], given: Any
) -> dict[Any, int]:
    """Return the number of steps of each block: as given, or as its evaluations suggest."""
    chosen = {
        position: choose_n_steps(
            block, int(max(evaluations[position])) if position in evaluations else None
        )
        for position, block in blocks.items()
    }
    if given is None:
        return chosen
    given = given if isinstance(given, Mapping) else dict.fromkeys(blocks, given)
    for position, number in given.items():
        if position not in blocks:
            raise ValueError(
                f"steps must be of the positions of ODE-blocks, {list(blocks)}; got {position!r}."
            )
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise ValueError(f"steps must be whole numbers of at least 1; got {number!r}.")
    return chosen | {position: int(number) for position, number in given.items()}


def _fix_steps(
    network: nn.Module, blocks: Mapping[Any, ODEBlock], steps: Mapping[Any, int]
) -> None:
    """Put blocks of fixed steps in the place of a network's ODE-blocks."""
    twins = {
        id(block): FixedStepBlock(block.func, block.tableau_at(block.predict_tol), steps[position])
        for position, block in blocks.items()
    }
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in twins:
                setattr(parent, name, twins[id(child)])


def _metadata(model: BloodCellSegmenter, blocks: Mapping[Any, Any]) -> dict[str, str]:
    """Return what the file says of itself."""
    preprocessor = model.preprocessor_
    described = None
    if preprocessor is not None:
        described = {"class": type(preprocessor).__name__, **preprocessor.get_params(deep=False)}
    scaled = "" if model.red_cell_diameter is None else _SCALED.format(model.red_cell_diameter_)
    return {
        "bloodseg_version": __version__,
        "notice": _NOTICE,
        "input": _INPUT + scaled,
        "output": _OUTPUT.format(len(model.class_names_)),
        "classes": json.dumps(model.class_names_),
        "ode_blocks": json.dumps(blocks),
        "preprocessor": json.dumps(described, default=repr),
        "red_cell_diameter": json.dumps(model.red_cell_diameter_),
    }


def _write(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a network as an ONNX file for any number and size of images."""
    with warnings.catch_warnings():
        # The exporter by tracing is called old, and tracing that it bakes in Python's decisions.
        # The new one takes minutes to reason about padded sizes, and then wants sides of at least
        # 17 pixels. What is baked in wrongly, the check on another size finds.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(_TRACED),),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": _AXES, "logits": _AXES},
            opset_version=_OPSET,
        )
    onnx = _imported("onnx")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, path)


class _OnnxNetwork(nn.Module):
    """An ONNX file in onnxruntime, in place of a segmenter's network."""

    def __init__(self, path: Path):
        super().__init__()
        runtime = _imported("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __deepcopy__(self, memo: Any) -> _OnnxNetwork:
        return self  # a session cannot be copied, and prediction changes nothing in it

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        (logits,) = self._session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits)


def _check_agreement(network: nn.Module, runtime: nn.Module) -> None:
    """Raise a ValueError unless onnxruntime gives the network's logits for another size, too."""
    images = torch.rand(_CHECKED, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = network(images), runtime(images)
    agree = got.shape == expected.shape
    if not agree or (got - expected).abs().max() > _AGREEMENT * expected.abs().max():
        raise ValueError(
            "the network cannot be exported: traced on one image size, it gives other logits in "
            "onnxruntime than in torch on another. Its forward must not decide by Python's if, or "
            "by numpy, on sizes or values."
        )
