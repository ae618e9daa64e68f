"""BloodCellSegmenter: images in, class maps out, behind scikit-learn's estimator API."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state, metadata_routing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ._fit_inputs import (
    N_CLASSES,
    check_groups,
    check_sample_weight,
    check_validation,
    class_weights,
    fingerprint,
    split_images,
)
from ._hardware import PRECISIONS, choose_device, choose_precision
from ._images import check_images, check_masks, in_container_of
from ._map_files import check_output, write_map
from ._model_file import read_model, write_model
from ._new_network import new_network
from ._segmentation import (
    LabelRows,
    Segmentation,
    Segmented,
    TileNetwork,
    check_sources,
    pixel_size_of,
    prepared_rows,
    tile_side,
)
from ._version import __version__
from .cells import Cells, check_pixel_size
from .datasets import Slide, open_slide
from .metrics import mean_iou
from .networks import (
    NETWORKS,
    NODEsUNet,
    UNet,
    check_positions,
    for_prediction,
    resolve_tolerances,
)
from .ode import GRADIENTS, METHODS, one_warning_each
from .preprocessing import Preprocessor
from .training import (
    Checkpoint,
    TrainingData,
    TrainingSettings,
    image_tensor,
    make_accelerator,
    shared_seed,
    train_network,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("bloodseg")

# Parameters that steer where and how a fit runs, not what comes out of it: a checkpoint taken
# with other values of these may be gone on from.
NOT_OF_THE_RESULT = (
    "accelerator",
    "checkpoint_dir",
    "compile",
    "device",
    "n_jobs",
    "pixel_size",
    "precision",
    "predict_ode_tol",
    "tile_size",
    "verbose",
)

# What a model file holds beside weights and parameters, of which types; the rest follows from it.
_SAVED_ATTRIBUTES: dict[str, Any] = {
    "architecture_": dict,
    "best_epoch_": int,
    "history_": list,
    "ode_first_step_": dict,
    "ode_tol_": dict,
    "preprocessor_": (Preprocessor, type(None)),
}

# Parameters that a model file neither keeps nor may set: whoever sends one has no say in where
# this machine reads and writes.
_NOT_SAVED = ("accelerator", "checkpoint_dir", "pretrained", "verbose")

# What the network is built from; kept apart from the parameters, which may change after fit.
_ARCHITECTURE = (
    "network",
    "width",
    "dropout",
    "ode_positions",
    "ode_tol",
    "ode_method",
    "ode_gradient",
)


_CALIBRATION_CROPS = 4


class BloodCellSegmenter(BaseEstimator):
    """Segment blood smears into background (0), white cells (1) and red cells (2).

    A `Preprocessor` enhances the images' contrast, and a U-Net with neural-ODE blocks, the
    paper's NODEs-UNet [1]_, labels every pixel.

    Parameters
    ----------
    preprocessor : "default", transformer or None, default="default"
        What images go through first: ``Preprocessor()``, another transformer of images, or
        nothing. To search over its parameters, pass ``Preprocessor()`` itself.
    network : {"nodes-unet", "unet", "resnet-unet"} or callable, default="nodes-unet"
        The network, or a callable without arguments that returns a `torch.nn.Module` from
        float32 images (n, 3, H, W) in [0, 1] to logits (n, 3, H, W), for any H and W.
    pretrained : path, optional
        Saved model whose weights training starts from; its network must be the same.
    ode_positions : tuple of int, default=(4, 5, 6)
        Which of the nine stages are ODE-blocks (1 to 4 down, 5 the bottom, 6 to 9 up).
        ``()`` is a U-Net. Used by ``"nodes-unet"``.
    ode_tol : float, dict, tuple or "paper", default=1e-3
        Error tolerance of the solver in training: a number, ``{position: number}``, a tuple as
        long as ``ode_positions``, or ``"paper"`` (1e-6 at position 5 and 1e-4 elsewhere).
    predict_ode_tol : float, dict, tuple or "paper", optional
        The same for prediction; None takes what ``fit`` used. Takes effect without fitting again.
    ode_method : str, default="auto"
        Runge-Kutta method; ``"auto"`` picks by tolerance, see `bloodseg.ode.choose_method`.
    ode_gradient : {"checkpoint", "direct", "adjoint"}, default="checkpoint"
        How gradients pass the solver, see `bloodseg.ode.solve`.
    width : int, default=32
        Channels of the first stage; all others scale with it.
    dropout : float in [0, 1), default=0.1
        Probability of dropout after each pooling.
    loss : {"cross_entropy", "cross_entropy+dice"}, default="cross_entropy"
        Training loss.
    class_weight : "balanced", dict or sequence of 3 floats, optional
        Weight of each class in the cross-entropy; the keys of a dict are labels or names
        (``{"white": 3}``), missing ones count 1. White cells are rare: weigh them up to miss
        fewer.
    max_epochs : int, default=50
        Epochs of training; an epoch draws as many crops as cover the training images once.
    batch_size : int, default=4
        Crops a training step, in each process.
    learning_rate : float, default=2e-3
        Highest learning rate of AdamW: reached after a short warm-up, then falling as a cosine.
    crop_size : int, default=128
        Side of the training crops in pixels, at least 32.
    augment : bool, default=True
        Flip, turn, scale, warp, and vary brightness, colour and stain of the crops.
    validation_fraction : float in (0, 1), default=0.25
        Share of the images (or groups) held out to find the best epoch; None trains on all
        images and keeps the last weights. Not used where ``fit`` is given ``X_val``.
    early_stopping : bool, default=False
        Stop after `patience` epochs without a lower validation loss.
    patience : int, default=10
        See ``early_stopping``.
    checkpoint_dir : path, optional
        Folder for checkpoints, written after each epoch. The same fit on the same data goes on
        from them, to the weights it would have had without the break; a finished one is returned
        at once. Files are named by what is trained, so searches can share a folder.
    warm_start : bool, default=False
        Start from the weights of the last fit.
    device : str, default="auto"
        ``"auto"`` (CUDA where there is one) or a torch device.
    compile : bool or "auto", default="auto"
        Whether `torch.compile` fuses the sums of the ODE-solver. It takes some ten seconds and pays
        for large states (positions 1 to 3 and 7 to 9) in long jobs: "auto" decides from the sizes.
        Where there is no compiler, the reason is logged and the solver goes on without.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the convolutions; ``"auto"`` is bfloat16 where the hardware is faster at it.
    accelerator : accelerate.Accelerator or True, optional
        Train in several processes through Hugging Face Accelerate; True makes an Accelerator
        in ``fit``. Start the script with ``accelerate launch`` or ``torchrun``.
    tile_size : int, "auto" or None, default="auto"
        Side of the tiles, in pixels, that large images go through the network in, a multiple of
        16. ``"auto"`` takes tiles for images of more than a megapixel; None takes none. Takes
        effect without fitting again, as do the following two.
    pixel_size : float, optional
        Side of a pixel in micrometres, for counts by area and sizes; by default what an image's
        file says, where it is given as one.
    n_jobs : int, optional
        Threads that preprocess images; None is 1, -1 all cores.
    random_state : int, RandomState instance or None, default=None
        Fixes weights, split, crops and augmentation. With an int, fits on one CPU are equal to
        the bit.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    network_ : Module
        The fitted network, in evaluation mode.
    preprocessor_ : transformer or None
        The fitted preprocessor.
    classes_ : ndarray of shape (3,)
        The labels 0, 1 and 2.
    architecture_ : dict
        The parameters that the network was built from.
    history_ : list of dict
        One row an epoch: train_loss, valid_loss, valid_mean_iou, evaluations_P (mean evaluations
        of f for an image, at each ODE-position P), learning_rate, seconds.
    best_epoch_ : int
        The epoch, from 1, whose weights were kept.
    precision_, ode_method_ : str, dict of int to str
        What "auto" stood for in fit.
    ode_tol_ : dict of int to float
        Tolerances of training.
    ode_first_step_ : dict of int to float or None
        First step that each ODE-block tries in prediction at its training tolerance, found at the
        end of fit; None is the solver's choice.
    n_function_evaluations_ : dict of int to ndarray of shape (n,)
        Evaluations of f at each position for each image of the last predict; of an image in tiles,
        the most of any tile.

    References
    ----------
    .. [1] "Blood Smear Image Segmentation by Combining Neural Ordinary Differential Equations
       (NODEs) with U-Net", Computational and Mathematical Methods in Medicine.

    Examples
    --------
    >>> from bloodseg import BloodCellSegmenter
    >>> from bloodseg.datasets import make_smears
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> segmenter = BloodCellSegmenter(width=4, max_epochs=1, crop_size=32, random_state=0)
    >>> segmenter.fit(smears.images, smears.masks).predict(smears.images).shape
    (4, 64, 64)
    """

    # scikit-learn reads metadata off the signatures; these are the data themselves.
    __metadata_request__fit = {  # noqa: RUF012
        "images": metadata_routing.UNUSED,
        "masks": metadata_routing.UNUSED,
    }
    __metadata_request__predict = {"images": metadata_routing.UNUSED}  # noqa: RUF012
    __metadata_request__predict_proba = {"images": metadata_routing.UNUSED}  # noqa: RUF012
    __metadata_request__score = {  # noqa: RUF012
        "images": metadata_routing.UNUSED,
        "masks": metadata_routing.UNUSED,
    }

    _parameter_constraints: dict = {  # noqa: RUF012
        "preprocessor": [StrOptions({"default"}), HasMethods(["transform", "get_params"]), None],
        "network": [StrOptions(set(NETWORKS)), callable],
        "pretrained": [str, Path, None],
        "ode_positions": ["array-like"],
        "ode_tol": [Real, dict, "array-like", StrOptions({"paper"})],
        "predict_ode_tol": [Real, dict, "array-like", StrOptions({"paper"}), None],
        "ode_method": [StrOptions({"auto", *METHODS})],
        "ode_gradient": [StrOptions(set(GRADIENTS))],
        "width": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "loss": [StrOptions({"cross_entropy", "cross_entropy+dice"})],
        "class_weight": [StrOptions({"balanced"}), dict, "array-like", None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "crop_size": [Interval(Integral, 32, None, closed="left")],
        "augment": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "early_stopping": ["boolean"],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "checkpoint_dir": [str, Path, None],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions(set(PRECISIONS))],
        "compile": ["boolean", StrOptions({"auto"})],
        "accelerator": [HasMethods(["prepare", "reduce"]), "boolean", None],
        "tile_size": [Integral, StrOptions({"auto"}), None],
        "pixel_size": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        preprocessor: Any = "default",
        network: str | Callable[[], nn.Module] = "nodes-unet",
        pretrained: str | Path | None = None,
        ode_positions: Any = (4, 5, 6),
        ode_tol: Any = 1e-3,
        predict_ode_tol: Any = None,
        ode_method: str = "auto",
        ode_gradient: str = "checkpoint",
        width: int = 32,
        dropout: float = 0.1,
        loss: str = "cross_entropy",
        class_weight: Any = None,
        max_epochs: int = 50,
        batch_size: int = 4,
        learning_rate: float = 2e-3,
        crop_size: int = 128,
        augment: bool = True,
        validation_fraction: float | None = 0.25,
        early_stopping: bool = False,
        patience: int = 10,
        checkpoint_dir: str | Path | None = None,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        compile: bool | str = "auto",
        accelerator: Any = None,
        tile_size: int | str | None = "auto",
        pixel_size: float | None = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.preprocessor = preprocessor
        self.network = network
        self.pretrained = pretrained
        self.ode_positions = ode_positions
        self.ode_tol = ode_tol
        self.predict_ode_tol = predict_ode_tol
        self.ode_method = ode_method
        self.ode_gradient = ode_gradient
        self.width = width
        self.dropout = dropout
        self.loss = loss
        self.class_weight = class_weight
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.crop_size = crop_size
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.compile = compile
        self.accelerator = accelerator
        self.tile_size = tile_size
        self.pixel_size = pixel_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @one_warning_each()
    def fit(
        self,
        images: Any,
        masks: Any,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> BloodCellSegmenter:
        """Train the network.

        Ctrl-C ends training early and leaves a fitted model with the best weights so far.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3) or list of (H, W, 3) ndarrays
            RGB, uint8 or floating point in [0, 1]; grey, RGBA, bool and uint16 are converted.
        masks : ndarray of shape (n, H, W) or list of (H, W) ndarrays
            Labels: 0 background, 1 white cells, 2 red cells.
        groups : array-like of shape (n,), optional
            Images of one group, such as fields of one slide, stay on one side of the validation
            split.
        sample_weight : array-like of shape (n,), optional
            Weight of each image in the loss, not negative.
        X_val, y_val : images and masks, optional
            Validation data instead of a split.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, an image or a label map is not as described.
        """
        self._check_parameters()
        arrays = check_images(images)
        labels = check_masks(masks, images=arrays)
        weights = check_sample_weight(sample_weight, len(arrays))
        validation = check_validation(X_val, y_val)
        groups = check_groups(groups, len(arrays))
        accelerator = make_accelerator(self.accelerator)
        device = choose_device(self.device) if accelerator is None else accelerator.device

        seed = shared_seed(check_random_state(self.random_state), accelerator)
        start = self._starting_weights()
        checkpoint = None
        if self.checkpoint_dir is not None:
            name = self._fingerprint(arrays, labels, groups, weights, validation, start)
            folder = Path(self.checkpoint_dir).expanduser()
            checkpoint = Checkpoint(folder / f"{name}.pt", seed=seed)
            seed = checkpoint.seed

        fraction = None if validation is not None else self.validation_fraction
        train, held_out = split_images(len(arrays), groups, fraction, seed)
        if not weights[train].any():
            raise ValueError(
                "sample_weight must be above zero for a training image; it is for none "
                "(validation_fraction may hold out those that have a weight)."
            )
        preprocessor = self._new_preprocessor()
        if hasattr(preprocessor, "fit"):
            preprocessor.fit([arrays[i] for i in train], [labels[i] for i in train])
        training = _training_data(preprocessor, arrays, labels, weights, train)
        valid = None
        if validation is not None:
            valid = _training_data(preprocessor, *validation)
        elif len(held_out):
            valid = _training_data(preprocessor, arrays, labels, weights, held_out)

        architecture = {name: getattr(self, name) for name in _ARCHITECTURE}
        network = new_network(architecture, seed, start)
        _placed(network, device)
        self._set_precision(network, device)
        self._decide_compilation(network, self.crop_size**2, self.max_epochs * len(train))
        history, best_epoch = train_network(
            network,
            training,
            valid,
            TrainingSettings(
                max_epochs=self.max_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                crop_size=self.crop_size,
                augment=self.augment,
                loss=self.loss,
                class_weight=class_weights(self.class_weight, training.masks, training.weights),
                patience=self.patience if self.early_stopping else None,
                seed=seed,
                device=device,
                checkpoint=checkpoint,
                accelerator=accelerator,
                verbose=self.verbose,
            ),
        )
        if isinstance(network, NODEsUNet):
            _calibrate(network, valid or training, self.crop_size, device)
        self.preprocessor_ = preprocessor
        self.best_epoch_ = best_epoch
        self.architecture_ = architecture
        self._take_over(network, history)
        return self

    @one_warning_each()
    def predict(self, images: Any) -> Any:
        """Label every pixel: 0 background, 1 white cells, 2 red cells.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `fit`; or files, see `bloodseg.datasets.open_slide`.

        Returns
        -------
        ndarray of uint8 of shape (n, H, W), or list of (H, W) ndarrays
            Array for an array, list for a list. An image's map does not depend on the others.
        """
        maps = [segmented.class_map[:] for segmented in self.segment(images)]
        return in_container_of(maps, images)

    @one_warning_each()
    def predict_proba(self, images: Any) -> Any:
        """Give every pixel the probabilities of its classes.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`.

        Returns
        -------
        ndarray of float32 of shape (n, H, W, 3), or list of (H, W, 3) ndarrays
            Probabilities in the order of ``classes_``; they add up to 1.
        """
        segmentation, sources = self._start(images)
        maps = []
        for _, source, prepared in sources:
            probabilities = np.empty((*source.shape[:2], N_CLASSES), np.float32)
            for rows, columns, logits in segmentation.logits(prepared):
                probabilities[rows, columns] = np.moveaxis(softmax(logits, axis=0), 0, -1)
            maps.append(probabilities)
        self.n_function_evaluations_ = segmentation.evaluations()
        return in_container_of(maps, images)

    def segment(self, images: Any) -> Iterator[Segmented]:
        """Yield each image with its class map, for all that is to be had from one prediction.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.

        Yields
        ------
        Segmented
            ``name``, ``image``, ``class_map``, ``confidence`` and ``pixel_size``; of a file,
            image and maps are read by rows, as ``class_map[top:bottom]``. Its methods ``cells``,
            ``count`` and ``measure`` give what those of this class give.
        """
        segmentation, sources = self._start(images)
        for name, source, prepared in sources:
            class_map, confidence = segmentation.maps(prepared, on_disk=isinstance(source, Slide))
            self.n_function_evaluations_ = segmentation.evaluations()
            pixel_size = pixel_size_of(source, self.pixel_size)
            yield Segmented(name, source, class_map, confidence, pixel_size)

    def predict_instances(self, images: Any) -> list[Cells]:
        """Find the single cells.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.

        Returns
        -------
        list of Cells
            One an image: ``labels`` (H, W), int32, and for each cell its class, its score and
            whether it touches the border; see `bloodseg.cells.Cells`.
        """
        return [segmented.cells() for segmented in self.segment(images)]

    def count(self, images: Any) -> pd.DataFrame:
        """Count the cells.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.

        Returns
        -------
        DataFrame
            One row an image: ``image`` (the path, or the place in the batch), ``white``, ``red``;
            where the size of a pixel is known, ``area_mm2``, ``white_per_mm2`` and
            ``red_per_mm2`` too.
        """
        import pandas as pd

        return pd.DataFrame([segmented.count() for segmented in self.segment(images)])

    def measure(self, images: Any, *, outlines: bool = False) -> pd.DataFrame:
        """Measure the cells.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.
        outlines : bool
            Add the cells' outlines, for `bloodseg.cells.to_geojson` and `bloodseg.cells.to_coco`.

        Returns
        -------
        DataFrame
            One row a cell: ``image`` (the path, or the place in the batch) and the columns of
            `bloodseg.cells.measure_cells`. Sizes are in micrometres where the size of a pixel is
            known.
        """
        import pandas as pd

        tables = [segmented.measure(outlines=outlines) for segmented in self.segment(images)]
        return pd.concat(tables, ignore_index=True)

    def predict_file(self, path: Any, output: Any, *, kind: str = "classes") -> None:
        """Label an image of any size from file to file, in bounded memory.

        Parameters
        ----------
        path : path
            TIFF, OME-TIFF, Zarr or another image; see `bloodseg.datasets.open_slide`.
        output : path
            File to write, ``*.tif`` (compressed) or ``*.zarr``.
        kind : {"classes", "instances"}
            The class map, uint8, or the label image of `predict_instances`, int32.

        Raises
        ------
        FileExistsError
            If the output is there already.
        ValueError
            If an argument is not as described.
        """
        if kind not in ("classes", "instances"):
            raise ValueError(f"kind must be 'classes' or 'instances'; got {kind!r}.")
        output = check_output(output)
        (segmented,) = self.segment([open_slide(path)])
        rows = segmented.class_map if kind == "classes" else LabelRows.of(segmented)
        dtype = np.uint8 if kind == "classes" else np.int32
        write_map(output, rows, dtype=dtype, pixel_size=segmented.pixel_size)

    def score(self, images: Any, masks: Any) -> float:
        """Return the mean IoU over all pixels of all images, in [0, 1].

        A class absent from both masks and predictions is left out of the mean.
        """
        return mean_iou(masks, self.predict(images))

    def _start(self, images: Any) -> tuple[Segmentation, Iterator[tuple[Any, Any, Any]]]:
        """Set the network up for prediction as the parameters say.

        Returns it with the name of each image, the image, and what the network gets of it.
        """
        check_is_fitted(self, "network_")
        check_pixel_size(self.pixel_size)
        sources = check_sources(images)
        network: Any = self.network_
        device = choose_device(self.device)
        if getattr(network, "ode_blocks", {}):
            network.set_tolerances(
                self.ode_tol_,
                self.ode_tol_ if self.predict_ode_tol is None else self.predict_ode_tol,
            )
        network.to(device).eval()
        self._set_precision(network, device)
        if isinstance(network, UNet):
            height, width = sources[0][1].shape[:2]
            side = tile_side(self.tile_size, (height, width), device)
            n_pixels = height * width if side is None else side**2
            self._decide_compilation(network, n_pixels, len(sources) * height * width // n_pixels)
            network = for_prediction(network)
        segmentation = Segmentation(TileNetwork(network, device), self.tile_size, self.verbose)
        return segmentation, self._prepared(sources)

    def _prepared(self, sources: list[tuple[Any, Any]]) -> Iterator[tuple[Any, Any, Any]]:
        """Yield name, image and preprocessed image; of files, what reads them by rows."""
        arrays = [source for _, source in sources if not isinstance(source, Slide)]
        changed = iter(_transformed(self.preprocessor_, arrays) if arrays else [])
        for name, source in sources:
            if isinstance(source, Slide):
                yield name, source, prepared_rows(self.preprocessor_, source)
            else:
                yield name, source, next(changed)

    def save(self, path: Any) -> None:
        """Save the fitted model: weights in safetensors, parameters as JSON in its header.

        Parameters
        ----------
        path : path
            File to write, by custom ``*.safetensors``. Written whole or not at all.

        Raises
        ------
        ValueError
            If a parameter is something that JSON can't hold, such as a callable network.
        """
        check_is_fitted(self, "network_")
        parameters = self.get_params(deep=False)
        for name in _NOT_SAVED:
            del parameters[name]
        fitted = {name: getattr(self, name) for name in _SAVED_ATTRIBUTES}
        header = {"parameters": parameters, "fitted": fitted | {"version": __version__}}
        write_model(path, self.network_.state_dict(), header)

    @classmethod
    def load(cls, path: Any) -> BloodCellSegmenter:
        """Load a model that `save` wrote. Nothing in the file is executed.

        A device that this machine lacks is replaced by "auto".

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        BloodCellSegmenter

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or not a model file of this package.
        """
        weights, header = read_model(path)
        try:
            given = header["parameters"].items()
            segmenter = cls(**{name: value for name, value in given if name not in _NOT_SAVED})
            fitted = header["fitted"]
            for name, kinds in _SAVED_ATTRIBUTES.items():
                if not isinstance(fitted[name], kinds):
                    raise TypeError(f"{name} is {fitted[name]!r}")
                setattr(segmenter, name, fitted[name])
            network = new_network(segmenter.architecture_, seed=0, start=weights)
            if isinstance(network, NODEsUNet):
                network.set_tolerances(fitted["ode_tol_"])
                network.set_first_steps(fitted["ode_first_step_"])
            if segmenter.precision not in PRECISIONS:
                raise ValueError(f"precision is {segmenter.precision!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not hold a model that bloodseg {__version__} knows: {error}"
            ) from error
        try:
            device = choose_device(segmenter.device)
        except ValueError as error:
            logger.warning("%s Using device='auto'.", error)
            device = choose_device(segmenter.set_params(device="auto").device)
        _placed(network, device)
        segmenter._set_precision(network, device)
        segmenter._take_over(network, segmenter.history_)
        return segmenter

    def _set_precision(self, network: nn.Module, device: torch.device) -> None:
        """Decide the precision of the package's networks; a callable's own is its own affair."""
        self.precision_ = "float32"
        if isinstance(network, UNet):
            self.precision_ = network.precision = choose_precision(device, self.precision)

    def _decide_compilation(self, network: nn.Module, n_pixels: int, n_images: int) -> None:
        if isinstance(network, NODEsUNet):
            network.decide_compilation(self.compile, n_pixels, n_images)

    def _take_over(self, network: nn.Module, history: list[dict]) -> None:
        """Set the attributes of a fitted model."""
        self.network_ = network.eval()
        self.history_ = history
        self.classes_ = np.arange(N_CLASSES)
        blocks = getattr(network, "ode_blocks", {})
        self.ode_tol_ = {position: block.tol for position, block in blocks.items()}
        self.ode_first_step_ = {position: block.first_step for position, block in blocks.items()}
        self.ode_method_ = {
            position: block.method_at(block.tol) for position, block in blocks.items()
        }

    def _check_parameters(self) -> None:
        self._validate_params()
        positions = check_positions(self.ode_positions)
        resolve_tolerances(self.ode_tol, positions)
        if self.predict_ode_tol is not None:
            resolve_tolerances(self.predict_ode_tol, positions, name="predict_ode_tol")

    def _starting_weights(self) -> dict[str, np.ndarray] | None:
        if self.warm_start and hasattr(self, "network_"):
            weights = self.network_.state_dict()
        elif self.pretrained is not None:
            weights = read_model(self.pretrained)[0]
        else:
            return None
        return {name: weight.cpu().numpy() for name, weight in weights.items()}

    def _fingerprint(self, *data: Any) -> str:
        parameters = {
            name: value
            for name, value in self.get_params().items()
            if name.split("__")[-1] not in NOT_OF_THE_RESULT and name != "preprocessor"
        }
        # By class and parameters, not whole: its n_jobs is no part of the result.
        parameters["preprocessor"] = (
            self.preprocessor if isinstance(self.preprocessor, str) else type(self.preprocessor)
        )
        return fingerprint(parameters, *data)

    def _new_preprocessor(self) -> Any:
        if isinstance(self.preprocessor, str):
            return Preprocessor(n_jobs=self.n_jobs)
        return None if self.preprocessor is None else clone(self.preprocessor)

    def set_params(self, **params: Any) -> BloodCellSegmenter:
        """Set parameters, those of a `Preprocessor` instance as ``preprocessor__clip_limit``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        nested = [name for name in params if name.startswith("preprocessor__")]
        preprocessor = params.get("preprocessor", self.preprocessor)
        if nested and not hasattr(preprocessor, "set_params"):
            raise ValueError(
                f"{nested[0]} needs a transformer to set it on, and preprocessor is "
                f"{preprocessor!r}; pass preprocessor=Preprocessor() to BloodCellSegmenter first."
            )
        return super().set_params(**params)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, weights on the CPU so that it loads without a GPU."""
        state = super().__getstate__()
        network = state.get("network_")
        if network is not None and any(w.device.type != "cpu" for w in network.parameters()):
            state = state | {"network_": copy.deepcopy(network).cpu()}
        return state

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: batches of images in, a target required."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.non_deterministic = self.random_state is None
        return tags


def _calibrate(
    network: NODEsUNet, data: TrainingData, crop_size: int, device: torch.device
) -> None:
    """Let a network find its first steps on a few crops."""
    crops = [image[:crop_size, :crop_size] for image in data.images]
    alike = [crop for crop in crops if crop.shape == crops[0].shape][:_CALIBRATION_CROPS]
    network.calibrate(torch.stack([image_tensor(crop) for crop in alike]).to(device))


def _transformed(preprocessor: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    if preprocessor is None:
        return arrays
    changed = check_images(preprocessor.transform(arrays), name="the preprocessor's output")
    if [image.shape[:2] for image in changed] != [image.shape[:2] for image in arrays]:
        raise ValueError(
            "preprocessor must keep the number of images and their sizes, for the label maps have "
            f"the same; {type(preprocessor).__name__} does not."
        )
    return changed


def _training_data(
    preprocessor: Any,
    arrays: list[np.ndarray],
    labels: list[np.ndarray],
    weights: np.ndarray | None = None,
    chosen: np.ndarray | None = None,
) -> TrainingData:
    """Return the chosen images, preprocessed, with their label maps and weights of mean 1."""
    chosen = np.arange(len(arrays)) if chosen is None else chosen
    relative = np.ones(len(chosen))
    # Held-out images that weigh nothing have to choose the epoch all the same.
    if weights is not None and weights[chosen].any():
        relative = weights[chosen] / weights[chosen].mean()
    prepared = _transformed(preprocessor, [arrays[i] for i in chosen])
    return TrainingData(prepared, [labels[i] for i in chosen], relative)


def _placed(network: nn.Module, device: torch.device) -> None:
    """Move a network to where it runs, its weights laid out as convolutions are fastest."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
