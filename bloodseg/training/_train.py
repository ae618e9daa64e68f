"""Train a network: the one entry to this room."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from skorch.callbacks import Callback
from skorch.helper import predefined_split
from skorch.history import History
from skorch.utils import noop
from torch import nn

from ..ode import SolverError
from ._callbacks import (
    BestWeights,
    ClippedGradients,
    CosineSchedule,
    EndOfEpoch,
    EpochNumber,
    EpochScores,
    NewRows,
    Patience,
    StopEarly,
    StoppedByCallback,
    TrainingProgress,
    UsersCallback,
    numbers_of,
)
from ._checkpoint import Checkpoint
from ._data import LoadedAhead
from ._distributed import share_buffers
from ._net import AugmentedNet, make_distributed_net
from ._tasks import Task, TrainingData

logger = logging.getLogger("bloodseg")

_WEIGHT_DECAY = 1e-2
_TWICE_WITHIN = 3.0  # seconds
_last_interrupt = -math.inf


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; the names are those of `bloodseg.BloodCellSegmenter`.

    ``new_classes`` are the labels whose rows in the network's ``scorers`` begin anew, where all
    else goes on from trained weights.
    """

    task: Task
    max_epochs: int
    batch_size: int
    learning_rate: float
    augment: bool
    patience: int | None
    seed: int
    device: torch.device
    checkpoint: Checkpoint | None = None
    accelerator: Any = None
    keep_statistics: bool = False
    new_classes: Sequence[int] = ()
    network_of_the_package: bool = True
    ode_regularization: float = 0.0
    verbose: int = 0
    callbacks: Sequence[Callback] = ()


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes
    ----------
    history : list of dict
        One row a finished epoch.
    best_epoch : int
        The epoch, from 1, whose weights the network has; 0 where none was finished.
    end_reason : {"epochs", "patience", "callback", "interrupted", "broke down"}
        Why it ended: after ``max_epochs`` epochs, after ``patience`` of them without a lower
        validation loss, as a callback wished, by Ctrl-C, or because the solver failed or numbers
        were no longer finite.
    end_message : str
        What there is to say of a training that was interrupted or broke down; else empty.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    end_reason: str = "epochs"
    end_message: str = ""


def train_network(
    network: nn.Module,
    train: TrainingData,
    valid: TrainingData | None,
    settings: TrainingSettings,
) -> TrainingResult:
    """Train a network in place.

    The network ends up with the weights of the epoch of lowest validation loss, or of the last
    finished epoch where nothing validates. Ctrl-C ends the training early with these weights (a
    second one within three seconds is raised); so does, after the first epoch, a solver that fails,
    or a gradient, loss, weight or running statistic that is no longer finite. torch's global random
    state is left as it was, and other threads that draw from it, or train, change nothing.

    Raises
    ------
    SolverError, FloatingPointError
        If training breaks down before its first epoch is over, or no epoch has a finite validation
        loss, or, where nothing validates, the network's answer in the end is not finite.
    """
    statistics = _keep_statistics(network) if settings.keep_statistics else nullcontext()
    with statistics:
        return _Training(network, train, valid, settings).run()


