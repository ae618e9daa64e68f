"""What happens around skorch's loop: learning rate, scores, best weights, checkpoints."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from .._progress import open_bar, write_line
from ._checkpoint import Checkpoint

logger = logging.getLogger("bloodseg")

_WARM_UP = 0.05  # share of the steps over which the learning rate rises
_LAST_RATE = 0.01  # of the highest, at the end
_GRADIENT_NORM = 1.0
_RATE_OF_NEW_ROWS = 0.1
_LONGEST_STRETCH = 1000.0  # a step is rounded as weights in float32 are, and the rounding grows too


class StopEarly(KeyboardInterrupt):
    """Ends skorch's loop, which takes a KeyboardInterrupt as the wish to stop."""


class EpochNumber(Callback):
    """Tell the crops the epoch, from 1, which places and order are drawn for."""

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Count: skorch has already opened this epoch's row."""
        dataset_train.epoch = len(net.history)


class ClippedGradients(Callback):
    """Scale the gradient of a step down to a norm of 1 where it is larger.

    Parameters
    ----------
    skipped : bool
        Whether steps whose gradients are not finite are left out, as in training with float16.
    """

    def __init__(self, skipped: bool = False):
        self.skipped = skipped

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        """Clip.

        Raises
        ------
        FloatingPointError
            If the gradient is not finite: the step would make all weights NaN.
        """
        weights = [weight for _, weight in named_parameters]
        norm = nn.utils.clip_grad_norm_(weights, _GRADIENT_NORM)
        if not self.skipped and not math.isfinite(norm):
            # Gradients are those of all processes, so that all of them end here.
            raise _explain_break(net, "the gradient was")


def _explain_break(net: Any, what: str) -> FloatingPointError:
    return FloatingPointError(
        f"{what} not finite in epoch {len(net.history)}; a lower learning_rate may help"
    )


class CosineSchedule(Callback):
    """Warm up over the first steps, then fall along a cosine; a function of the step alone."""

    def __init__(self, learning_rate: float, steps_per_epoch: int, max_epochs: int):
        self.learning_rate = learning_rate
        self.steps_per_epoch = steps_per_epoch
        self.max_epochs = max_epochs

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 over the whole training."""
        total = self.steps_per_epoch * self.max_epochs
        warm = min(1.0, (step + 1) / max(1.0, _WARM_UP * total))
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
        return self.learning_rate * warm * (_LAST_RATE + (1 - _LAST_RATE) * fall)

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Count steps from the epoch's first."""
        self.step_ = (len(net.history) - 1) * self.steps_per_epoch

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Set the rate of the step to come."""
        if training:
            for group in net.optimizer_.param_groups:
                group["lr"] = self.rate(self.step_)
            self.step_ += 1


class NewRows(Callback):
    """Let rows of layers that begin anew learn at a rate of 0.1; all else as it does.

    At the network's rate where that is higher, and at a thousand times that at most.

    A network that goes on from trained weights is given a low rate, which moves a weight by a few
    thousandths in a short training; a row has to come from chance to weights of several units. On
    features that stay about as they are it is a logistic regression, which stands such a rate.

    The rows' step is stretched, weight decay with it, as a rate of their own would. To scale their
    gradient would do nothing, since AdamW divides by it, and groups of parameters cannot part a
    layer's rows.

    Parameters
    ----------
    layers : Module
        What has a row for each class in all its weights.
    rows : sequence of int
        Those that begin anew.
    learning_rate : float
        Highest rate of the network.
    """

    def __init__(self, layers: nn.Module, rows: Sequence[int], learning_rate: float):
        self.layers = layers
        self.rows = list(rows)
        self.stretch = min(max(1.0, _RATE_OF_NEW_ROWS / learning_rate), _LONGEST_STRETCH)

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        """Note where the step starts from."""
        self.before_ = [weight.detach()[self.rows] for weight in self.layers.parameters()]

    @torch.no_grad()
    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Stretch the step that was made."""
        if training:
            for weight, before in zip(self.layers.parameters(), self.before_, strict=True):
                weight[self.rows] = torch.lerp(before, weight[self.rows], self.stretch)


def is_score(name: str) -> bool:
    """Return whether a column of skorch's history is one of ours, not its own bookkeeping."""
    return name != "batches" and not name.endswith(("_best", "_batch_count", "_batch_size"))


