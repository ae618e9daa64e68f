"""BloodCellCounter: images in, numbers of cells out, without a map between."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import metadata_routing
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from .._images import CLASS_NAMES, change_image, check_sample_weight, rescaled_shape, shrink
from .._typing import Tolerances
from ..networks import STRIDE, Start, classes_of, new_counting_network
from ..ode import one_warning_each
from ..prediction import Sources, check_sources, explain_memory_errors
from ..preprocessing import transform_images
from ..training import CountingTask, TrainingData
from ._base import NetworkEstimator
from ._counts import as_counts, check_counts, densities_of, is_counted, spread_of

# The classes where fit is given one number an image, whatever is counted.
_ONE_KIND = ("background", "cells")


class BloodCellCounter(RegressorMixin, NetworkEstimator):
    """Count cells without outlining them: a regression straight to the numbers.

    What the paper plans as its next step [1]_: a 1x1 convolution on the map of every scale of
    NODEs-UNet, all of them fused, a fully connected layer and a linear regression. It learns from
    images with numbers of cells (boxes, dots, a tally sheet); no cell needs an outline.

    The network gives a density, which is summed over the image. So an image of any size will do,
    twice the area holds twice the cells, and the counts of two fields add up; but the
    magnification must be that of the training images.

    It finds no single cells, so it has no counting frame (`bloodseg.cells.CountingFrame`): it
    counts as the numbers that it learned from. For densities that do not depend on the size of a
    photo, give it numbers that leave out the cells which cross two sides, say bottom and right.

    Parameters
    ----------
    preprocessor : "default", transformer or None, default="default"
        What images go through first: ``Preprocessor()``, another transformer of images, or
        nothing. To search over its parameters, pass ``Preprocessor()`` itself.
    network : str, default="nodes-unet"
        The U-Net whose maps are fused: "nodes-unet", "unet", "resnet-unet", "feedback-unet" or
        "d-linknet".
    pretrained : path, optional
        Saved model whose weights training starts from: a `BloodCellCounter`, or a
        `BloodCellSegmenter`, whose U-Net then learns to count. Its network must be the same. Set
        ``scale`` so that cells are as large as those that the segmenter was trained on. Its classes
        may be others.
    classes : sequence of str, default=("background", "white", "red")
        Names as `BloodCellSegmenter` takes them; cells of each but the background are counted.
        Where ``fit`` is given one number an image, these are "cells", or of the one class named.
    scale : float in (0, 1], default=0.5
        How much images are shrunk before anything else. Counting needs less detail than
        outlining; cells should stay above some 20 pixels across.
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
    loss : {"huber", "squared_error", "poisson"}, default="huber"
        Training loss, of either count in units of its own spread. ``"huber"`` bears with images
        whose cells were not all counted; ``"poisson"`` is half the deviance.
    max_epochs : int, default=50
        Epochs of training; an epoch shows every training image once.
    batch_size : int, default=4
        Images a training step; those of one step are of one size.
    learning_rate : float, default=2e-3
        Highest learning rate of AdamW: reached after a short warm-up, then falling as a cosine.
    augment : bool, default=True
        Flip and turn the images by right angles, and vary brightness, colour and stain.
    validation_fraction : float in (0, 1), default=0.25
        Share of the images (or groups) held out to find the best epoch; None trains on all
        images and keeps the last weights. Not used where ``fit`` is given ``X_val``.
    early_stopping : bool, default=False
        Stop after ``patience`` epochs without a lower validation loss.
    patience : int, default=10
        See ``early_stopping``.
    checkpoint_dir : path, optional
        Folder for checkpoints, written after each epoch; see `BloodCellSegmenter`.
    warm_start : bool, default=False
        Start from the weights of the last fit.
    device : str, default="auto"
        ``"auto"`` (CUDA where there is one) or a torch device.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the convolutions; ``"auto"`` is bfloat16 where the hardware is faster at it.
    compile : bool or "auto", default="auto"
        Whether `torch.compile` fuses the sums of the ODE-solver; see `BloodCellSegmenter`.
    n_jobs : int, optional
        Threads that preprocess images; None is 1, -1 all cores.
    random_state : int, RandomState instance or None, default=None
        Fixes weights, split, order and augmentation. With an int, fits on one CPU are equal to
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
    network_ : CountingNetwork
        The fitted network, in evaluation mode.
    preprocessor_ : transformer or None
        The fitted preprocessor.
    architecture_ : dict
        The parameters that the network was built from.
    class_names_ : tuple of str
        ``classes`` of the fit; ("background", "cells") where it was given one number an image, and
        more classes than one of cells are named.
    not_counted_ : tuple of str
        Classes whose cells no image of the fit had a number of: `predict` gives NaN for them.
    single_count_ : bool
        Whether fit was given counts of shape (n,): `predict` then gives them so.
    history_ : list of dict
        One row an epoch: train_loss, valid_loss, valid_mae_white and valid_mae_red (mean absolute
        errors, of each class), evaluations_P (mean evaluations of f for an image, at each
        ODE-position P), learning_rate, seconds.
    batch_size_ : int or None
        Images a training step; None in models of earlier versions.
    best_epoch_ : int
        The epoch, from 1, whose weights were kept; 0 where training was interrupted in the first.
    end_reason_ : {"epochs", "patience", "callback", "interrupted", "broke down"}
        Why training ended: after ``max_epochs`` epochs, after ``patience`` of them without a lower
        validation loss, as a callback wished, by Ctrl-C, or because the solver failed or numbers
        were no longer finite.
    end_message_ : str
        The warning that was given of a training that was interrupted or broke down; else empty.
    training_ : dict
        Of the fit: "images" and "validation_images", how many there were; "started_from",
        names of the models that it started from, the nearest first; "bloodseg", the version. Empty
        in models of earlier versions.
    precision_, ode_method_ : str, dict of int to str
        What "auto" stood for in fit; in a loaded model, the precision that it stands for here.
    ode_tol_ : dict of int to float
        Tolerances of training.
    ode_first_step_ : dict of int to float or None
        First step that each ODE-block tries in prediction, found at the end of fit.
    n_function_evaluations_ : dict of int to ndarray of shape (n,)
        Evaluations of f at each position for each image of the last predict.

    References
    ----------
    .. [1] D. Li, P. Tang, R. Zhang, C. Sun, Y. Li, J. Qian, Y. Liang, J. Yang and L. Zhang, "Robust
       Blood Cell Image Segmentation Method Based on Neural Ordinary Differential Equations",
       Computational and Mathematical Methods in Medicine, 2021, 5590180, Section 5.
       https://doi.org/10.1155/2021/5590180

    Examples
    --------
    >>> from bloodseg import BloodCellCounter
    >>> from bloodseg.datasets import make_smears
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> counter = BloodCellCounter(width=4, max_epochs=1, random_state=0)
    >>> counter.fit(smears.images, smears.counts).predict(smears.images).shape
    (4, 2)
    >>> n_red = smears.counts[:, 1]
    >>> counter.fit(smears.images, n_red).predict(smears.images).shape
    (4,)
    """

    # scikit-learn reads metadata off the signatures; these are the data themselves.
    __metadata_request__fit = {  # noqa: RUF012
        "images": metadata_routing.UNUSED,
        "counts": metadata_routing.UNUSED,
    }
    __metadata_request__predict = {"images": metadata_routing.UNUSED}  # noqa: RUF012
    __metadata_request__score = {  # noqa: RUF012
        "images": metadata_routing.UNUSED,
        "counts": metadata_routing.UNUSED,
    }

    _OF_PREDICTION = (*NetworkEstimator._OF_PREDICTION, "scale")

    _parameter_constraints: dict = {  # noqa: RUF012
        **NetworkEstimator._parameter_constraints,
        "scale": [Interval(Real, 0, 1, closed="right")],
        "loss": [StrOptions({"huber", "squared_error", "poisson"})],
    }

    _saved_attributes = NetworkEstimator._saved_attributes | {
        "not_counted_": tuple,
        "single_count_": bool,
    }

    _of_earlier_files = NetworkEstimator._of_earlier_files | {
        "not_counted_": (),
        "single_count_": False,
    }

    def __init__(
        self,
        preprocessor: Any = "default",
        *,
        network: str = "nodes-unet",
        pretrained: str | Path | None = None,
        classes: Sequence[str] = CLASS_NAMES,
        scale: float = 0.5,
        ode_positions: Sequence[int] = (4, 5, 6),
        ode_tol: Tolerances = 1e-3,
        predict_ode_tol: Tolerances | None = None,
        ode_method: str = "auto",
        ode_n_steps: int | None = None,
        ode_gradient: str = "checkpoint",
        ode_regularization: float = 0.0,
        width: int = 32,
        dropout: float = 0.1,
        loss: str = "huber",
        max_epochs: int = 50,
        batch_size: int = 4,
        learning_rate: float = 2e-3,
        augment: bool = True,
        validation_fraction: float | None = 0.25,
        early_stopping: bool = False,
        patience: int = 10,
        checkpoint_dir: str | Path | None = None,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        compile: bool | str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Any = None,
    ):
        self.preprocessor = preprocessor
        self.network = network
        self.pretrained = pretrained
        self.classes = classes
        self.scale = scale
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
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.compile = compile
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks

    @one_warning_each()
    def fit(
        self,
        images: Sources,
        counts: ArrayLike,
        *,
        groups: Any = None,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> BloodCellCounter:
        """Train the network.

        Ctrl-C ends training early and leaves a fitted model with the best weights so far.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            RGB, uint8 or floating point in [0, 1]; grey, RGBA, bool and uint16 are converted.
            Files are opened as they are needed, the latest GiB of them is kept, shrunk: there may
            be more than fit into memory.
        counts : array-like of shape (n, n_classes - 1), (n, 1) or (n,)
            Cells of each class but the background in each image: by default white and red ones, as
            `bloodseg.datasets.load_voc` and `bloodseg.datasets.make_smears` give them. NaN where
            they were not counted, which teaches nothing. Or one number an image, of any one kind of
            cells.
        groups : array-like of shape (n,), optional
            Images of one group, such as fields of one slide, stay on one side of the validation
            split.
        sample_weight : array-like of shape (n,), optional
            Weight of each image in the loss, not negative.
        X_val, y_val : images and counts, optional
            Validation data instead of a split.

        Returns
        -------
        self

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If a parameter, an image or a count is not as described.
        """
        self._fit(
            images,
            counts,
            groups=groups,
            sample_weight=sample_weight,
            X_val=X_val,
            y_val=y_val,
        )
        numbers = np.asarray(counts, dtype=float)
        self.single_count_ = numbers.ndim == 1
        absent = np.isnan(numbers.reshape(len(numbers), -1)).all(axis=0)
        self.not_counted_ = tuple(itertools.compress(self.class_names_[1:], absent))
        return self

    @one_warning_each()
    def predict(self, images: Sources) -> np.ndarray:
        """Count the cells.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `fit`.

        Returns
        -------
        ndarray of float64 of shape (n, n_classes - 1), (n, 1) or (n,)
            As ``fit`` was given them: cells of each class, by default white and red ones, in each
            image: expected numbers, not rounded, not negative; NaN for a class of which it was
            given none. An image's do not depend on the other images.
        """
        network = self._copy_network()
        sources = check_sources(images)
        arrays = [source.given for source in sources if isinstance(source.given, np.ndarray)]
        of_arrays = iter(self._prepare(arrays) if arrays else [])
        counted: list[Any] = []
        for source in sources:
            if isinstance(source.given, np.ndarray):
                ready, shape = next(of_arrays), source.given.shape
            else:  # only now: there may be more files than fit into memory
                image = source.read()
                (ready,), shape = self._prepare([image]), image.shape
            if not counted:
                network.decide_compilation(self.compile, ready[..., 0].size, len(sources))
            cure = "cut it into parts, whose counts add up"
            with explain_memory_errors(source.label, shape, cure):
                counted.append(network(ready))
        counts, evaluations = zip(*counted, strict=True)
        self.n_function_evaluations_ = {
            position: np.array([of_image[position] for of_image in evaluations])
            for position in evaluations[0]
        }
        numbers = np.array(counts, dtype=float)
        numbers[:, [name in self.not_counted_ for name in self.class_names_[1:]]] = np.nan
        return numbers[:, 0] if self.single_count_ else numbers

    def _prepare(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return transform_images(self.preprocessor_, self._resize(arrays))

    def score(self, images: Sources, counts: ArrayLike, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R², at most 1, averaged over the counts.

        What was not counted (NaN), here or in `fit`, is left out.

        Parameters
        ----------
        images : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
            As for `fit`.
        counts : array-like of shape (n, n_classes - 1), (n, 1) or (n,)
            As for `fit`.
        sample_weight : array-like of shape (n,), optional
            Weight of each image.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If the counts are not as described, or there is none that was counted in fit, too.
        """
        names = self.class_names_[1:]
        predicted = self.predict(images).reshape(-1, len(names))
        true = check_counts(counts, images=list(predicted), names=names)
        known = np.isfinite(true) & np.isfinite(predicted)
        if not known.any():
            counted = [name for name in names if name not in self.not_counted_]
            raise ValueError(
                "counts must hold numbers of cells that fit was given some of, of the class "
                f"{' or '.join(counted)}; got none."
            )
        weights = check_sample_weight(sample_weight, len(predicted))
        scores = [
            r2_score(true[rows, place], predicted[rows, place], sample_weight=weights[rows])
            for place, rows in enumerate(known.T)
            if rows.any()
        ]
        return float(np.mean(scores))

    def _classes_of(self, targets: Any) -> tuple[str, ...]:
        classes, numbers = super()._classes_of(targets), as_counts(targets)
        one_each = numbers is not None and (numbers.ndim == 1 or numbers.shape[1:] == (1,))
        return _ONE_KIND if one_each and len(classes) > 2 else classes

    def _classes_wait(self) -> bool:
        return self.class_names_ != _ONE_KIND and super()._classes_wait()

    def _check_targets(
        self,
        targets: Any,
        *,
        images: list[Any],
        classes: tuple[str, ...],
        name: str = "counts",
    ) -> np.ndarray:
        return check_counts(targets, images=images, names=classes[1:], name=name)

    def _check_sides(self, training: TrainingData, valid: TrainingData | None) -> None:
        if valid is None:
            return
        trained, chosen = (is_counted(side).any(axis=0) for side in (training, valid))
        if (trained != chosen).any():
            raise ValueError(
                "counts must hold numbers of the same kinds of cells among the images of training "
                "and among those of validation, in which others are NaN. Choose those of "
                "validation with X_val and y_val, or set validation_fraction=None."
            )

    def _resize(self, images: list[Any]) -> list[Any]:
        if self.scale == 1:
            return images
        change = partial(shrink, scale=self.scale)
        return [
            change_image(image, change, (*rescaled_shape(image.shape, self.scale), 3))
            for image in images
        ]

    def _new_network(
        self,
        architecture: dict[str, Any],
        seed: int,
        start: Start | None,
        training: TrainingData | None = None,
    ) -> nn.Module:
        densities = [1.0] * (len(classes_of(architecture)) - 1)
        if training is not None:
            densities = densities_of(training, STRIDE**2)
        return new_counting_network(architecture, seed, start, densities)

    def _make_task(self, training: TrainingData, classes: tuple[str, ...]) -> CountingTask:
        height, width = min((image.shape[:2] for image in training.images), key=max)
        if max(height, width) <= STRIDE:
            raise ValueError(
                f"images must have a side of more than {STRIDE} pixels once they are shrunk by "
                f"scale={self.scale!r}; got one of {height} x {width} then. Raise scale, or leave "
                "out tiny images."
            )
        # Not below a tenth of a cell: a count that hardly varies would outweigh the other.
        scale = np.maximum(spread_of(training), 0.1)
        return CountingTask(loss=self.loss, scale=scale, names=classes[1:])

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: a regressor of one number or several."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
