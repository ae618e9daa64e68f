"""Why trainings end, and what is left of those whose numbers are no longer finite."""

import math
import re
import signal
import warnings

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.networks import NODEsUNet
from bloodseg.ode import SolverError
from bloodseg.training import _callbacks as callbacks
from bloodseg.training import _train


@pytest.fixture
def make(tiny):
    """Return a function that makes a small segmenter of a plain U-Net."""

    def make(**parameters):
        return tiny(**{"network": "unet", "max_epochs": 4, "batch_size": 2, **parameters})

    return make


def spoil_loss(monkeypatch, epoch, spoil, *, training=True):
    """Change the loss of each batch of an epoch."""
    original = _train.AugmentedNet.get_loss

    def get_loss(self, *args, training=False, **kwargs):
        loss = original(self, *args, training=training, **kwargs)
        spoilt = training is wanted and len(self.history) in epochs
        return spoil(loss) if spoilt else loss

    wanted, epochs = training, epoch if isinstance(epoch, range) else (epoch,)
    monkeypatch.setattr(_train.AugmentedNet, "get_loss", get_loss)


def make_nan(loss):
    return loss * math.nan


def make_gradient_infinite(loss):
    loss.register_hook(lambda gradient: gradient * math.inf)
    return loss


def spoil_state(monkeypatch, epoch, name):
    """Put an infinity into weights or buffers of the network at the end of an epoch."""
    original = callbacks.EpochScores.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == epoch:
            with torch.no_grad():
                self.network.state_dict()[name].view(-1)[0] = math.inf
        original(self, net, **kwargs)

    monkeypatch.setattr(callbacks.EpochScores, "on_epoch_end", on_epoch_end)


def watch_epochs(monkeypatch):
    """Return a list that takes the weights after each epoch."""
    seen = []
    original = callbacks.EndOfEpoch.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        seen.append(callbacks.copy_to_cpu(self.network.state_dict()))
        original(self, net, **kwargs)

    monkeypatch.setattr(callbacks.EndOfEpoch, "on_epoch_end", on_epoch_end)
    return seen


WAYS = {
    "loss": (lambda patch, epoch: spoil_loss(patch, epoch, make_nan), "the gradient was"),
    "gradient": (
        lambda patch, epoch: spoil_loss(patch, epoch, make_gradient_infinite),
        "the gradient was",
    ),
    "loss without gradient": (
        lambda patch, epoch: spoil_loss(patch, epoch, lambda loss: loss + math.inf),
        "the loss was",
    ),
    "statistics": (
        lambda patch, epoch: spoil_state(patch, epoch, "stages.0.0.1.running_var"),
        "weights or running statistics of the network were",
    ),
    "weights": (
        lambda patch, epoch: spoil_state(patch, epoch, "head.bias"),
        "weights or running statistics of the network were",
    ),
}


@pytest.mark.parametrize("fraction", [0.25, None])
@pytest.mark.parametrize("way", WAYS)
def test_numbers_that_are_not_finite_end_a_training(make, smears, monkeypatch, way, fraction):
    spoil, what = WAYS[way]
    spoil(monkeypatch, 3)
    seen = watch_epochs(monkeypatch)
    model = make(validation_fraction=fraction)
    with pytest.warns(UserWarning, match="Training broke down") as caught:
        model.fit(smears.images, smears.masks)
    assert [str(warning.message) for warning in caught] == [
        f"Training broke down ({what} not finite in epoch 3; a lower learning_rate may help) after "
        f"2 of 4 epochs; the model keeps the weights of epoch {model.best_epoch_}."
    ]
    assert caught[0].filename == __file__
    assert (model.end_reason_, len(model.history_)) == ("broke down", 2)
    assert model.best_epoch_ in ((1, 2) if fraction else (2,))
    kept = model.network_.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in seen[model.best_epoch_ - 1].items())
    assert all(math.isfinite(row["train_loss"]) for row in model.history_)
    assert np.isfinite(model.predict_proba(smears.images)).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fraction", [0.25, None])