class EpochScores(Callback):
    """Write losses, scores and evaluations of f of each epoch into the history.

    Sums, not means, are gathered, so that several processes come to the same numbers.

    Parameters
    ----------
    network : Module
        The network in training.
    task : Task
        Says what is scored in validation.
    accelerator : Accelerator, optional
        Joins the sums of several processes.
    """

    def __init__(self, network: nn.Module, task: Any, accelerator: Any = None):
        self.network = network
        self.task = task
        self.accelerator = accelerator

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Start all sums anew."""
        blocks = getattr(self.network, "ode_blocks", {})
        self.losses_ = {True: np.zeros(2), False: np.zeros(2)}
        self.evaluations_ = {position: np.zeros(2) for position in blocks}
        self.sums_ = self.task.start

    def on_batch_end(
        self,
        net: Any,
        batch: Any = None,
        training: bool = False,
        loss: Any = None,
        y_pred: Any = None,
        **kwargs: Any,
    ) -> None:
        """Add one batch to the sums."""
        _, (targets, _) = batch
        self.losses_[training] += (loss.item() * targets.numel(), targets.numel())
        if training:
            for position, block in getattr(self.network, "ode_blocks", {}).items():
                self.evaluations_[position] += (block.n_evaluations.sum(), len(targets))
        else:
            self.sums_ = self.sums_ + self.task.sum_up(y_pred, targets.to(y_pred.device))

    def on_epoch_end(self, net: Any, dataset_valid: Any = None, **kwargs: Any) -> None:
        """Join the sums of all processes and record the epoch.

        Raises
        ------
        FloatingPointError
            If the training loss, a weight or a running statistic is not finite.
        """
        train, valid = (self._sum_processes(self.losses_[training]) for training in (True, False))
        if not math.isfinite(_mean(train)):
            raise _explain_break(net, "the loss was")
        if self._sum_processes(np.array([not _is_finite(self.network)], dtype=float)).any():
            raise _explain_break(net, "weights or running statistics of the network were")
        history = net.history
        history.record("train_loss", _mean(train))
        if dataset_valid is not None:
            history.record("valid_loss", _mean(valid))
            for name, score in self.task.score(self._sum_processes(self.sums_)).items():
                history.record(f"valid_{name}", score)
        for position, sums in self.evaluations_.items():
            history.record(f"evaluations_{position}", _mean(self._sum_processes(sums)))
        history.record("learning_rate", net.optimizer_.param_groups[0]["lr"])

    def _sum_processes(self, sums: np.ndarray) -> np.ndarray:
        if self.accelerator is None:
            return sums
        tensor = torch.as_tensor(sums, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, reduction="sum").cpu().numpy()


def _is_finite(network: nn.Module) -> bool:
    state = network.state_dict().values()
    return all(bool(torch.isfinite(tensor).all()) for tensor in state)


def _mean(sums: np.ndarray) -> float:
    total, count = sums
    return float(total / count)


class BestWeights:
    """Keep the weights of the epoch with the lowest validation loss (paper, Section 3.2).

    Where nothing validates, those of the last finished epoch.

    Parameters
    ----------
    network : Module
        The network in training.
    patience : int, optional
        Stop after this many epochs without a lower loss.
    """

    def __init__(self, network: nn.Module, patience: int | None):
        self.network = network
        self.patience = patience
        self.state: dict[str, torch.Tensor] | None = None
        self.best_loss = math.inf
        self.best_epoch = 0

    def update(self, row: dict[str, Any], epoch: int) -> None:
        """Copy the weights where this epoch is the best so far."""
        loss = row.get("valid_loss")
        if loss is None or loss < self.best_loss:
            state = copy_to_cpu(self.network.state_dict())  # before Ctrl-C can part the three
            self.state, self.best_epoch = state, epoch
            self.best_loss = self.best_loss if loss is None else loss

    def is_out_of_patience(self, n_epochs: int) -> bool:
        """Return whether training has gone on for too long without a lower loss."""
        return self.patience is not None and n_epochs - self.best_epoch >= self.patience

    def restore(self) -> None:
        """Give the network the best weights, if any were kept."""
        if self.state is not None:
            self.network.load_state_dict(self.state)


def copy_to_cpu(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy a state dict to memory that later training steps do not change."""
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


