"""The published weights: there, honest about themselves, at work, and ready to be trained on."""

import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from bloodseg import BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.datasets import make_smears
from bloodseg.metrics import mean_iou, mean_iou_scorer
from bloodseg.models import list_models, model_card, model_path


@pytest.fixture(scope="module")
def smears():
    return make_smears(4, 144, random_state=0)


@pytest.fixture(scope="module")
def pretrained():
    return BloodCellSegmenter.from_pretrained()


@pytest.fixture(scope="module")
def maps(pretrained, smears):
    """What the published weights make of these smears."""
    return pretrained.predict(smears.images)


def test_the_models_leave_the_wheel_under_16_megabytes():
    assert sum(model_path(name).stat().st_size for name in list_models()) < 15e6


@pytest.mark.parametrize("name", list_models())
def test_each_model_has_a_file_and_a_card(name):
    assert 1e5 < model_path(name).stat().st_size < 25e6
    card = model_card(name)
    assert card.startswith(f"# {name}\n")
    for heading in ("## Trained on", "## Licences", "## Scores", "## Limits"):
        assert heading in card
    assert "not a medical device" in card
    assert isinstance(BloodCellSegmenter.from_pretrained(name), BloodCellSegmenter)


def test_names_that_are_none():
    names = ", ".join(list_models())
    text = f"name must be that of a published model, one of {names}; got 'x'. Open a"
    for opened in (model_path, model_card):
        with pytest.raises(ValueError, match=re.escape(text)):
            opened("x")


def test_it_segments_smears_it_has_never_seen(pretrained, smears, maps):
    assert mean_iou(smears.masks, maps) > 0.6
    counts = pretrained.count(smears.images)[["white", "red"]].to_numpy()
    assert np.abs(counts - smears.counts).mean() < 0.35 * smears.counts[:, 1].mean()


def test_densities_of_predicted_cells_do_not_depend_on_the_size_of_a_photo():
    images = make_smears(
        3, 512, random_state=0, red_cell_diameter=36, density=(0.4, 0.6), white_cells=(0, 0)
    ).images
    photos = [
        image[top : top + 128, left : left + 128]
        for image in images
        for top in range(0, 512, 128)
        for left in range(0, 512, 128)
    ]
    segmenter = BloodCellSegmenter.from_pretrained(red_cell_diameter=None)
    whole, parts = (segmenter.predict_instances(each) for each in (images, photos))

    def density(fields):
        area = sum(cells.frame.area for cells in fields)
        return sum(cells.counts_in_frame["red"] for cells in fields) / area

    # Of some 350 cells, so ten may be noise; docs/cells.md has what more of them give.
    assert density(parts) == pytest.approx(density(whole), rel=0.05)
    n_whole, n_parts = (sum(cells.counts["red"] for cells in each) for each in (whole, parts))
    assert n_parts > 1.15 * n_whole


def test_parameters(pretrained):
    assert pretrained.pretrained == list_models()[0]
    assert pretrained.red_cell_diameter == "auto"
    changed = BloodCellSegmenter.from_pretrained(pixel_size=0.1, max_epochs=3)
    assert (changed.pixel_size, changed.max_epochs) == (0.1, 3)
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        BloodCellSegmenter.from_pretrained(colour="red")


def test_fine_tuning_starts_from_the_weights(smears, maps):
    tiny = {"learning_rate": 1e-9, "max_epochs": 1, "augment": False, "random_state": 0}
    segmenter = BloodCellSegmenter.from_pretrained(**tiny)
    tuned = clone(segmenter).fit(smears.images[:1], smears.masks[:1])
    # Rates of 1e-9 move no weight; batch normalisation sees the new images all the same.
    weights = segmenter.network_.state_dict()
    for name, weight in tuned.network_.named_parameters():
        assert np.allclose(weight.detach(), weights[name], atol=1e-6), name
    assert (tuned.predict(smears.images) == maps).mean() > 0.9


def test_a_saved_model_knows_its_pretrained_weights(pretrained, tmp_path):
    pretrained.save(tmp_path / "m")
    assert BloodCellSegmenter.load(tmp_path / "m").pretrained == list_models()[0]


def test_fine_tuning_in_searches(smears):
    """Clones start from the weights, too: without them, one epoch would give next to nothing."""
    segmenter = BloodCellSegmenter.from_pretrained(max_epochs=1, crop_size=64, random_state=0)
    search = GridSearchCV(
        segmenter,
        {"learning_rate": [1e-9, 1e-4]},
        cv=[([0], [1])],
        scoring=mean_iou_scorer,
        refit=False,
        error_score="raise",
    )
    search.fit(smears.images[:2, :80, :80], smears.masks[:2, :80, :80])
    assert (search.cv_results_["mean_test_score"] > 0.5).all()


def test_other_networks_do_not_take_the_weights(smears):
    segmenter = BloodCellSegmenter(width=4, pretrained=list_models()[0], max_epochs=1)
    with pytest.raises(ValueError, match=r"the parameters describe, network='nodes-unet', width=4"):
        segmenter.fit(smears.images, smears.masks)


def test_half_precision_halves_the_file(tmp_path, smears):
    segmenter = BloodCellSegmenter(width=4, max_epochs=1, crop_size=32, random_state=0)
    segmenter.fit(smears.images, smears.masks)
    segmenter.save(tmp_path / "whole")
    segmenter.save(tmp_path / "half", half_precision=True)
    whole, half = ((tmp_path / name).stat().st_size for name in ("whole", "half"))
    assert half < 0.6 * whole
    maps = [BloodCellSegmenter.load(tmp_path / n).predict(smears.images) for n in ("whole", "half")]
    assert (maps[0] == maps[1]).mean() > 0.98


def test_the_command_line_uses_it(tmp_path, smears, capsys):
    from skimage.io import imsave

    imsave(tmp_path / "smear.png", smears.images[0])
    assert main(["count", str(tmp_path / "smear.png"), "--quiet"]) == 0
    assert "smear.png" in capsys.readouterr().out
    assert main(["models"]) == 0
    assert model_card() in capsys.readouterr().out
    assert main(["models", list_models()[0]]) == 0
    assert main(["models", "other"]) == 2
    assert "There is no model file at other. Published models: " in capsys.readouterr().err
