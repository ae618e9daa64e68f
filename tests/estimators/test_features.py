"""SmearFeatures: what its numbers are, and scikit-learn's contract."""

import copy

import joblib
import numpy as np
import pytest
from messages import raises
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from bloodseg import BloodCellSegmenter, SmearFeatures
from bloodseg.datasets import make_smears

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*looks unlike a stained smear"),
    pytest.mark.filterwarnings("ignore:.*failed to converge"),
]


@pytest.fixture(scope="module")
def smears():
    return make_smears(4, image_size=72, red_cell_diameter=14, white_cells=(1, 2), random_state=3)


@pytest.fixture(scope="module")
def shared_fitted(smears):
    """A segmenter that has learned to find these cells."""
    segmenter = BloodCellSegmenter(
        network="unet", width=4, max_epochs=8, crop_size=64, batch_size=1, learning_rate=1e-2,
        validation_fraction=None, augment=False, random_state=0,
    )  # fmt: skip
    return segmenter.fit(smears.images, smears.masks)


@pytest.fixture(scope="module")
def table(shared_fitted, smears):
    return SmearFeatures(shared_fitted).set_output(transform="pandas").fit_transform(smears.images)


def test_a_row_sums_up_the_cells_of_its_smear(table, shared_fitted, smears):
    assert len(table) == len(smears.images)
    cells = shared_fitted.measure(smears.images)
    counts = shared_fitted.count(smears.images, excluded_sides=("bottom", "right"))
    found = list(shared_fitted.segment(smears.images))
    for place, row in enumerate(table.to_dict("records")):
        of_smear = cells[(cells["image"] == place) & ~cells["touches_border"]]
        megapixels = found[place].cells().frame.area / 1e6
        for name in ("white", "red"):
            n_cells = counts[f"{name}_in_frame"][place]
            assert row[f"{name}_per_megapixel"] == pytest.approx(n_cells / megapixels)
            of_class = of_smear[of_smear["class"] == name]
            for measure in ("diameter", "circularity", "eccentricity", "mean_blue"):
                quartiles = of_class[measure].quantile([0.25, 0.5, 0.75]).tolist()
                values = [row[f"{name}_{measure}_median"], row[f"{name}_{measure}_iqr"]]
                wanted = [quartiles[1], quartiles[2] - quartiles[0]]
                assert values == pytest.approx(wanted, nan_ok=True)
        share = of_smear["nucleus_area"] / of_smear["area"]
        wanted = share[of_smear["class"] == "white"].median()
        assert row["white_nucleus_share_median"] == pytest.approx(wanted, nan_ok=True)
        assert row["confidence"] == pytest.approx(counts["confidence"][place])
    assert table["red_per_megapixel"].gt(0).all()
    assert table["white_diameter_median"].notna().any()


def test_where_there_are_no_cells(shared_fitted):
    (row,) = SmearFeatures(shared_fitted).fit().transform(np.full((1, 40, 40, 3), 255, np.uint8))
    named = dict(zip(SmearFeatures(shared_fitted).fit().get_feature_names_out(), row, strict=True))
    assert not shared_fitted.count(np.full((1, 40, 40, 3), 255, np.uint8))[["white", "red"]].any(
        axis=None
    )
    assert named["red_per_megapixel"] == named["white_per_megapixel"] == 0
    missing = {name for name, value in named.items() if np.isnan(value)}
    assert missing == set(named) - {"red_per_megapixel", "white_per_megapixel", "confidence"}


def test_names_and_units(shared_fitted, smears, table):
    features = SmearFeatures(shared_fitted).fit()
    names = features.get_feature_names_out()
    assert names.tolist() == table.columns.tolist()
    assert len(set(names)) == len(names)
    assert "red_pallor_median" in names
    assert "white_pallor_median" not in names
    plain = features.transform(smears.images)
    assert isinstance(plain, np.ndarray)
    assert np.array_equal(plain, table.to_numpy(), equal_nan=True)
    segmenter = copy.copy(shared_fitted).set_params(pixel_size=0.5)
    in_um = SmearFeatures(segmenter, unit="um").set_output(transform="pandas")
    in_um = in_um.fit_transform(smears.images)
    assert in_um["red_per_mm2"].to_numpy() == pytest.approx(4 * table["red_per_megapixel"])
    for end in ("median", "iqr"):
        wanted = (table[f"red_diameter_{end}"] / 2).to_numpy()
        assert in_um[f"red_diameter_{end}"].to_numpy() == pytest.approx(wanted, nan_ok=True)
    in_px = SmearFeatures(segmenter).fit().transform(smears.images)  # whatever a pixel is
    assert in_px == pytest.approx(plain, nan_ok=True)
    assert shared_fitted.pixel_size is None
    with raises(
        "unit='um' needs the size of a pixel, which images[0] does not tell. Set it: Smear"
    ):
        SmearFeatures(shared_fitted, unit="um").fit().transform(smears.images)