@contextmanager
def _keep_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch normalisation go by what it has seen before, and not by the batches."""

    def in_evaluation(layer: nn.Module, _: Any) -> None:
        layer.eval()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(in_evaluation) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Training:
    def __init__(
        self,
        network: nn.Module,
        train: TrainingData,
        valid: TrainingData | None,
        settings: TrainingSettings,
    ):
        self.network, self.settings = network, settings
        self.task = settings.task
        self.data = self.task.make_training_set(train, settings.seed)
        self.batches = self.task.make_batches(self.data, settings.batch_size)
        self.valid = None if valid is None else self.task.make_validation_set(valid)
        self.best = BestWeights(network, settings.patience if valid is not None else None)

    def run(self) -> TrainingResult:
        net = self._make_net()
        net.initialize()
        checkpoint = self.settings.checkpoint
        if checkpoint is not None and checkpoint.state is not None:
            self._resume(net, checkpoint.state, checkpoint.path)
        remaining = self.settings.max_epochs - len(net.history)
        reason, cause = "epochs", ""
        if remaining > 0:
            reason, cause = self._fit(net, remaining)
        rows = [row for row in net.history.to_list() if _is_complete(row)]
        losses = [row["valid_loss"] for row in rows if self.valid is not None]
        if losses and not any(map(math.isfinite, losses)):
            raise FloatingPointError(
                "no epoch had a finite validation loss. Lower learning_rate, or look at "
                "sample_weight and class_weight."
            )
        self.best.restore()
        if self.settings.accelerator is not None:
            share_buffers(self.network, self.settings.accelerator)
        if not losses:
            self._check_answer()
        history = [numbers_of(row) for row in rows]
        message = cause and self._explain(cause, len(rows))
        return TrainingResult(history, self.best.best_epoch, reason, message)

    def _fit(self, net: AugmentedNet, epochs: int) -> tuple[str, str]:
        """Train; return why it ended, and the start of a sentence where that was too early."""
        if self.best.is_out_of_patience(len(net.history)):
            return "patience", ""
        reason, cause = "epochs", ""
        # Not net.partial_fit: it would swallow Ctrl-C without a trace.
        net.notify("on_train_begin", X=self.data, y=None)
        try:
            net.fit_loop(self.data, epochs=epochs)
        except StoppedByCallback:
            reason = "callback"
            logger.info("Stopped by a callback after epoch %d.", len(net.history))
        except StopEarly:
            reason = "patience" if len(net.history) < self.settings.max_epochs else "epochs"
            logger.info("Stopped early; the best epoch was %d.", self.best.best_epoch)
        except KeyboardInterrupt:
            if _note_interrupt():  # meant for the search or the script that fits
                raise
            reason, cause = "interrupted", "Training was interrupted"
        except (SolverError, FloatingPointError) as error:
            if not any(map(_is_complete, net.history.to_list())):
                raise
            reason, cause = "broke down", f"Training broke down ({error})"
        # Not where an error ends this process: the others would be waited for, and never come.
        net.notify("on_train_end", X=self.data, y=None)
        return reason, cause

    def _check_answer(self) -> None:
        """Raise a FloatingPointError where weights that nothing validated give no finite answer."""
        image, _ = self.data[0]
        with torch.no_grad():
            answer = self.network.eval()(image[None].to(self.settings.device))
        if not answer.isfinite().all():
            raise FloatingPointError(
                "the answer of the trained network is not finite; a lower learning_rate may help"
            )

    def _explain(self, cause: str, n_epochs: int) -> str:
        best = self.best.best_epoch
        kept = f"the weights of epoch {best}" if best else "the last weights"
        total = self.settings.max_epochs
        return f"{cause} after {n_epochs} of {total} epochs; the model keeps {kept}."

    def _make_net(self) -> AugmentedNet:
        settings = self.settings
        accelerator = settings.accelerator
        loss = self.task.make_criterion().to(settings.device)
        make: Any = AugmentedNet
        place: dict[str, Any] = {"device": settings.device, "callbacks__print_log": None}
        rank, n_processes = 0, 1
        if accelerator is not None:
            # skorch's mix-in insists on the printing callback, so it stays, with nothing to say.
            make = make_distributed_net
            place = {"accelerator": accelerator, "callbacks__print_log__sink": noop}
            rank, n_processes = accelerator.process_index, accelerator.num_processes
        steps = math.ceil(len(self.batches) / n_processes)
        return make(
            self.network,
            # A function: Accelerate wraps modules, and fails on one that has nothing to train.
            criterion=lambda: loss.forward,
            optimizer=torch.optim.AdamW,
            optimizer__lr=settings.learning_rate,
            optimizer__weight_decay=_WEIGHT_DECAY,
            # torch wants 1 where the sampler makes batches, and images of validation go one by one.
            batch_size=1,
            iterator_train=LoadedAhead,
            iterator_train__batch_sampler=self.batches,
            iterator_train__pin_memory=settings.device.type == "cuda",
            # Loaders draw a seed for workers that there are none of: not from the global generator.
            iterator_train__generator=torch.Generator(),
            iterator_valid__generator=torch.Generator(),
            train_split=None if self.valid is None else predefined_split(self.valid),
            callbacks=self._make_callbacks(steps, main=rank == 0),
            callbacks__train_loss=None,
            callbacks__valid_loss=None,
            callbacks__epoch_timer=None,
            augmentation=self.task.make_augmentation() if settings.augment else None,
            seed=(settings.seed, rank),
            of_the_package=settings.network_of_the_package,
            ode_regularization=settings.ode_regularization,
            verbose=0,
            **place,
        )

    def _make_callbacks(self, steps: int, *, main: bool) -> list[tuple[str, Callback]]:
        """Return what hangs on the loop, by name, in the order in which it is told of each event.

        Parameters
        ----------
        steps : int
            Of an epoch, in this process.
        main : bool
            Whether this process writes and shows.
        """
        settings, accelerator = self.settings, self.settings.accelerator
        callbacks: list[tuple[str, Callback]] = [
            ("epoch", EpochNumber()),
            ("schedule", CosineSchedule(settings.learning_rate, steps, settings.max_epochs)),
            ("clipping", ClippedGradients(getattr(accelerator, "scaler", None) is not None)),
            ("scores", EpochScores(self.network, self.task, accelerator)),
        ]
        if settings.new_classes:
            scorers: Any = self.network.scorers
            layers = nn.ModuleList(scorers.values())
            rows = NewRows(layers, settings.new_classes, settings.learning_rate)
            callbacks.append(("new_rows", rows))
        checkpoint = settings.checkpoint if main else None
        end = EndOfEpoch(self.network, self.best, checkpoint, settings.max_epochs)
        callbacks.append(("end", end))
        if settings.verbose and main:
            callbacks.append(("progress", TrainingProgress(steps, settings.max_epochs)))
        for number, callback in enumerate(settings.callbacks):
            callbacks.append((f"users_{number}", UsersCallback(callback)))
        callbacks.append(("patience", Patience(self.best)))
        return callbacks

    def _resume(self, net: AugmentedNet, state: dict[str, Any], path: Path) -> None:
        try:
            self.network.load_state_dict(state["network"])
            net.optimizer_.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} holds a training of another network than this one, though the parameters "
                "are the same: its code has changed. Delete the file to train from the start."
            ) from error
        net.history_ = History(state["history"])
        best = state["best"]
        self.best.state = best["state"]
        self.best.best_loss, self.best.best_epoch = best["loss"], best["epoch"]


def _note_interrupt() -> bool:
    """Note a Ctrl-C; return whether one came seconds before, in this fit or in an earlier one."""
    global _last_interrupt
    before, _last_interrupt = _last_interrupt, time.monotonic()
    return _last_interrupt - before < _TWICE_WITHIN


def _is_complete(row: dict[str, Any]) -> bool:
    """Return whether an epoch of the history ran to its end."""
    return "seconds" in row
