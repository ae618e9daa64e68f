"""What the estimators share: the frame of fit and prediction, model files, scikit-learn's rules."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._files import expanded
from .._hardware import choose_device, choose_precision
from .._images import check_classes, check_sample_weight
from .._version import __version__
from ..models import upload_model
from ..networks import NODEsUNet, Start, classes_of, resolve_tolerances, unet_of
from ..ode import Tableau, warn_caller
from ..prediction import TileNetwork
from ..preprocessing import Preprocessor
from ..training import (
    Checkpoint,
    TrainingData,
    TrainingResult,
    TrainingSettings,
    check_callbacks,
    check_groups,
    fingerprint,
    make_accelerator,
    share_seed,
    split_images,
    train_network,
)
from ._card import write_card
from ._file_checks import check_fitted
from ._fit_data import by_content, choose, keep_recent, preprocess, seen_by_fit
from ._fit_inputs import check_training_images, check_validation
from ._model_file import halved, read_model, write_model
from ._parameters import (
    ARCHITECTURE,
    CONSTRAINTS,
    OF_PREDICTION,
    check_architecture,
    of_the_result,
    select_savable,
)
from ._start import read_start, start_of

logger = logging.getLogger("bloodseg")

# What a header of any content can make of code that takes it for one of `save`.
_OF_A_HEADER = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_N_EXAMPLES = 4  # images that the first steps of the solver are found on

_Estimator = TypeVar("_Estimator", bound="NetworkEstimator")


class NetworkEstimator(BaseEstimator):
    """An estimator around a network of this package, trained on images and one target for each.

    A subclass has the parameters that `_parameter_constraints` names, and says what its targets,
    its network and its task are: `_check_targets`, `_new_network`, `_make_task`.
    """

    _parameter_constraints: dict = CONSTRAINTS
    _OF_PREDICTION: tuple[str, ...] = OF_PREDICTION

    # What a model file holds beside weights and parameters, of which types; the rest follows.
    _saved_attributes: dict[str, Any] = {  # noqa: RUF012
        "architecture_": dict,
        "batch_size_": (int, type(None)),
        "best_epoch_": int,
        "end_message_": str,
        "end_reason_": str,
        "history_": list,
        "ode_first_step_": dict,
        "ode_tol_": dict,
        "preprocessor_": (Preprocessor, type(None)),
        "training_": dict,
    }

    # What those of it are that files of earlier versions lack.
    _of_earlier_files: dict[str, Any] = {"batch_size_": None, "training_": {}}  # noqa: RUF012

    # Models of other kinds whose weights mean something else.
    _not_to_start_from: tuple[str, ...] = ()

    # Subclasses that can train in several processes have it as a parameter.
    accelerator: Any = None

    # Those that fine-tune, likewise.
    keep_statistics: bool = False

    classes: Any
    class_names_: tuple[str, ...]

    training_: dict[str, Any] = {}  # noqa: RUF012  # for models pickled before there was one

    def _classes_of(self, targets: Any) -> tuple[str, ...]:
        """Return the names of the classes that targets, not yet checked, are about."""
        return check_classes(self.classes)

    def _check_targets(
        self, targets: Any, *, images: list[Any], classes: tuple[str, ...], name: str = ""
    ) -> Any:
        """Return the targets of checked images, one for each, or say what is wrong with them."""
        raise NotImplementedError

    def _new_network(
        self,
        architecture: dict[str, Any],
        seed: int,
        start: Start | None,
        training: TrainingData | None = None,
    ) -> nn.Module:
        """Return a network with new weights, fit for the training data, or with ``start``."""
        raise NotImplementedError

    def _make_task(self, training: TrainingData, classes: tuple[str, ...]) -> Any:
        """Return what the network shall learn."""
        raise NotImplementedError

    def _check_sides(self, training: TrainingData, valid: TrainingData | None) -> None:
        """Raise where there is nothing to learn from, or to choose an epoch by."""

    def _rescale(self, data: TrainingData) -> TrainingData:
        """Return preprocessed data in the magnification that the network learns from."""
        return data

    def _resize(self, images: list[Any]) -> list[Any]:
        """Return checked images, lazy ones too, in the size that preprocessor and network see."""
        return images

    def _fit(
        self,
        images: Any,
        targets: Any,
        *,
        groups: Any,
        sample_weight: Any,
        X_val: Any,
        y_val: Any,
    ) -> None:
        self._check_parameters()
        classes, data = self._check_data(images, targets, groups, sample_weight, X_val, y_val)
        images, targets, groups, weights, validation = data
        accelerator = make_accelerator(self.accelerator)
        device = choose_device(self.device) if accelerator is None else accelerator.device
        seed = share_seed(check_random_state(self.random_state), accelerator)
        architecture = {name: getattr(self, name) for name in ARCHITECTURE}
        architecture["classes"] = classes
        start, started_from = self._read_start(architecture)
        batch_size, learning_rate = self._choose_batch(images, device, accelerator)
        checkpoint = self._load_checkpoint(seed, *data, start, batch_size)
        if checkpoint is not None:
            seed = checkpoint.seed
        everything = TrainingData(self._resize(images), targets, weights)
        preprocessor, training, valid = self._split_sides(everything, validation, groups, seed)
        network = self._new_network(architecture, seed, start, training)
        _place(network, device)
        precision = self._set_precision(network, device)
        settings = self._make_settings(
            self._make_task(training, classes),
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
            checkpoint=checkpoint,
            accelerator=accelerator,
            keep_statistics=self.keep_statistics and start is not None,
            new_classes=self._new_classes(classes, start),
            network_of_the_package=isinstance(self.network, str),
            ode_regularization=self.ode_regularization,
        )
        result = self._train(network, training, valid, settings)
        self.preprocessor_ = preprocessor
        self.best_epoch_ = result.best_epoch
        self.end_reason_, self.end_message_ = result.end_reason, result.end_message
        self.batch_size_ = batch_size
        self.architecture_ = architecture
        self.training_ = {
            "images": len(training.images),
            "validation_images": 0 if valid is None else len(valid.images),
            "started_from": started_from,
            "bloodseg": __version__,
        }
        self._take_over(network, result.history, precision)
        if result.end_message:  # not before there is a model, for that is what it says
            warn_caller(result.end_message)

    def _train(
        self,
        network: nn.Module,
        training: TrainingData,
        valid: TrainingData | None,
        settings: TrainingSettings,
    ) -> TrainingResult:
        """Train a network; decide before it what ODE-blocks compile, find first steps after it."""
        unet = unet_of(network)
        if not isinstance(unet, NODEsUNet):
            return train_network(network, training, valid, settings)
        examples = _examples(settings.task.make_training_set(valid or training, settings.seed))
        n_images = self.max_epochs * len(training.images)
        unet.decide_compilation(self.compile, examples[0, 0].numel(), n_images)
        result = train_network(network, training, valid, settings)
        unet.calibrate(examples.to(settings.device))
        return result

    def _check_data(
        self, images: Any, targets: Any, groups: Any, sample_weight: Any, X_val: Any, y_val: Any
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Return the classes, and images, targets, groups, weights and validation data, checked."""
        images = check_training_images(images)
        classes = self._classes_of(targets)
        check_targets = partial(self._check_targets, classes=classes)
        targets = check_targets(targets, images=images)
        weights = check_sample_weight(sample_weight, len(images))
        validation = check_validation(X_val, y_val, check_targets)
        return classes, (images, targets, check_groups(groups, len(images)), weights, validation)

    def _choose_batch(
        self, images: list[Any], device: torch.device, accelerator: Any
    ) -> tuple[int, float]:
        """Return the images or crops a step of each process, and the highest learning rate."""
        return self.batch_size, self.learning_rate

    def _new_classes(self, classes: tuple[str, ...], start: Start | None) -> Sequence[int]:
        """Return the labels that are new to the start, where the network's head labels pixels."""
        return ()

    def _load_checkpoint(self, seed: int, *data: Any) -> Checkpoint | None:
        """Return the checkpoint of a training on data, if there shall be one."""
        if self.checkpoint_dir is None:
            return None
        file = f"{self._fingerprint(*map(by_content, data))}.pt"
        return Checkpoint(expanded(self.checkpoint_dir) / file, seed=seed)

    def _make_settings(self, task: Any, **of_this_fit: Any) -> TrainingSettings:
        return TrainingSettings(
            task=task,
            max_epochs=self.max_epochs,
            augment=bool(self.augment),
            patience=self.patience if self.early_stopping else None,
            verbose=self.verbose,
            callbacks=check_callbacks(self.callbacks),
            **of_this_fit,
        )

    def _split_sides(
        self,
        everything: TrainingData,
        validation: tuple[list[Any], Any] | None,
        groups: np.ndarray | None,
        seed: int,
    ) -> tuple[Any, TrainingData, TrainingData | None]:
        """Return the fitted preprocessor, and the data to train on and to validate with."""
        fraction = None if validation is not None else self.validation_fraction
        train, held_out = split_images(len(everything.images), groups, fraction, seed)
        if not everything.weights[train].any():
            raise ValueError(
                "sample_weight must be above zero for a training image; it is for none "
                "(validation_fraction may hold out those that have a weight)."
            )
        training, valid = choose(everything, train), None
        if validation is not None:
            images, targets = validation
            valid = TrainingData(self._resize(images), targets, np.ones(len(images)))
        elif len(held_out):
            valid = choose(everything, held_out)
        self._check_sides(training, valid)
        preprocessor = self._new_preprocessor()
        if hasattr(preprocessor, "fit"):
            preprocessor.fit(seen_by_fit(preprocessor, training.images), training.targets)
        sides = (
            side and self._rescale(preprocess(side, preprocessor)) for side in (training, valid)
        )
        return preprocessor, *keep_recent(sides)

    def _copy_network(self, **overrides: Any) -> TileNetwork:
        """Return a copy of the fitted network, set up to predict as the parameters say.

        ``overrides`` of ``device`` and ``precision`` take the place of the parameters.
        """
        check_is_fitted(self, "network_")
        if self._classes_wait():
            warn_caller(
                f"classes={self.classes!r} wait for the next fit: what follows has the classes "
                f"that this model was fitted for, {self.class_names_}."
            )
        settings = {"device": self.device, "precision": self.precision} | overrides
        return TileNetwork.copy_of(
            self.network_,
            device=choose_device(settings["device"]),
            precision=settings["precision"],
            ode_tol=self.ode_tol_,
            predict_ode_tol=self.predict_ode_tol,
            classes=self.class_names_,
        )

    def _classes_wait(self) -> bool:
        """Return whether ``classes`` are others than those of the fit."""
        return check_classes(self.classes) != self.class_names_

    def check_prediction(self) -> None:
        """Check the parameters that prediction goes by, some of which take effect without a fit.

        Raises
        ------
        ValueError
            If one is out of its range, or names a device that this machine lacks.
        """
        self._check_prediction()
        choose_device(self.device)

    def _check_prediction(self) -> None:
        """Check what `check_prediction` does, but for the device."""
        validate_parameter_constraints(
            {name: self._parameter_constraints[name] for name in self._OF_PREDICTION},
            {name: getattr(self, name) for name in self._OF_PREDICTION},
            caller_name=type(self).__name__,
        )
        if self.predict_ode_tol is not None:
            resolve_tolerances(self.predict_ode_tol, tuple(self.ode_tol_), name="predict_ode_tol")

    def card(self) -> str:
        """Return what is known of the fitted model, which `save` keeps: its card.

        On how many images it was trained and what it started from, the parameters that are no
        defaults, and the scores on images held out, if there were any. What the images show, their
        licence and the model's limits are for its author to add.

        Returns
        -------
        str
            Markdown.
        """
        check_is_fitted(self, "network_")
        names = (*self._saved_attributes, "class_names_")
        return write_card(
            type(self),
            select_savable(self.get_params(deep=False)),
            {name: getattr(self, name) for name in names},
        )

    def push_to_hub(
        self, repository: str, *, private: bool = False, half_precision: bool = False
    ) -> str:
        """Publish the fitted model and its card in a repository of the Hugging Face hub.

        Needs the package huggingface_hub, of the extra ``hub``, and its token (``hf auth login``).
        What the images show, their licence and the model's limits are for you to add to the card.

        Parameters
        ----------
        repository : str
            ``"OWNER/NAME"``; made if it is not there.
        private : bool, default=False
            Whether a new repository is seen by its owner alone.
        half_precision : bool, default=False
            As for `save`.

        Returns
        -------
        str
            The address.

        Raises
        ------
        ImportError
            If huggingface_hub is missing.
        OSError
            If the hub refuses it, or cannot be reached.
        ValueError
            If it is no name of a repository, or a parameter is something that JSON can't hold.
        """
        save = partial(self.save, half_precision=half_precision)
        return upload_model(save, self.card(), repository, private=private)

    def save(self, path: Any, *, half_precision: bool = False) -> None:
        """Save the fitted model: weights in safetensors, parameters as JSON in its header.

        Parameters
        ----------
        path : path
            File to write, by custom ``*.safetensors``. Written whole or not at all.
        half_precision : bool
            Round the weights to float16, which halves the file. They load as float32.

        Raises
        ------
        ValueError
            If a parameter is something that JSON can't hold, such as a callable network.
        """
        check_is_fitted(self, "network_")
        parameters = select_savable(self.get_params(deep=False))
        fitted = {name: getattr(self, name) for name in self._saved_attributes}
        fitted |= {"version": __version__, "estimator": type(self).__name__}
        # What "auto" has decided, for the record: another machine decides anew.
        fitted |= {"precision_": self.precision_, "ode_method_": self.ode_method_}
        header = {"parameters": parameters, "fitted": fitted}
        weights = self.network_.state_dict()
        write_model(path, halved(weights) if half_precision else weights, header)

    @classmethod
    def load(cls: type[_Estimator], path: Any) -> _Estimator:
        """Load a model that `save` wrote. Nothing in the file is executed.

        A device that this machine lacks is replaced by "auto".

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        estimator
            Of this class.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or not a model file of this class.
        """
        weights, header = read_model(path)
        try:
            fitted = {**cls._of_earlier_files, **header["fitted"]}
            kind = fitted["estimator"]
            if kind != cls.__name__:
                raise ValueError(f"it is a {kind}; open it with {kind}.load")
            estimator = cls(**select_savable(header["parameters"]))
            for name, kinds in cls._saved_attributes.items():
                if not isinstance(fitted[name], kinds):
                    raise TypeError(f"{name} is {fitted[name]!r}")
                setattr(estimator, name, fitted[name])
            estimator._check_fitted()
            start = Start(weights, classes_of(estimator.architecture_))
            network = estimator._new_network(estimator.architecture_, seed=0, start=start)
            unet = unet_of(network)
            if isinstance(unet, NODEsUNet):
                unet.set_tolerances(fitted["ode_tol_"])
                unet.set_first_steps(fitted["ode_first_step_"])
            estimator._check_prediction()
        except _OF_A_HEADER as error:
            raise ValueError(
                f"{path} does not hold a model that bloodseg {__version__} knows: "
                f"{str(error) or type(error).__name__}"
            ) from error
        try:
            device = choose_device(estimator.device)
        except ValueError as error:
            logger.warning("%s Using device='auto'.", error)
            device = choose_device(estimator.set_params(device="auto").device)
        _place(network, device)
        precision = estimator._set_precision(network, device)
        estimator._take_over(network, estimator.history_, precision)
        return estimator

    def _check_fitted(self) -> None:
        """Raise where what a model file says of a fit cannot come from one."""
        check_fitted(self)

    def _set_precision(self, network: nn.Module, device: torch.device) -> str:
        """Set the precision of the package's networks; a callable's own is its own affair."""
        unet = unet_of(network)
        if unet is None:
            return "float32"
        unet.precision = choose_precision(device, self.precision)
        return unet.precision

    def _take_over(self, network: nn.Module, history: list[dict], precision: str) -> None:
        """Set the attributes of a fitted model."""
        self.network_ = network.eval()
        self.class_names_ = classes_of(self.architecture_)
        self.precision_ = precision
        self.history_ = history
        blocks = getattr(network, "ode_blocks", {})
        self.ode_tol_ = {position: block.tol for position, block in blocks.items()}
        self.ode_first_step_ = {position: block.first_step for position, block in blocks.items()}
        self.ode_method_ = {
            position: block.method_at(block.tol) for position, block in blocks.items()
        }

    def _check_parameters(self) -> None:
        if isinstance(self.ode_method, Tableau):
            raise ValueError(
                "ode_method must be the name of a method, which a model file can hold; got the "
                f"Tableau {self.ode_method.name!r}. bloodseg.networks.NODEsUNet takes one, and "
                "BloodCellSegmenter such a network: network=lambda: NODEsUNet(ode_method=...)."
            )
        self._validate_params()
        check_callbacks(self.callbacks)
        positions = check_architecture(self)
        if self.predict_ode_tol is not None:
            resolve_tolerances(self.predict_ode_tol, positions, name="predict_ode_tol")

    def _read_start(self, architecture: dict[str, Any]) -> tuple[Start | None, tuple[str, ...]]:
        """Return the weights that training starts from, if any, and the models behind them."""
        if self.warm_start and hasattr(self, "network_"):
            start = start_of(self.network_.state_dict(), self.class_names_)
            return start, ("the fit before", *self.training_.get("started_from", ()))
        if self.pretrained is None:
            return None, ()
        return read_start(
            self.pretrained,
            architecture,
            caller=type(self).__name__,
            refused=self._not_to_start_from,
        )

    def _fingerprint(self, *data: Any) -> str:
        parameters = of_the_result(self.get_params())
        # By class and parameters, not whole: its n_jobs is no part of the result.
        parameters["preprocessor"] = (
            self.preprocessor if isinstance(self.preprocessor, str) else type(self.preprocessor)
        )
        return fingerprint(parameters, *data)

    def _new_preprocessor(self) -> Any:
        if isinstance(self.preprocessor, str):
            return Preprocessor(n_jobs=self.n_jobs)
        return None if self.preprocessor is None else clone(self.preprocessor)

    def set_params(self: _Estimator, **params: Any) -> _Estimator:
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
                f"{preprocessor!r}; pass preprocessor=Preprocessor() to {type(self).__name__} "
                "first."
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


def _examples(training_set: Any) -> torch.Tensor:
    """Return a few images of one size (n, 3, H, W) as the network sees them in training."""
    images = [training_set[number][0] for number in range(min(len(training_set), _N_EXAMPLES))]
    return torch.stack([image for image in images if image.shape == images[0].shape])


def _place(network: nn.Module, device: torch.device) -> None:
    """Move a network to where it runs, its weights laid out as convolutions are fastest."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