def test_in_the_first_epoch_there_is_no_model(make, smears, monkeypatch, way, fraction):
    spoil, what = WAYS[way]
    spoil(monkeypatch, 1)
    model = make(validation_fraction=fraction)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FloatingPointError, match=f"^{what} not finite in epoch 1; a lower "):
            model.fit(smears.images, smears.masks)
    assert not hasattr(model, "network_")
    assert not hasattr(model, "end_reason_")


def test_a_learning_rate_that_is_far_too_high(make, smears):
    with pytest.raises(FloatingPointError, match="not finite in epoch 1; a lower learning_rate"):
        make(learning_rate=1e30).fit(smears.images, smears.masks)


def test_a_counter_breaks_down_alike(smears, monkeypatch):
    spoil_loss(monkeypatch, 2, make_nan)
    counter = BloodCellCounter(width=4, max_epochs=3, random_state=0, network="unet", scale=1.0)
    with pytest.warns(UserWarning, match=r"Training broke down .* after 1 of 3 epochs"):
        counter.fit(smears.images, smears.counts)
    assert counter.end_reason_ == "broke down"
    assert np.isfinite(counter.predict(smears.images)).all()


def test_an_epoch_without_a_finite_validation_loss_is_not_kept(make, smears, monkeypatch):
    spoil_loss(monkeypatch, range(2, 5), make_nan, training=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make().fit(smears.images, smears.masks)
    assert (model.best_epoch_, len(model.history_), model.end_reason_) == (1, 4, "epochs")


def test_no_epoch_with_a_finite_validation_loss_is_an_error(make, smears, monkeypatch):
    spoil_loss(monkeypatch, range(1, 5), make_nan, training=False)
    model = make()
    with pytest.raises(FloatingPointError, match=r"no epoch had a finite validation loss\. Lower"):
        model.fit(smears.images, smears.masks)
    assert not hasattr(model, "network_")


@pytest.mark.parametrize("epochs", [1, 2])
def test_finite_weights_without_a_finite_answer_are_no_model(make, smears, monkeypatch, epochs):
    # Far too large for what they multiply: the statistics of batches hide it in training.
    original = callbacks.EpochScores.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        with torch.no_grad():
            self.network.stages[0][0][1].weight.fill_(1e38)
            self.network.stages[0][0][1].running_var.fill_(1e-30)
        original(self, net, **kwargs)

    monkeypatch.setattr(callbacks.EpochScores, "on_epoch_end", on_epoch_end)
    model = make(max_epochs=epochs, validation_fraction=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FloatingPointError, match="the answer of the trained network is not "):
            model.fit(smears.images, smears.masks)
    assert not hasattr(model, "network_")


def test_nothing_is_said_to_be_kept_where_nothing_is(make, smears, monkeypatch):
    # The first steps of the solver are found when training is over.
    def fail(self, x):
        raise SolverError("steps")

    monkeypatch.setattr(NODEsUNet, "calibrate", fail)
    spoil_loss(monkeypatch, 2, make_nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SolverError, match=r"^steps$"):
            make(network="nodes-unet", ode_positions=(5,)).fit(smears.images, smears.masks)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_while_a_callback_works_is_no_wish_of_the_callback(make, smears, number):
    def stop(number, frame):  # as the shell has one of its own
        raise KeyboardInterrupt

    class Busy(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                signal.raise_signal(number)

    before = signal.signal(number, stop)
    try:
        with pytest.warns(UserWarning, match="Training was interrupted after 2 of 4 epochs"):
            model = make(callbacks=[Busy()]).fit(smears.images, smears.masks)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert model.end_reason_ == "interrupted"


@pytest.mark.parametrize("moment", ["validation", "step", "between", "first epoch"])
def test_ctrl_c_leaves_the_weights_that_it_says(make, smears, monkeypatch, moment):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    seen = watch_epochs(monkeypatch)
    if moment in ("validation", "step"):
        spoil_loss(monkeypatch, 3, interrupt, training=moment == "step")
    elif moment == "first epoch":
        spoil_loss(monkeypatch, 1, interrupt, training=False)
    else:  # when the third epoch is over, but its weights are not kept yet
        copy = callbacks.copy_to_cpu
        monkeypatch.setattr(
            callbacks, "copy_to_cpu", lambda state: copy(state) if len(seen) < 3 else interrupt()
        )
    model = make(validation_fraction=None if moment == "step" else 0.25)
    with pytest.warns(UserWarning, match="Training was interrupted after"):
        model.fit(smears.images, smears.masks)
    assert model.end_reason_ == "interrupted"
    if moment == "first epoch":
        assert (model.history_, model.best_epoch_) == ([], 0)
        assert model.end_message_.endswith("after 0 of 4 epochs; the model keeps the last weights.")
        return
    assert len(model.history_) == (3 if moment == "between" else 2)
    kept = model.network_.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in seen[model.best_epoch_ - 1].items())


def test_why_training_ended_is_saved(make, smears, monkeypatch, tmp_path):
    spoil_loss(monkeypatch, 3, make_nan)
    model = make()
    with pytest.warns(UserWarning, match="Training broke down"):
        model.fit(smears.images, smears.masks)
    model.save(tmp_path / "m.safetensors")
    loaded = BloodCellSegmenter.load(tmp_path / "m.safetensors")
    assert loaded.end_reason_ == "broke down"
    assert loaded.end_message_ == model.end_message_


def test_a_network_that_is_not_finite_is_sure_of_nothing(make, smears):
    model = make(max_epochs=1).fit(smears.images, smears.masks)
    for bad in (math.nan, math.inf):
        with torch.no_grad():
            model.network_.head.bias[1] = bad
        for method in (model.predict, model.predict_proba, model.count, model.predict_instances):
            with pytest.raises(FloatingPointError, match="the network's answer is not finite: "):
                method(smears.images)
    with torch.no_grad():  # a class that is ruled out is no such thing
        model.network_.head.bias[1] = -math.inf
    assert not (model.predict(smears.images) == 1).any()


def test_halved_weights_stay_finite(make, smears, tmp_path):
    model = make(max_epochs=1).fit(smears.images, smears.masks)
    norm = model.network_.stages[0][0][1]
    norm.running_var[0] = 1e6  # more than float16 holds
    model.save(tmp_path / "m.safetensors", half_precision=True)
    loaded = BloodCellSegmenter.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.network_.stages[0][0][1].running_var, norm.running_var)
    weight = loaded.network_.head.weight
    assert torch.equal(weight, model.network_.head.weight.half().float())


