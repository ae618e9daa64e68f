"""Fits on paths: what fits on the same pixels give, opened as they are needed."""

import numpy as np
import pytest
from messages import raises
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, cross_validate

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg._images import LazyImage, RecentImages
from bloodseg.datasets import load_folder
from bloodseg.estimators import _fit_data

PLAIN = {"network": "unet", "width": 2, "max_epochs": 1, "random_state": 0}


@pytest.fixture(scope="module")
def folder(odd_smears, tmp_path_factory):
    path = tmp_path_factory.mktemp("smears")
    for kind, arrays in zip(("images", "masks"), odd_smears, strict=True):
        (path / kind).mkdir()
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(path / kind / f"{number}.png")
    return path


@pytest.fixture
def files(folder):
    """Paths of images, and of label maps."""
    return [sorted((folder / kind).iterdir()) for kind in ("images", "masks")]


@pytest.mark.parametrize("parameters", [{}, {"preprocessor": None}, {"red_cell_diameter": 20}])
def test_a_fit_on_paths_is_that_on_pixels(files, odd_smears, same_weights, parameters):
    segmenter = BloodCellSegmenter(crop_size=32, **PLAIN, **parameters)
    of_pixels = segmenter.fit(*odd_smears).network_
    segmenter.fit(np.array(list(map(str, files[0]))), odd_smears[1])
    assert same_weights(segmenter.network_, of_pixels)
    mixed = [odd_smears[0][0], *files[0][1:]]
    assert same_weights(segmenter.fit(mixed, files[1]).network_, of_pixels)
    score = segmenter.score(*odd_smears)
    assert segmenter.score(files[0], files[1]) == score
    assert segmenter.score(files[0], files[1], sample_weight=np.ones(6)) == score


def test_what_does_not_fit_into_memory_is_read_again(files, odd_smears, same_weights, monkeypatch):
    monkeypatch.setattr(_fit_data, "_KEPT_BYTES", 0)
    validation = {"X_val": files[0][4:], "y_val": files[1][4:]}
    segmenter = BloodCellSegmenter(crop_size=32, **PLAIN)
    segmenter.fit(files[0][:4], files[1][:4], **validation)
    held = [array[4:] for array in odd_smears]
    alone = BloodCellSegmenter(crop_size=32, **PLAIN)
    alone.fit(odd_smears[0][:4], odd_smears[1][:4], X_val=held[0], y_val=held[1])
    assert same_weights(segmenter, alone)


def test_recent_images_stay_as_long_as_there_is_room():
    reads = []

    def lazy(number):
        def read():
            reads.append(number)
            return np.full((2, 4), number, np.uint8)

        return LazyImage(read, (2, 4))

    recent = RecentImages(16)  # bytes: two of them
    images = [recent.keep(lazy(number)) for number in range(3)]
    for number in (0, 1, 0, 2, 0, 1):
        assert (images[number][...] == number).all()
    assert reads == [0, 1, 2, 1]


def test_cross_validation_and_searches_take_lists_of_paths(files):
    segmenter = BloodCellSegmenter(crop_size=32, **PLAIN)
    found = cross_validate(segmenter, *files, cv=2, error_score="raise")
    assert np.isfinite(found["test_score"]).all()
    search = GridSearchCV(segmenter, {"learning_rate": [1e-3, 2e-3]}, cv=2, error_score="raise")
    assert search.fit(*files).best_params_["learning_rate"] in (1e-3, 2e-3)


class Learns(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.seen_ = [image.shape for image in X]
        return self

    def transform(self, X):
        return X


def test_a_preprocessor_that_learns_sees_all_training_images(files, odd_smears):
    segmenter = BloodCellSegmenter(Learns(), crop_size=32, validation_fraction=None, **PLAIN)
    assert segmenter.fit(*files).preprocessor_.seen_ == [image.shape for image in odd_smears[0]]


def test_wrong_files_are_found_before_training(files, tmp_path):
    segmenter = BloodCellSegmenter(crop_size=32, **PLAIN)
    with raises("none.png does not exist.", FileNotFoundError):
        segmenter.fit([*files[0][:5], tmp_path / "none.png"], files[1])
    (tmp_path / "junk.png").write_bytes(files[0][0].read_bytes()[:60])
    with raises("junk.png cannot be read as an image"):
        segmenter.fit([*files[0][:5], tmp_path / "junk.png"], files[1])
    with raises("masks[1] must have shape (40, 32), as its image has; got (32, 32)."):
        segmenter.fit(files[0], [files[1][0]] * 6)
    with raises("X_val[0] must have dtype bool, uint8, uint16 or floating point; got int64."):
        segmenter.fit(*files, X_val=[np.zeros((4, 4), int), files[0][0]], y_val=files[1][:2])


def test_checkpoints_go_by_what_files_show(files, odd_smears, tmp_path):
    segmenter = BloodCellSegmenter(crop_size=32, checkpoint_dir=tmp_path / "kept", **PLAIN)
    copies = [tmp_path / path.name for path in files[0]]
    for path, copy in zip(files[0], copies, strict=True):
        copy.write_bytes(path.read_bytes())

    def n_checkpoints(images):
        segmenter.fit(images, odd_smears[1])
        return len(list((tmp_path / "kept").iterdir()))

    assert [n_checkpoints(files[0]), n_checkpoints(copies)] == [1, 1]
    Image.fromarray(255 - odd_smears[0][0]).save(copies[0])
    assert n_checkpoints(copies) == 2


@pytest.mark.parametrize("scale", [0.8, 1.0])
def test_the_counter_takes_paths(files, odd_smears, same_weights, scale):
    counts = [[1, 2], [0, 3], [1, 4], [0, 5], [1, 1], [0, 2]]
    counter = BloodCellCounter(scale=scale, **PLAIN)
    of_pixels = counter.fit(odd_smears[0], counts).network_
    counted = counter.predict(odd_smears[0])
    assert same_weights(counter.fit(files[0], counts).network_, of_pixels)
    assert (counter.predict(files[0]) == counted).all()
    assert (counter.predict([odd_smears[0][0], *files[0][1:]]) == counted).all()
    assert len(counter.n_function_evaluations_) == 0
    assert counter.score(files[0], counts) == counter.score(odd_smears[0], counts)


def test_the_masks_of_a_folder_by_path(folder, files, odd_smears):
    assert [mask.tolist() for mask in load_folder(folder).masks] == [
        mask.tolist() for mask in odd_smears[1]
    ]
    with raises("none.png does not exist.", FileNotFoundError):
        BloodCellSegmenter(**PLAIN).fit(files[0], [*files[1][:5], folder / "none.png"])
