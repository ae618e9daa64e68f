"""What models say of images that they were not fitted to, and where labels are perhaps wrong."""

import numpy as np
import pandas as pd
import pytest
from messages import raises
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupKFold, ShuffleSplit

from bloodseg import BloodCellCounter
from bloodseg.model_selection import cross_val_predict, rank_label_errors


class Memory(BaseEstimator):
    """Answers with the images that it was fitted to, and the weights that came with them."""

    def fit(self, X, y, weight=None, other=None):
        self.seen_ = [int(image[0, 0]) for image in X]
        assert self.seen_ == [int(mask[0, 0]) for mask in y]
        assert weight is None or self.seen_ == list(weight)
        assert other in (None, "as it is")
        return self

    def predict(self, X):
        return [self.seen_ for _ in X] if isinstance(X, list) else np.array([self.seen_ for _ in X])


def numbered(n):
    return [np.full((3 + i, 4), i) for i in range(n)]


def test_no_image_is_predicted_by_a_model_that_has_seen_it():
    X = numbered(6)
    params = {"weight": list(range(6)), "other": "as it is"}
    groups = [0, 0, 1, 1, 2, 2]
    cv = GroupKFold(3)
    found = cross_val_predict(Memory(), X, X, cv=cv, groups=groups, params=params)
    for image, seen in enumerate(found):
        assert len(seen) == 4
        assert groups[image] not in [groups[each] for each in seen]


def test_maps_and_probabilities_of_lists_and_arrays(tiny, smears, odd_smears):
    segmenter = tiny(network="unet", width=2, max_epochs=1)
    images, masks = odd_smears
    maps = cross_val_predict(segmenter, images, masks, cv=2)
    assert [each.shape for each in maps] == [mask.shape for mask in masks]
    first = segmenter.fit(images[3:], masks[3:]).predict(images[:3])
    assert all((a == b).all() for a, b in zip(maps, first, strict=False))
    probabilities = cross_val_predict(
        segmenter, smears.images, smears.masks, cv=2, method="predict_proba"
    )
    assert probabilities.shape == (6, 32, 32, 3)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)


def test_counts(smears):
    counter = BloodCellCounter(network="unet", width=2, max_epochs=1, scale=1, random_state=0)
    images = list(smears.images)
    assert cross_val_predict(counter, images, smears.counts, cv=2).shape == (6, 2)


def test_counts_may_be_a_table():
    class Total(BaseEstimator):
        def fit(self, X, y):
            self.total_ = y.to_numpy().sum(axis=0)
            return self

        def predict(self, X):
            return np.array([self.total_ for _ in X])

    counts = pd.DataFrame({"white": [1, 2, 3, 4], "red": [50, 60, 70, 80]}, index=list("abcd"))
    found = cross_val_predict(Total(), numbered(4), counts, cv=2)
    assert found.tolist() == [[7, 150], [7, 150], [3, 110], [3, 110]]


@pytest.mark.parametrize(
    ("cv", "text"),
    [
        (
            ShuffleSplit(1, test_size=1, random_state=0),
            "cv must put each image into one test fold;",
        ),
        ([([1], [0]), ([1], [0])], "it puts image 0 into several."),
        ([([1], [0])], "it puts image 1 into none."),
    ],
)
def test_folds_must_hold_each_image_once(cv, text):
    with raises(text):
        cross_val_predict(Memory(), numbered(2), numbered(2), cv=cv)
    with raises("Found input variables with inconsistent numbers of samples: [2, 3]"):
        cross_val_predict(Memory(), numbered(2), numbered(3), cv=cv)


def sure_of(mask, n_classes=3):
    return (0.1 + 0.7 * np.eye(n_classes))[mask]


def test_planted_errors_come_first():
    truth = np.zeros((40, 60), np.uint8)
    truth[5:15, 5:15], truth[5:15, 30:40], truth[25:37, 20:32] = 2, 1, 2
    wrong = truth.copy()
    wrong[5:15, 30:40] = 2  # a white cell labelled red
    wrong[25:37, 20:32] = 0  # a red cell left out
    wrong[5, 5:15] = 0  # a rim
    wrong[0, :] = 255
    table = rank_label_errors([truth, wrong], [sure_of(truth), sure_of(truth)])
    places = ["image", "label", "predicted", "area", "top", "left", "bottom", "right"]
    assert table[places].values.tolist() == [
        [1, "background", "red", 144, 25, 20, 37, 32],
        [1, "red", "white", 100, 5, 30, 15, 40],
        [1, "background", "red", 10, 5, 5, 6, 15],
    ]
    np.testing.assert_allclose(table["suspicion"], [0.7 * 144, 70, 7])
    nested = rank_label_errors([truth.tolist(), wrong.tolist()], [sure_of(truth).tolist()] * 2)
    pd.testing.assert_frame_equal(nested, table)


def test_without_a_doubt_there_are_no_rows():
    mask = np.eye(4, dtype=np.uint8)
    table = rank_label_errors([mask], [sure_of(mask, 2)], classes=("background", "cell"))
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 0
    assert "suspicion" in table


def test_platelets_are_no_errors_of_masks_that_know_none():
    classes = ("background", "white", "red", "platelet")
    found = np.zeros((8, 8), int)
    found[2:4, 2:4] = 3
    mask, with_red = np.zeros((2, 8, 8), int)
    with_red[2:4, 2:4] = 2
    said = [sure_of(found, 4)] * 2
    table = rank_label_errors([mask, with_red], said, classes=classes)
    assert table[["image", "label", "predicted"]].values.tolist() == [[1, "red", "background"]]
    # One that is labelled says that they are known.
    table = rank_label_errors([mask, found], said, classes=classes)
    assert table[["image", "label", "predicted"]].values.tolist() == [[0, "background", "platelet"]]


def test_probabilities_that_do_not_fit():
    mask = np.zeros((4, 4), np.uint8)
    with raises("probabilities[0] must have shape (H, W, 3), as predict_proba gives them for 3"):
        rank_label_errors([mask], [np.zeros((4, 4))])
    with raises("y[0] must have shape (5, 4), as its image has; got (4, 4)."):
        rank_label_errors([mask], [np.zeros((5, 4, 3))])