class Small(torch.nn.Module):
    channels = 4

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, self.channels, 3, padding=1)
        self.last = torch.nn.Conv2d(self.channels, 3, 1)

    def forward(self, x):
        return self.last(self.first(x))


def test_a_checkpoint_of_a_network_whose_code_has_changed(make, smears, tmp_path, monkeypatch):
    make(network=Small, checkpoint_dir=tmp_path).fit(smears.images, smears.masks)
    monkeypatch.setattr(Small, "channels", 5)
    (path,) = tmp_path.iterdir()
    text = f"{path} holds a training of another network than this one, though the parameters are "
    with pytest.raises(ValueError, match=re.escape(text)):
        make(network=Small, checkpoint_dir=tmp_path).fit(smears.images, smears.masks)


@pytest.mark.parametrize(("max_epochs", "reason"), [(4, "patience"), (3, "epochs")])
def test_a_training_gone_on_with_says_the_same(
    make, smears, monkeypatch, tmp_path, max_epochs, reason
):
    losses = {1: 1.0, 2: 2.0, 3: 3.0}
    record = callbacks.EpochScores.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        record(self, net, **kwargs)
        net.history.record("valid_loss", losses[len(net.history)])

    monkeypatch.setattr(callbacks.EpochScores, "on_epoch_end", on_epoch_end)
    for _ in range(2):
        model = make(
            max_epochs=max_epochs, early_stopping=True, patience=2, checkpoint_dir=tmp_path
        ).fit(smears.images, smears.masks)
        assert (model.end_reason_, model.best_epoch_) == (reason, 1)
