"""What the estimators share: the frame of fit and prediction, scikit-learn's rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._files import expanded
from .._hardware import choose_device
from .._images import check_classes, check_sample_weight
from .._version import __version__
from ..networks import NODEsUNet, Start, resolve_tolerances, unet_of
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
from ._fit_data import by_content, choose, keep_recent, preprocess, seen_by_fit
from ._fit_inputs import check_training_images, check_validation
from ._parameters import (
    ARCHITECTURE,
    CONSTRAINTS,
    OF_PREDICTION,
    check_architecture,
    of_the_result,
)
from ._saving import SavableEstimator, place_network
from ._start import read_start, start_of

_N_EXAMPLES = 4  # images that the first steps of the solver are found on

_Estimator = TypeVar("_Estimator", bound="NetworkEstimator")


class NetworkEstimator(SavableEstimator):
    """An estimator around a network of this package, trained on images and one target for each.

    A subclass has the parameters that `_parameter_constraints` names, and says what its targets,
    its network and its task are: `_check_targets`, `_new_network`, `_make_task`.
    """

    _parameter_constraints: dict = CONSTRAINTS
    _OF_PREDICTION: tuple[str, ...] = OF_PREDICTION

    # Models of other kinds whose weights mean something else.
    _not_to_start_from: tuple[str, ...] = ()

    # Subclasses that can train in several processes have it as a parameter.
    accelerator: Any = None

    # Those that fine-tune, likewise.
    keep_statistics: bool = False

    classes: Any

    def _classes_of(self, targets: Any) -> tuple[str, ...]:
        """Return the names of the classes that targets, not yet checked, are about."""
        return check_classes(self.classes)

    def _check_targets(
        self, targets: Any, *, images: list[Any], classes: tuple[str, ...], name: str = ""
    ) -> Any:
        """Return the targets of checked images, one for each, or say what is wrong with them."""
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
    ) -> Any:
        """Train, and return the checked targets."""
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
        place_network(network, device)
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
        return targets

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

    def _check_prediction(self) -> None:
        validate_parameter_constraints(
            {name: self._parameter_constraints[name] for name in self._OF_PREDICTION},
            {name: getattr(self, name) for name in self._OF_PREDICTION},
            caller_name=type(self).__name__,
        )
        if self.predict_ode_tol is not None:
            resolve_tolerances(self.predict_ode_tol, tuple(self.ode_tol_), name="predict_ode_tol")

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
