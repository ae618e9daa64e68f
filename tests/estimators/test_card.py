"""Cards: what is known of a fitted model, kept in its file and shown."""

import pytest
from messages import raises

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg._images import counted
from bloodseg.cli import main
from bloodseg.estimators._base import NetworkEstimator
from bloodseg.estimators._model_file import read_header


def tiny(**parameters):
    settings = {"network": "unet", "width": 2, "max_epochs": 1, "crop_size": 32, "random_state": 0}
    return BloodCellSegmenter(**{**settings, **parameters})


def test_a_card_says_data_parameters_and_scores(fitted, tmp_path, capsys):
    n_valid = fitted.training_["validation_images"]
    assert fitted.training_["images"] + n_valid == 6
    card = fitted.card()
    assert f"{6 - n_valid} images; {counted(n_valid, 'other')} chose the epoch." in card
    assert "It started from new weights." in card
    assert "Network nodes-unet of width 4, for the classes background, white, red." in card
    assert "- width: 4" in card
    assert "learning_rate" not in card  # a default
    best = fitted.history_[fitted.best_epoch_ - 1]
    assert f"- mean iou: {best['valid_mean_iou']:.4g}" in card
    fitted.save(tmp_path / "m")
    assert BloodCellSegmenter.load(tmp_path / "m").card() == card
    assert main(["models", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == card
    assert main(["models", str(tmp_path / "none")]) == 2
    (tmp_path / "junk").write_text("x")
    assert main(["models", str(tmp_path / "junk")]) == 2
    assert "cannot be read as a model file" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:masks hold no white cells")
def test_a_card_counts_one_image_in_the_singular(smears):
    images, masks = smears.images, smears.masks
    one_each = tiny().fit(images[:1], masks[:1], X_val=images[1:2], y_val=masks[1:2])
    assert "\n1 image; 1 other chose the epoch. By" in one_each.card()
    alone = tiny(validation_fraction=None).fit(images[:1], masks[:1])
    assert "\n1 image. By" in alone.card()


def test_what_a_model_started_from_goes_with_it(smears, tmp_path):
    data = smears.images, smears.masks
    tiny(validation_fraction=None).fit(*data).save(tmp_path / "first")
    second = tiny(pretrained=tmp_path / "first", validation_fraction=None).fit(*data)
    second.save(tmp_path / "second")
    third = tiny(pretrained=str(tmp_path / "second")).fit(*data)
    assert third.training_["started_from"] == ("second", "first")
    assert "It started from second.\nThat one from first." in third.card()
    third.set_params(warm_start=True).fit(*data)
    assert third.training_["started_from"] == ("the fit before", "second", "first")
    assert "None are known: no images were held out." in second.card()
    assert str(tmp_path) not in str(read_header(tmp_path / "second"))


def test_cards_of_counters_and_of_earlier_files(smears, tmp_path, monkeypatch):
    counter = BloodCellCounter(width=2, network="unet", max_epochs=1, scale=1, random_state=0)
    counter.fit(smears.images, smears.counts)
    assert counter.card().startswith("# A BloodCellCounter")
    assert "- mae white: " in counter.card()
    with monkeypatch.context() as earlier:
        attributes = dict(NetworkEstimator._saved_attributes)
        del attributes["training_"]
        earlier.setattr(BloodCellCounter, "_saved_attributes", attributes)
        counter.save(tmp_path / "m")
    card = BloodCellCounter.load(tmp_path / "m").card()
    assert "Not known: the file is of an earlier version." in card
    published = BloodCellSegmenter.from_pretrained()
    assert "smears-5" in published.card()


@pytest.mark.parametrize("training", [{"images": 1}, {"started_from": ("a",)}])
def test_a_file_that_says_something_else_is_refused(fitted, tmp_path, training):
    fitted.training_ = training
    fitted.save(tmp_path / "m")
    with raises("training_ must say how many images there were; got {"):
        BloodCellSegmenter.load(tmp_path / "m")
