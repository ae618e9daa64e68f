"""Callbacks of the user's: what they see, how they stop, and the log's line an epoch."""

import logging

import pytest
from messages import raises
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.datasets import save_annotated

PLAIN = {"network": "unet", "width": 2, "random_state": 0}


class Watch(Callback):
    """Notes what it is told, and stops after an epoch."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after

    def on_train_begin(self, net, **kwargs):
        self.rows_, self.steps_ = [], 0

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.steps_ += 1

    def on_epoch_end(self, net, **kwargs):
        self.rows_.append(dict(net.history[-1]))
        net.history.record("mine", 7.0)
        net.history.record("object", self)
        if len(self.rows_) == self.stop_after:
            raise KeyboardInterrupt

    def on_train_end(self, net, **kwargs):
        self.ended_ = True


@pytest.mark.parametrize("kind", [BloodCellSegmenter, BloodCellCounter])
def test_callbacks_see_each_epoch_whole(kind, smears, tmp_path):
    watch = Watch()
    targets = smears.masks if kind is BloodCellSegmenter else smears.counts
    estimator = kind(max_epochs=2, callbacks=[watch], checkpoint_dir=tmp_path, **PLAIN)
    if kind is BloodCellCounter:
        estimator.set_params(scale=1)
    estimator.fit(smears.images, targets)
    assert watch.ended_
    assert watch.steps_ >= 2
    assert [row["mine"] for row in estimator.history_] == [7.0, 7.0]
    for row, kept in zip(watch.rows_, estimator.history_, strict=True):
        assert kept.keys() - {"mine"} <= row.keys()
        assert {"valid_loss", "seconds", "learning_rate"} <= kept.keys()
    estimator.save(tmp_path / "model.safetensors")
    assert kind.load(tmp_path / "model.safetensors").callbacks is None


@pytest.mark.parametrize("callback", [Watch(2), EarlyStopping(patience=1, threshold=1e9)])
def test_a_callback_that_stops_is_no_ctrl_c(tiny, smears, callback, recwarn):
    segmenter = tiny(network="unet", width=2, max_epochs=9, callbacks=[callback])
    for _ in range(2):  # twice at once, which would be passed on from Ctrl-C
        segmenter = clone(segmenter).fit(smears.images, smears.masks)
        assert segmenter.end_reason_ == "callback"
        assert len(segmenter.history_) == 2
    assert not [each for each in recwarn if "interrupted" in str(each.message)]


def test_patience_leaves_the_last_epoch_to_callbacks(tiny, smears):
    watch = Watch()
    more = {"early_stopping": True, "patience": 1, "learning_rate": 1e-9, "max_epochs": 9}
    segmenter = tiny(network="unet", callbacks=(watch,), **more).fit(smears.images, smears.masks)
    assert segmenter.end_reason_ == "patience"
    assert len(watch.rows_) == len(segmenter.history_)


def test_callbacks_do_not_change_what_is_learned(tiny, smears, same_weights):
    one, other = tiny(callbacks=[Watch()]), tiny()
    one.fit(smears.images, smears.masks)
    assert same_weights(one, other.fit(smears.images, smears.masks))


def test_one_line_an_epoch_is_logged(tiny, smears, caplog):
    with caplog.at_level(logging.INFO, "bloodseg"):
        tiny(network="unet").fit(smears.images, smears.masks)
    lines = [text for text in caplog.messages if text.startswith("Epoch ")]
    assert len(lines) == 2
    assert lines[1].startswith("Epoch 2 of 2: ")
    assert "train_loss " in lines[1]
    assert "valid_mean_iou " in lines[1]


def test_wrong_callbacks(tiny, smears):
    text = "callbacks must be a list of objects of skorch.callbacks.Callback or of classes derived"
    for wrong in ([Watch], [print]):
        with raises(text):
            tiny(callbacks=wrong).fit(smears.images, smears.masks)
    with raises("The 'callbacks' parameter of BloodCellSegmenter must be"):
        tiny(callbacks=Watch()).fit(smears.images, smears.masks)


def test_the_shells_history_grows(smears, tmp_path, monkeypatch):
    from bloodseg.cli import _train

    seen = []
    on_epoch_end = _train.HistoryFile.on_epoch_end

    def look(self, net, **kwargs):
        on_epoch_end(self, net, **kwargs)
        seen.append(self.path.read_text().splitlines())

    monkeypatch.setattr(_train.HistoryFile, "on_epoch_end", look)
    save_annotated(smears, tmp_path / "data", "masks")
    model = str(tmp_path / "cells.safetensors")
    options = ["--network", "unet", "--width", "2", "--max-epochs", "2", "--crop-size", "32", "-q"]
    assert main(["train", str(tmp_path / "data"), "-o", model, *options]) == 0
    assert [len(lines) for lines in seen] == [2, 3]
    assert (tmp_path / "cells.history.csv").read_text().splitlines() == seen[-1]