def test_fields_of_a_smear_and_folders(shared_fitted, smears, tmp_path):
    for name, image in zip("ab", smears.images, strict=False):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    features = SmearFeatures(shared_fitted).fit()
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    expected = features.transform(smears.images[:2])
    assert features.transform(paths) == pytest.approx(expected, nan_ok=True)
    assert features.transform(paths[1:]) == pytest.approx(expected[1:], nan_ok=True)
    together = features.transform([tuple(paths), str(tmp_path), list(smears.images[:2])])
    assert together[1:] == pytest.approx(np.tile(together[0], (2, 1)), nan_ok=True)
    assert features.transform(str(tmp_path)).shape == (1, len(expected[0]))
    names = features.get_feature_names_out().tolist()
    density = names.index("red_per_megapixel")
    assert expected[:, density].min() <= together[0, density] <= expected[:, density].max()
    with raises(f"{tmp_path / 'none.png'} does not exist.", FileNotFoundError):
        features.transform([tmp_path / "none.png"])


def test_clone_keeps_the_segmenter_fitted_and_apart(shared_fitted, smears, table):
    features = SmearFeatures(shared_fitted).set_output(transform="pandas")
    twin = clone(features)
    assert twin.segmenter is not shared_fitted
    assert twin.segmenter.network_ is shared_fitted.network_
    twin.set_params(segmenter__tile_size=None)
    assert shared_fitted.tile_size == "auto"
    assert twin.fit_transform(smears.images).columns.tolist() == table.columns.tolist()
    fitted = features.fit()
    assert fitted.segmenter_ is not shared_fitted
    with pytest.raises(NotFittedError):
        clone(fitted).transform(smears.images)


def test_a_pipeline_is_searched_and_kept(shared_fitted, smears, tmp_path):
    pipeline = make_pipeline(
        SmearFeatures(shared_fitted),
        SimpleImputer(keep_empty_features=True),
        LogisticRegression(max_iter=1),
    )
    answers = [0, 1, 0, 1]
    search = GridSearchCV(pipeline, {"smearfeatures__segmenter__tile_size": [None]}, cv=2)
    search.fit(list(smears.images), answers)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    joblib.dump(search.best_estimator_, tmp_path / "p")
    loaded = joblib.load(tmp_path / "p")
    some = smears.images[:2]
    assert np.array_equal(loaded.predict(some), search.predict(some))


def test_models_by_name_and_file(shared_fitted, smears, tmp_path, table, same_weights):
    shared_fitted.save(tmp_path / "m")
    by_file = SmearFeatures(tmp_path / "m").fit().transform(smears.images)
    assert np.array_equal(by_file, table.to_numpy(), equal_nan=True)
    published = BloodCellSegmenter.from_pretrained("smears-5")
    for name in (None, "smears-5"):
        taken = SmearFeatures(name).fit().segmenter_
        assert same_weights(taken, published)
        assert taken.red_cell_diameter == "auto"


def test_what_is_refused(smears):
    with raises("The 'unit' parameter of SmearFeatures must be a str among"):
        SmearFeatures(unit="mm").fit()
    with raises("segmenter must be fitted; this BloodCellSegmenter is not.", NotFittedError):
        SmearFeatures(BloodCellSegmenter()).fit()
    with raises("segmenter must be that of a published model, one of smears-5, a model file"):
        SmearFeatures("none").fit()
    with pytest.raises(NotFittedError):
        SmearFeatures().transform(smears.images)
    tags = get_tags(SmearFeatures())
    assert tags.input_tags.three_d_array
    assert not tags.target_tags.required