class EndOfEpoch(Callback):
    """Close each epoch: best weights, checkpoint, a line in the log."""

    def __init__(
        self,
        network: nn.Module,
        best: BestWeights,
        checkpoint: Checkpoint | None,
        max_epochs: int,
    ):
        self.network = network
        self.best = best
        self.checkpoint = checkpoint
        self.max_epochs = max_epochs

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.started_ = time.perf_counter()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Mark the epoch as complete by its seconds; keep what a killed training goes on from."""
        net.history.record("seconds", time.perf_counter() - self.started_)
        self.best.update(net.history[-1], len(net.history))
        if self.checkpoint is not None:
            self.checkpoint.save(
                network=self.network.state_dict(),
                optimizer=net.optimizer_.state_dict(),
                history=net.history.to_list(),
                best={
                    "state": self.best.state,
                    "loss": self.best.best_loss,
                    "epoch": self.best.best_epoch,
                },
            )
        logger.info("Epoch %s", describe_epoch(net.history, self.max_epochs))


def describe_epoch(history: Sequence[dict[str, Any]], max_epochs: int) -> str:
    """Return the last epoch's number and its losses, scores, evaluations of f and seconds."""
    scores = ", ".join(f"{k} {v:.4g}" for k, v in numbers_of(history[-1]).items() if k != "epoch")
    return f"{len(history)} of {max_epochs}: {scores}"


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    """Return the scores of an epoch, those that a user's callbacks have recorded among them."""
    return {
        name: value
        for name, value in row.items()
        if is_score(name) and isinstance(value, (int, float))
    }


class Patience(Callback):
    """End training where patience has run out; last, so that all others see the epoch."""

    def __init__(self, best: BestWeights):
        self.best = best

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Look, and end."""
        if self.best.is_out_of_patience(len(net.history)):
            raise StopEarly


class StoppedByCallback(StopEarly):
    """A user's callback wants to end the training, as skorch's do by a KeyboardInterrupt."""


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note which signals raise a KeyboardInterrupt meanwhile: it looks like a callback's own."""
    noted: list[int] = []
    handlers: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        try:
            handlers[number](number, frame)
        except KeyboardInterrupt:
            noted.append(number)
            raise

    if threading.current_thread() is threading.main_thread():  # no other has them
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and callable(signal.getsignal(number)):
                handlers[number] = signal.getsignal(number)
    try:
        for number in handlers:
            signal.signal(number, note)
        yield noted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class UsersCallback(Callback):
    """A callback of the user's, whose wish to stop is told from Ctrl-C."""

    def __init__(self, callback: Callback):
        self.callback = callback

    def initialize(self) -> UsersCallback:
        """Initialize the user's."""
        self.callback.initialize()
        return self

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Pass it on, as the following do."""
        self.callback.on_train_begin(net, **kwargs)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self.callback.on_train_end(net, **kwargs)

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.callback.on_epoch_begin(net, **kwargs)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Pass it on; a KeyboardInterrupt is a wish to stop.

        Raises
        ------
        StoppedByCallback
            If the callback wants to stop.
        """
        with _signals_noted() as signals:
            try:
                self.callback.on_epoch_end(net, **kwargs)
            except KeyboardInterrupt as stop:
                if signals:  # Ctrl-C, which came while the callback was at work
                    raise
                raise StoppedByCallback from stop

    def on_batch_begin(self, net: Any, **kwargs: Any) -> None:
        self.callback.on_batch_begin(net, **kwargs)

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        self.callback.on_batch_end(net, **kwargs)

    def on_grad_computed(self, net: Any, named_parameters: Any, **kwargs: Any) -> None:
        self.callback.on_grad_computed(net, named_parameters, **kwargs)


def check_callbacks(callbacks: Any) -> list[Callback]:
    """Return callbacks as a list.

    Raises
    ------
    ValueError
        If they are not a list of objects of skorch's class `Callback`.
    """
    if callbacks is None:
        return []
    given = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    for each in given:
        if not isinstance(each, Callback):
            raise ValueError(
                "callbacks must be a list of objects of skorch.callbacks.Callback or of classes "
                f"derived from it; got {each!r}. Make objects of classes, as TensorBoard(writer)."
            )
    return given


class TrainingProgress(Callback):
    """Show how far the training is: a bar over all steps, or in a log a line an epoch."""

    def __init__(self, steps_per_epoch: int, max_epochs: int):
        self.steps_per_epoch = steps_per_epoch
        self.max_epochs = max_epochs

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the bar where the training stands."""
        self.bar_ = open_bar(
            self.steps_per_epoch * self.max_epochs,
            label="training",
            unit="step",
            done=self.steps_per_epoch * len(net.history),
        )

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Move the bar by a step."""
        if training and self.bar_ is not None:
            self.bar_.update()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Show what the epoch came to."""
        if self.bar_ is None:
            write_line(f"training: epoch {describe_epoch(net.history, self.max_epochs)}")
            return
        row = net.history[-1]
        shown = {
            "epoch": f"{len(net.history)}/{self.max_epochs}",
            "loss": f"{row['train_loss']:.3f}",
        }
        scores = (name for name in row if name.startswith("valid_") and is_score(name))
        shown |= {name: f"{row[name]:.3f}" for name in scores}
        self.bar_.set_postfix(shown)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Leave the bar as it stands."""
        if self.bar_ is not None:
            self.bar_.close()
