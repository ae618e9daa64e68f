"""What a fitted estimator holds, and the files that keep it: model files, cards, pickles."""

from __future__ import annotations

import copy
import logging
from functools import partial
from typing import Any, TypeVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._hardware import choose_device, choose_precision
from .._version import __version__
from ..models import upload_model
from ..networks import NODEsUNet, Start, classes_of, unet_of
from ..preprocessing import Preprocessor
from ..training import TrainingData
from ._card import write_card
from ._file_checks import check_fitted
from ._model_file import halved, name_writer, read_model, write_model
from ._parameters import select_savable

logger = logging.getLogger("bloodseg")

# What a header of any content can make of code that takes it for one of `save`.
_OF_A_HEADER = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_Estimator = TypeVar("_Estimator", bound="SavableEstimator")


class SavableEstimator(BaseEstimator):
    """An estimator around a network of this package, which can be saved once it is fitted."""

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

    device: Any
    precision: str

    network_: nn.Module
    architecture_: dict[str, Any]
    class_names_: tuple[str, ...]
    history_: list[dict]
    precision_: str
    training_: dict[str, Any] = {}  # noqa: RUF012  # for models pickled before there was one

    def _new_network(
        self,
        architecture: dict[str, Any],
        seed: int,
        start: Start | None,
        training: TrainingData | None = None,
    ) -> nn.Module:
        """Return a network with new weights, fit for the training data, or with ``start``."""
        raise NotImplementedError

    def _check_prediction(self) -> None:
        """Check the parameters that prediction goes by, but for the device."""
        raise NotImplementedError

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
        self,
        repository: str,
        *,
        private: bool = False,
        half_precision: bool = False,
        overwrite: bool = False,
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
        overwrite : bool, default=False
            Replace the model and the card, with all that was added to it, of a repository that has
            them. Its history keeps the earlier ones.

        Returns
        -------
        str
            The address.

        Raises
        ------
        FileExistsError
            If the repository holds a model or a card, and ``overwrite`` is False.
        ImportError
            If huggingface_hub is missing.
        OSError
            If the hub refuses it, or cannot be reached.
        ValueError
            If it is no name of a repository, or a parameter is something that JSON can't hold.
        """
        save = partial(self.save, half_precision=half_precision)
        return upload_model(save, self.card(), repository, private=private, overwrite=overwrite)

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
                f"{path} does not hold a model that bloodseg {__version__} knows"
                f"{name_writer(header)}: {str(error) or type(error).__name__}"
            ) from error
        try:
            device = choose_device(estimator.device)
        except ValueError as error:
            logger.warning("%s Using device='auto'.", error)
            device = choose_device(estimator.set_params(device="auto").device)
        place_network(network, device)
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

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, weights on the CPU so that it loads without a GPU."""
        state = super().__getstate__()
        network = state.get("network_")
        if network is not None and any(w.device.type != "cpu" for w in network.parameters()):
            state = state | {"network_": copy.deepcopy(network).cpu()}
        return state


def place_network(network: nn.Module, device: torch.device) -> None:
    """Move a network to where it runs, its weights laid out as convolutions are fastest."""
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
