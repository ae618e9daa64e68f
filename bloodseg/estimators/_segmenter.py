"""BloodCellSegmenter: images in, class maps out, behind scikit-learn's estimator API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.utils import metadata_routing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from torch import nn

from .._images import (
    CLASS_NAMES,
    NOT_LABELLED,
    check_classes,
    check_masks,
    in_container_of,
)
from .._typing import Masks, Tolerances
from ..cells import (
    LEAST_DIAMETER,
    MOST_DIAMETER,
    is_diameter,
)
from ..metrics import score_as_masks_know
from ..models import find_model, list_models, model_file
from ..networks import NETWORKS, Start, new_network
from ..ode import one_warning_each
from ..prediction import (
    Predictor,
    Ruler,
    Segmented,
    Sources,
    check_red_cell_diameter,
    check_tile_size,
    warn_of_doubts,
)
from ..training import (
    STANDARD_DIAMETER,
    SegmentationTask,
    TrainingData,
    choose_batch_size,
    measure_diameter,
    memory_of,
    scale_learning_rate,
    scale_to_diameter,
)
from ._base import NetworkEstimator
from ._cells import CellsMixin
from ._fit_inputs import class_weights, read_masks, warn_of_absent_classes
from ._model_file import read_header

_T = TypeVar("_T")

# How `fit` goes on from published weights, unless the user says otherwise.
_FINE_TUNING = {
    "learning_rate": 1e-4,
    "max_epochs": 20,
    "validation_fraction": None,
    "keep_statistics": True,
}


class BloodCellSegmenter(CellsMixin, NetworkEstimator):
    """Segment blood smears into background (0), white cells (1), red cells (2), or other classes.

    A `Preprocessor` enhances the images' contrast, and a U-Net with neural-ODE blocks, the
    paper's NODEs-UNet [1]_, labels every pixel.

    Parameters
    ----------
    preprocessor : "default", transformer or None, default="default"
        What images go through first: ``Preprocessor()``, another transformer of images, or
        nothing. To search over its parameters, pass ``Preprocessor()`` itself.
    network : str or callable, default="nodes-unet"
        The network: "nodes-unet", "unet" or "resnet-unet" of the paper, "fcn", "feedback-unet" or
        "d-linknet", which it builds on; or a callable without arguments that returns a
        `torch.nn.Module` from float32 images (n, 3, H, W) in [0, 1] to logits (n, n_classes, H,
        W), for any H and W.
    pretrained : path or str, optional
        Saved model, or name of a published one, whose weights training starts from; its network
        must be the same. `from_pretrained` sets all that belongs to it. Of classes that both know,
        by name, it knows how to label pixels; others begin anew, and learn at a higher rate.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ...: 2 to 255, "background" first. "white" and "red" mean white
        and red blood cells wherever they stand, and "platelet" platelets; every other name is a
        class of cells, too, of which nothing else is known. Set after fit, others wait for the next
        one. See the guide on other classes.
    ode_positions : tuple of int, default=(4, 5, 6)
        Which of the nine stages are ODE-blocks (1 to 4 down, 5 the bottom, 6 to 9 up).
        ``()`` is a U-Net. Used by ``"nodes-unet"``.
    ode_tol : float, dict, tuple or "paper", default=1e-3
        Error tolerance of the solver in training: a number, ``{position: number}``, a tuple as
        long as ``ode_positions``, or ``"paper"`` (1e-6 at position 5 and 1e-4 elsewhere).
    predict_ode_tol : float, dict, tuple or "paper", optional
        The same for prediction; None takes what ``fit`` used. Takes effect without fitting again.
    ode_method : str, default="auto"
        Runge-Kutta method; ``"auto"`` picks by tolerance, see `bloodseg.ode.choose_method`. Set
        after fit, another waits for the next one.
    ode_n_steps : int, optional
        Number of steps of the fixed-step methods "euler", "midpoint" and "rk4", which take no
        notice of the tolerances and cannot judge their error; None is 4. Not for the others.
    ode_gradient : {"checkpoint", "direct", "adjoint"}, default="checkpoint"
        How gradients pass the solver, see `bloodseg.ode.solve`.
    ode_regularization : float, default=0.0
        How much training counts an ODE-block's dynamics that one step of the solver cannot carry:
        the weight in the loss of ``max(0, log(2 e))``, e the error of a step over the whole
        interval in units of ``ode_tol``, averaged over samples, summed over blocks. 0.01 to 0.1
        makes blocks that take fewer evaluations in prediction; each costs a training step one more
        step of the solver. Not for fixed-step methods.
    width : int, default=32
        Channels of the first stage; all others scale with it.
    dropout : float in [0, 1), default=0.1
        Probability of dropout after each pooling.
    loss : {"cross_entropy", "cross_entropy+dice"}, default="cross_entropy"
        Training loss.
    class_weight : "balanced", dict or sequence of floats, optional
        Weight of each class in the cross-entropy; the keys of a dict are labels or names
        (``{"white": 3}``), missing ones count 1. White cells are rare: weigh them up to miss
        fewer.
    max_epochs : int, default=50
        Epochs of training; an epoch draws as many crops as cover the training images once.
    batch_size : int or "auto", default="auto"
        Crops a training step, in each process. ``"auto"`` is 4 on a CPU; on CUDA up to 32 crops of
        128 x 128, or as many of another size as have these pixels: by the memory of the card, and
        so that an epoch has at least 64 steps.
    learning_rate : float, default=2e-3
        Highest learning rate of AdamW: reached after a short warm-up, then falling as a cosine.
        Where ``batch_size="auto"`` takes more than 4 crops, the rate is that of 4, and grows with
        the root of their number.
    crop_size : int, default=128
        Side of the training crops in pixels, at least 32.
    augment : bool or "strong", default=True
        Flip, turn, scale, warp, and vary brightness, colour and stain of the crops. ``"strong"``
        varies them as far as laboratories differ, and blurs, adds noise and compresses too: for
        smears unlike those of training.
    validation_fraction : float in (0, 1), default=0.25
        Share of the images (or groups) held out to find the best epoch; None trains on all
        images and keeps the last weights. Not used where ``fit`` is given ``X_val``.
    early_stopping : bool, default=False
        Stop after ``patience`` epochs without a lower validation loss.
    patience : int, default=10
        See ``early_stopping``.
    checkpoint_dir : path, optional
        Folder for checkpoints, written after each epoch. The same fit on the same data goes on
        from them, to the weights it would have had without the break; a finished one is returned
        at once. Files are named by what is trained, so searches can share a folder.
    warm_start : bool, default=False
        Start from the weights of the last fit.
    keep_statistics : bool, default=False
        Batch normalisation goes by the statistics of the weights that training starts from
        (``pretrained``, ``warm_start``), not by those of the batches, of which a handful of images
        has none worth the name. For low learning rates; `from_pretrained` sets it.
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
        Largest side of the tiles, in pixels, that large images go through the network in, a
        multiple of 16. ``"auto"`` takes tiles for images of more than a megapixel; None takes none.
        Takes effect without fitting again, as do the following three.
    red_cell_diameter : float, "auto" or None, default=None
        For images of any magnification, see Notes: diameter of the red cells in pixels, from 4 to
        1000, or ``"auto"`` to measure it in each image. None takes images as they are.
    pixel_size : float, optional
        Side of a pixel in micrometres, for counts by area and sizes; by default what an image's
        file says, where it is given as one.
    n_jobs : int, optional
        Threads that preprocess images; None is 1, -1 all cores.
    random_state : int, RandomState instance or None, default=None
        Fixes weights, split, crops and augmentation. With an int, fits on one CPU are equal to
        the bit.
    verbose : int, default=0
        1 shows how far training and prediction are: bars in a terminal or a notebook; in a log a
        line an epoch, and of a prediction a line now and then.
    callbacks : list of skorch.callbacks.Callback, optional
        Objects that are told of each epoch and step, such as skorch's for TensorBoard, W&B and
        MLflow, or for pruning in a search. ``net.history[-1]`` has what ``history_`` will have.
        One that stops the training leaves a fitted model with the best weights so far.

    Attributes
    ----------
    network_ : Module
        The fitted network, in evaluation mode.
    preprocessor_ : transformer or None
        The fitted preprocessor.
    classes_ : ndarray of shape (n_classes,)
        The labels 0, 1, 2, ...
    class_names_ : tuple of str
        Their names: ``classes`` of the fit.
    architecture_ : dict
        The parameters that the network was built from.
    history_ : list of dict
        One row an epoch: train_loss, valid_loss, valid_mean_iou, evaluations_P (mean evaluations
        of f for an image, at each ODE-position P), learning_rate, seconds.
    best_epoch_ : int
        The epoch, from 1, whose weights were kept; 0 where training was interrupted in the first.
    end_reason_ : {"epochs", "patience", "callback", "interrupted", "broke down"}
        Why training ended: after ``max_epochs`` epochs, after ``patience`` of them without a lower
        validation loss, as a callback wished, by Ctrl-C, or because the solver failed or numbers
        were no longer finite.
    end_message_ : str
        The warning that was given of a training that was interrupted or broke down; else empty.
    batch_size_ : int or None
        Crops a training step, in each process; None in models of earlier versions.
    red_cell_diameter_ : float or None
        Diameter, in pixels, of a typical red cell as the network sees it; None where the label maps
        had no cells.
    training_ : dict
        Of the fit: "images" and "validation_images", how many there were; "started_from",
        names of the models that it started from, the nearest first; "bloodseg", the version. Empty
        in models of earlier versions.
    precision_, ode_method_ : str, dict of int to str
        What "auto" stood for in fit; in a loaded model, the precision that it stands for here.
    ode_tol_ : dict of int to float
        Tolerances of training.
    ode_first_step_ : dict of int to float or None
        First step that each ODE-block tries in prediction at its training tolerance, found at the
        end of fit; None is the solver's choice.
    n_function_evaluations_ : dict of int to ndarray of shape (n,)
        Evaluations of f at each position for each image of the last predict; of an image in tiles,
        the most of any tile.

    Notes
    -----
    A network knows cells of the size that it has learned. With ``red_cell_diameter``, images and
    label maps are resampled in ``fit`` so that red cells are 36 pixels wide (or as wide as those of
    the model that training starts from); ``"auto"`` measures them in the label maps. In prediction
    an image is resampled so that its red cells are ``red_cell_diameter_`` wide, and the result is
    brought back to the image's own pixels. There ``"auto"`` estimates them from the image
    (`bloodseg.cells.estimate_red_cell_diameter`); where it does not tell, the network is shown the
    image's middle in several sizes, and the one that it is surest of is taken. An image that shows
    no cells goes through as it is, with a warning. That works with any fitted model, one that was
    fitted with None as well.

    With ``red_cell_diameter``, a network that sees other cells when an image is mirrored has its
    statistics of normalisation leant towards that image, a tenth of the way, for this image alone;
    the answer is taken if it agrees better with that for the mirrored image. What an exported
    network says of such an image differs.

    References
    ----------
    .. [1] D. Li, P. Tang, R. Zhang, C. Sun, Y. Li, J. Qian, Y. Liang, J. Yang and L. Zhang, "Robust
       Blood Cell Image Segmentation Method Based on Neural Ordinary Differential Equations",
       Computational and Mathematical Methods in Medicine, 2021, 5590180.
       https://doi.org/10.1155/2021/5590180

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
        **NetworkEstimator._parameter_constraints,
        "network": [StrOptions(set(NETWORKS)), callable],
        "loss": [StrOptions({"cross_entropy", "cross_entropy+dice"})],
        "class_weight": [StrOptions({"balanced"}), dict, "array-like", None],
        "augment": ["boolean", StrOptions({"strong"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "crop_size": [Interval(Integral, 32, None, closed="left")],
        "keep_statistics": ["boolean"],
        "accelerator": [HasMethods(["prepare", "reduce"]), "boolean", None],
        "tile_size": [Integral, StrOptions({"auto"}), None],
        "red_cell_diameter": [
            Interval(Real, LEAST_DIAMETER, MOST_DIAMETER, closed="both"),
            StrOptions({"auto"}),
            None,
        ],
        "pixel_size": [Interval(Real, 0, None, closed="neither"), None],
    }

    _OF_PREDICTION = (
        *NetworkEstimator._OF_PREDICTION,
        "pixel_size",
        "red_cell_diameter",
        "tile_size",
    )

    _not_to_start_from = ("BloodCellCounter",)

    _saved_attributes = NetworkEstimator._saved_attributes | {
        "red_cell_diameter_": (float, type(None))
    }

    def __init__(
        self,
        preprocessor: Any = "default",
        *,
        network: str | Callable[[], nn.Module] = "nodes-unet",
        pretrained: str | Path | None = None,
        classes: Sequence[str] = CLASS_NAMES,
        ode_positions: Sequence[int] = (4, 5, 6),
        ode_tol: Tolerances = 1e-3,
        predict_ode_tol: Tolerances | None = None,
        ode_method: str = "auto",
        ode_n_steps: int | None = None,
        ode_gradient: str = "checkpoint",
        ode_regularization: float = 0.0,
        width: int = 32,
        dropout: float = 0.1,
        loss: str = "cross_entropy",
        class_weight: Any = None,
        max_epochs: int = 50,
        batch_size: int | str = "auto",
        learning_rate: float = 2e-3,
        crop_size: int = 128,
        augment: bool | str = True,
        validation_fraction: float | None = 0.25,
        early_stopping: bool = False,
        patience: int = 10,
        checkpoint_dir: str | Path | None = None,
        warm_start: bool = False,
        keep_statistics: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        compile: bool | str = "auto",
        accelerator: Any = None,
        tile_size: int | str | None = "auto",
        red_cell_diameter: float | str | None = None,
        pixel_size: float | None = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Any = None,
    ):
        self.preprocessor = preprocessor
        self.network = network
        self.pretrained = pretrained
        self.classes = classes
        self.ode_positions = ode_positions
        self.ode_tol = ode_tol
        self.predict_ode_tol = predict_ode_tol
        self.ode_method = ode_method
        self.ode_n_steps = ode_n_steps
        self.ode_gradient = ode_gradient
        self.ode_regularization = ode_regularization
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
        self.keep_statistics = keep_statistics
        self.device = device
        self.precision = precision
        self.compile = compile
        self.accelerator = accelerator
        self.tile_size = tile_size
        self.red_cell_diameter = red_cell_diameter
        self.pixel_size = pixel_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    @one_warning_each()
    def fit(
        self,
        images: Sources,
        masks: Masks,
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
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            RGB, uint8 or floating point in [0, 1]; grey, RGBA, bool and uint16 are converted.
            Files are opened as crops are cut from them, the latest GiB of them is kept: there may
            be more than fit into memory.
        masks : ndarray of shape (n, H, W), or list of (H, W) ndarrays and paths
            Labels, places in ``classes``: by default 0 background, 1 white cells, 2 red cells; 255
            where the class is not known, which teaches nothing. Files are read at once, one byte a
            pixel.
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
        FileNotFoundError
            If there is no such file.
        ValueError
            If a parameter, an image or a label map is not as described.

        Warns
        -----
        UserWarning
            If the label maps lack a class of cells, as where 1 stands for any cell.
        """
        classes = check_classes(self.classes)
        checked = self._fit(
            images,
            read_masks(masks, classes),
            groups=groups,
            sample_weight=sample_weight,
            X_val=X_val,
            y_val=read_masks(y_val, classes),
        )
        if self.red_cell_diameter is None:
            found = measure_diameter(checked, classes)
            self.red_cell_diameter_ = found if is_diameter(found) else None
        else:
            self.red_cell_diameter_ = self._wanted_diameter()
        return self

    @classmethod
    def from_pretrained(
        cls, name: str | Path | None = None, *, revision: str | None = None, **parameters: Any
    ) -> BloodCellSegmenter:
        """Return a trained model, ready to predict, count and measure, and to be fine-tuned.

        ``fit`` starts from its weights (``pretrained`` is set), with a low learning rate, and so do
        clones: a handful of labelled images fine-tunes the model.

        Parameters
        ----------
        name : str or path, optional
            One of `bloodseg.models.list_models`, whose weights come with the package, by default
            the newest; or a model file; or a repository of the Hugging Face hub, ``"OWNER/NAME"``,
            as `push_to_hub` writes it, which is downloaded once (extra ``hub``). What is downloaded
            is read, and nothing in it run.
        revision : str, optional
            Branch, tag or commit of the repository; name a commit, and the model stays what it is.
        **parameters
            Parameters to set, such as ``device`` or ``pixel_size``. With ``classes`` other than the
            model's own, ``fit`` keeps what it knows of those that it shares, by name; until then,
            it predicts its own, and says so. What is new learns faster, see the guide on other
            classes.

        Returns
        -------
        BloodCellSegmenter
            Fitted.

        Raises
        ------
        ImportError
            If huggingface_hub is missing, and a repository is named.
        OSError
            If the hub has no such model, or cannot be reached.
        ValueError
            If there is no such model or parameter.

        Examples
        --------
        >>> from bloodseg import BloodCellSegmenter
        >>> from bloodseg.datasets import make_smears
        >>> segmenter = BloodCellSegmenter.from_pretrained()
        >>> segmenter.count(make_smears(1, random_state=0).images).columns.tolist()
        ['image', 'white', 'red', 'confidence', 'doubts']
        """
        given = list_models()[0] if name is None else name
        file = find_model(given, revision=revision)
        start = given if given in list_models() else file
        segmenter = cls.load(file)
        return segmenter.set_params(pretrained=str(start), **{**_FINE_TUNING, **parameters})

    def predict(self, images: Sources) -> Any:
        """Label every pixel: 0 background, 1 white cells, 2 red cells, or places in ``classes``.

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

    def predict_proba(self, images: Sources) -> Any:
        """Give every pixel the probabilities of its classes.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`.

        Returns
        -------
        ndarray of float32 of shape (n, H, W, n_classes), or list of (H, W, n_classes) ndarrays
            Probabilities in the order of ``classes_``; they add up to 1.
        """
        predictor = self._make_predictor()
        maps = list(self._record_evaluations(predictor, predictor.probabilities(images)))
        return in_container_of(maps, images)

    def segment(self, images: Sources) -> Iterator[Segmented]:
        """Predict images one by one, for all that is to be had from one prediction.

        The images are checked at once, and each is predicted when its turn comes.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`. Files are read by strips, in bounded memory.

        Returns
        -------
        iterator of Segmented
            ``name``, ``image``, ``class_map``, ``confidence`` (of the class, in 255ths),
            ``pixel_size``, ``mean_confidence``, ``evaluations``, ``agreement`` (with the mirrored
            image, where the network was not sure), ``adapted`` and ``smoothed`` (where the image
            was too noisy for the network); of a file, image and maps are read by rows, as
            ``class_map[top:bottom]``. Its methods ``cells``, ``count`` and
            ``measure`` give what those of this class give; ``doubts`` says why the image is perhaps
            no smear in focus, or its ``pixel_size`` cannot be right, as a list of str.

        Warns
        -----
        UserWarning
            If there are such doubts about an image, and ``red_cell_diameter`` is set: the model is
            then meant for smears of other laboratories than those of its training. Where it is
            None, images need not look like those of others, and only a pixel's size is warned of.
        """
        predictor = self._make_predictor()
        results = self._record_evaluations(predictor, predictor.segmented(images))
        of_size_only = self.red_cell_diameter is None
        return map(partial(warn_of_doubts, of_size_only=of_size_only), results)

    def score(self, images: Sources, masks: Masks, sample_weight: Any = None) -> float:
        """Return the mean IoU over all pixels of all images, in [0, 1].

        A class absent from both masks and predictions is left out of the mean, as are pixels
        labelled 255. Where none of the masks holds a platelet, they do not know platelets: those
        found count as background.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `predict`.
        masks : ndarray of shape (n, H, W), or list of (H, W) ndarrays and paths
            As for `fit`.
        sample_weight : array-like of shape (n,), optional
            How much the pixels of each image count, not negative.

        Returns
        -------
        float
        """
        maps, names = self.predict(images), self.class_names_
        masks = read_masks(masks, names)
        return score_as_masks_know(masks, maps, classes=names, sample_weight=sample_weight)

    def _make_predictor(self) -> Predictor:
        """Return what predicts as the parameters say, with a network of its own."""
        return Predictor(
            self._copy_network(),
            self.preprocessor_,
            ruler=Ruler(self.red_cell_diameter, self._diameter_of_network()),
            tile_size=self.tile_size,
            compile=self.compile,
            pixel_size=self.pixel_size,
            verbose=self.verbose,
        )

    def _record_evaluations(self, predictor: Predictor, results: Iterator[_T]) -> Iterator[_T]:
        """Pass on results, and keep what each has cost."""
        for result in results:
            self.n_function_evaluations_ = predictor.n_function_evaluations
            yield result

    def _diameter_of_network(self) -> float | None:
        return getattr(self, "red_cell_diameter_", None)

    def _wanted_diameter(self) -> float:
        """Return the diameter that red cells shall have in training."""
        known = self._diameter_of_network() if self.warm_start else None
        if known is None and self.pretrained is not None:
            known = read_header(model_file(self.pretrained))["fitted"].get("red_cell_diameter_")
        return known if known is not None and is_diameter(known) else STANDARD_DIAMETER

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_tile_size(self.tile_size)

    def _check_prediction(self) -> None:
        super()._check_prediction()
        check_tile_size(self.tile_size)
        check_red_cell_diameter(self.red_cell_diameter, self._diameter_of_network())

    def _check_fitted(self) -> None:
        super()._check_fitted()
        diameter = self._diameter_of_network()
        if diameter is not None and not is_diameter(diameter):
            raise ValueError(
                f"red_cell_diameter_ must be a number of pixels from {LEAST_DIAMETER} to "
                f"{MOST_DIAMETER}, or None; got {diameter!r}."
            )

    def _check_sides(self, training: TrainingData, valid: TrainingData | None) -> None:
        for name, side in (("training", training), ("validation", valid)):
            if side and not any((mask != NOT_LABELLED).any() for mask in side.targets):
                raise ValueError(
                    f"masks must label pixels for training and for validation; all in the "
                    f"{len(side.targets)} of {name} are {NOT_LABELLED}, not known. Leave such "
                    "images out, or choose those of validation with X_val and y_val."
                )

    def _rescale(self, data: TrainingData) -> TrainingData:
        if self.red_cell_diameter is None:
            return data
        wanted = self._wanted_diameter()
        return scale_to_diameter(data, self.red_cell_diameter, wanted, check_classes(self.classes))

    def _check_targets(
        self,
        targets: Any,
        *,
        images: list[Any],
        classes: tuple[str, ...],
        name: str = "masks",
    ) -> list[np.ndarray]:
        masks = check_masks(targets, images=images, classes=classes, partial=True, name=name)
        if name == "masks":
            warn_of_absent_classes(masks, classes)
        return masks

    def _new_network(
        self,
        architecture: dict[str, Any],
        seed: int,
        start: Start | None,
        training: TrainingData | None = None,
    ) -> nn.Module:
        return new_network(architecture, seed, start)

    def _new_classes(self, classes: tuple[str, ...], start: Start | None) -> Sequence[int]:
        if start is None:
            return ()
        known = start.known(classes)
        return [label for label in range(len(classes)) if label not in known]

    def _choose_batch(
        self, images: list[Any], device: torch.device, accelerator: Any
    ) -> tuple[int, float]:
        if not isinstance(self.batch_size, str):
            return self.batch_size, self.learning_rate
        batch_size = choose_batch_size(
            [image.shape for image in images],
            self.crop_size,
            self.width,
            memory=memory_of(device),
            n_processes=1 if accelerator is None else accelerator.num_processes,
        )
        return batch_size, scale_learning_rate(self.learning_rate, batch_size)

    def _make_task(self, training: TrainingData, classes: tuple[str, ...]) -> SegmentationTask:
        weights = class_weights(self.class_weight, training.targets, training.weights, classes)
        return SegmentationTask(
            crop_size=self.crop_size,
            strong_augmentation=self.augment == "strong",
            loss=self.loss,
            class_weight=weights,
            n_classes=len(classes),
        )

    def _take_over(self, network: nn.Module, history: list[dict], precision: str) -> None:
        super()._take_over(network, history, precision)
        self.classes_ = np.arange(len(self.class_names_))
