"""A network that only predicts: a copy of the fitted one, run on whole images or on tiles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from .._hardware import choose_precision
from .._images import CLASS_NAMES, STRIDE
from .._typing import Tolerances
from ..networks import (
    NODEsUNet,
    OptimisticPass,
    adapt_statistics,
    copy_with_shared_weights,
    image_tensor,
    prepare_for_prediction,
    unet_of,
)
from ._magnification import weigh_answer

# "auto": images of more pixels than this go through the network in tiles of at most these sides.
# On a CPU larger tiles are no faster, and take more memory.
_WHOLE_PIXELS = 2**20
_SIDES = {"cpu": 768, "cuda": 1024}
_MIN_SIDE = 64


@dataclass(eq=False)  # joblib wants it hashable
class TileNetwork:
    """A network as a function of pixels, which can be sent to other processes.

    Attributes
    ----------
    network : Module
        In evaluation mode; from images (n, 3, H, W) in [0, 1] to logits (n, n_classes, H, W).
    device : device
        Where it runs.
    classes : tuple of str
        Names of the classes.
    unprepared : callable, optional
        Returns the same network with its normalisation apart, to be adapted; None of one of the
        user's own.
    forward : OptimisticPass
        The network, as it is called.
    """

    network: nn.Module
    device: torch.device
    classes: tuple[str, ...] = CLASS_NAMES
    unprepared: Callable[[], nn.Module] | None = None
    forward: OptimisticPass = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.forward = OptimisticPass(self.network)

    @classmethod
    def copy_of(
        cls,
        network: nn.Module,
        *,
        device: torch.device,
        precision: str,
        ode_tol: Tolerances,
        predict_ode_tol: Tolerances | None,
        classes: tuple[str, ...] = CLASS_NAMES,
    ) -> TileNetwork:
        """Copy a fitted network, which stays as it is, and set the copy up for prediction.

        Weights are not copied where they can be shared: none may be written to while this predicts.

        Parameters
        ----------
        network : Module
            The fitted network.
        device : device
            Where the copy shall run.
        precision : {"auto", "float32", "bfloat16"}
            What its convolutions compute in; a network of the user's own decides for itself.
        ode_tol, predict_ode_tol
            Tolerances of training, and of prediction where they differ, as `NODEsUNet` takes them.
        classes : tuple of str
            Names of the classes.
        """
        if unet_of(network) is None:  # nobody knows what it writes to when it is called
            return cls(copy.deepcopy(network).to(device).eval(), device, classes)
        copied = partial(
            _copy_set_up,
            network,
            device=device,
            precision=choose_precision(device, precision),
            ode_tol=ode_tol,
            predict_ode_tol=ode_tol if predict_ode_tol is None else predict_ode_tol,
        )
        return cls(prepare_for_prediction(copied()), device, classes, unprepared=copied)

    def adapted_to(self, views: Sequence[np.ndarray], share: float) -> TileNetwork | None:
        """Return a network whose normalisation leans towards an image, None where it can't.

        Of the image there are views of one size.
        """
        if self.unprepared is None:
            return None
        images = torch.stack([image_tensor(pixels) for pixels in views]).to(self.device)
        adapted = adapt_statistics(self.unprepared(), images, share)
        return replace(self, network=prepare_for_prediction(adapted))

    @property
    def precision(self) -> str:
        """What the convolutions compute in; that of a network of the user's own is not known."""
        return getattr(unet_of(self.network), "precision", "float32")

    @property
    def tolerances(self) -> dict[int, float]:
        """Tolerances of the ODE-blocks by position."""
        blocks: dict[int, Any] = getattr(self.network, "ode_blocks", {})
        return {position: block.predict_tol for position, block in blocks.items()}

    def decide_compilation(self, compile: bool | str, n_pixels: int, n_images: int) -> None:
        """Say which blocks compile their sums, for so many images of so many pixels."""
        unet = unet_of(self.network)
        if isinstance(unet, NODEsUNet):
            unet.decide_compilation(compile, n_pixels, n_images)

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
        """Return logits (n_classes, h, w) and the evaluations of f at each position.

        Raises
        ------
        FloatingPointError
            If a pixel's logits are NaN or infinite: they would look like a class that is certain.
        """
        with torch.inference_mode():
            logits, evaluations = self.forward(image_tensor(pixels)[None].to(self.device))
            finite = torch.isfinite(logits.amax(dim=1)).all()  # a class may be ruled out by -inf
        if not finite:
            raise FloatingPointError(
                "the network's answer is not finite: weights are damaged or far too large. Train "
                "it again, with a lower learning_rate."
            )
        counts = {position: int(each[0]) for position, each in evaluations.items()}
        return logits[0].float().cpu().numpy(), counts

    def measure_sureness(self, pixels: np.ndarray, diameter: float) -> float:
        """Return how far what the network sees in a small image speaks for its size."""
        return weigh_answer(softmax(self(pixels)[0], axis=0), diameter, self.classes)


def _copy_set_up(
    network: Any,
    *,
    device: torch.device,
    precision: str,
    ode_tol: Tolerances,
    predict_ode_tol: Tolerances,
) -> Any:
    """Return a network of the package with the weights of one that stays as it is."""
    copied = copy_with_shared_weights(network, functions_too=True).to(device).eval()
    unet: Any = unet_of(copied)
    unet.precision = precision
    if isinstance(unet, NODEsUNet):
        unet.set_tolerances(ode_tol, predict_ode_tol)
    return copied


@contextmanager
def explain_memory_errors(
    label: str,
    shape: tuple[int, ...],
    cure: str = "use a smaller tile_size, or a narrower network",
) -> Iterator[None]:
    """Turn torch's way to run out of memory into a MemoryError that names image and cure."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(sign in text for sign in ("allocate memory", "enough memory", "out of memory")):
            raise
        height, width = shape[:2]
        raise MemoryError(
            f"{label} of {height} x {width} pixels does not fit into memory; {cure}."
        ) from error


def tile_side(side: Any, shape: tuple[int, ...], device: torch.device) -> int | None:
    """Return the side of the tiles for an image, None where it goes through the network whole."""
    height, width = shape[:2]
    if side is None:
        return None
    if side == "auto":
        return _SIDES.get(device.type, _SIDES["cpu"]) if height * width > _WHOLE_PIXELS else None
    return int(side) if max(height, width) > side else None


def check_tile_size(side: Any) -> None:
    """Raise a ValueError where tiles of this side cannot be."""
    if side is None or side == "auto":
        return
    whole = isinstance(side, Integral) and not isinstance(side, bool)
    if not whole or side < _MIN_SIDE or side % STRIDE:
        raise ValueError(
            f"tile_size must be 'auto', None, or a multiple of {STRIDE} of at least {_MIN_SIDE}; "
            f"got {side!r}."
        )
