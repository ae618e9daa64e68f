"""SmearFeatures: smears in, a table of numbers out, for any classifier or regressor."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from .._files import expanded
from .._images import RED, WHITE
from ..cells import EXCLUDED_SIDES
from ..datasets import is_zarr, list_images
from ..models import find_model, list_models
from ..prediction import Segmented
from ._segmenter import BloodCellSegmenter

# Of each class of cells, from the columns of `measure`; of two classes, what only these have.
_MEASURES = ("diameter", "circularity", "eccentricity", "mean_red", "mean_green", "mean_blue")
_OF_CLASS = {RED: ("pallor",), WHITE: ("nucleus_share",)}
_AREAS = {"px": "megapixel", "um": "mm2"}


class SmearFeatures(TransformerMixin, BaseEstimator):
    """Turn smears into rows of numbers that sum up their cells, for a classifier of smears.

    A fitted `BloodCellSegmenter` finds the cells of each smear and measures them; a row tells how
    many there are for their area, and what is typical of their sizes, shapes and colours. It is not
    trained here.

    Parameters
    ----------
    segmenter : BloodCellSegmenter, path or str, optional
        Fitted; or what `BloodCellSegmenter.from_pretrained` takes: the name of a published model,
        by default the newest, a model file, or a repository of the Hugging Face hub.
        `sklearn.base.clone` keeps it fitted.
    unit : {"px", "um"}, default="px"
        Of diameters and areas: pixels and megapixels, or micrometres and square millimetres, for
        which the size of a pixel must be known: from the files, or by ``pixel_size`` of the
        segmenter. Where photos differ in magnification, only the second compares them.

    Attributes
    ----------
    segmenter_ : BloodCellSegmenter
        What finds the cells: a copy, whose parameters are those of the time of fit.

    Notes
    -----
    The features, for each class of cells such as ``red``:

    ``red_per_megapixel`` or ``red_per_mm2``
        Cells in the counting frame over its area (see `bloodseg.cells.CountingFrame`).
    ``red_diameter_median``, ``red_diameter_iqr``
        Median and interquartile range of the cells that no border cuts; so, too, for
        ``circularity``, ``eccentricity``, ``mean_red``, ``mean_green`` and ``mean_blue`` (see
        `bloodseg.cells.measure_cells`), ``pallor`` of red cells, and ``nucleus_share`` of white
        ones, the share of the nucleus in their area.

    Then ``white_to_red_ratio``, of cells in frames, where the model knows both, and
    ``confidence``, the mean probability of the pixels' classes.

    Where a smear shows no cell of a class, its density is 0, and the medians and ranges are NaN,
    as is a ratio to none: put ``sklearn.impute.SimpleImputer(keep_empty_features=True)`` behind,
    which does where no smear at all shows cells of a class, too.

    Examples
    --------
    Which smears are crowded? A pipeline from images to the answer:

    >>> from sklearn.impute import SimpleImputer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from bloodseg import BloodCellSegmenter, SmearFeatures
    >>> from bloodseg.datasets import make_smears
    >>> smears = make_smears(4, image_size=64, red_cell_diameter=16, random_state=0)
    >>> segmenter = BloodCellSegmenter(network="unet", width=2, max_epochs=1, crop_size=32)
    >>> features = SmearFeatures(segmenter.fit(smears.images, smears.masks))
    >>> classifier = make_pipeline(
    ...     features, SimpleImputer(keep_empty_features=True), StandardScaler(),
    ...     LogisticRegression(),
    ... )
    >>> classifier.fit(smears.images, [0, 1, 0, 1]).predict(smears.images).shape
    (4,)
    >>> features.set_output(transform="pandas").fit_transform(smears.images).columns[:2].tolist()
    ['white_per_megapixel', 'white_diameter_median']
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "segmenter": [BloodCellSegmenter, str, Path, None],
        "unit": [StrOptions(set(_AREAS))],
    }

    def __init__(
        self, segmenter: BloodCellSegmenter | str | Path | None = None, *, unit: str = "px"
    ):
        self.segmenter = segmenter
        self.unit = unit

    def fit(self, X: Any = None, y: Any = None) -> SmearFeatures:
        """Load the model; nothing is learned from the smears.

        Parameters
        ----------
        X, y : ignored
            They are there for pipelines.

        Returns
        -------
        self

        Raises
        ------
        ImportError, OSError
            If a repository of the hub is named, and huggingface_hub is missing, or the hub has no
            such model or cannot be reached.
        ValueError
            If a parameter is not as described, there is no such model, or the segmenter is not
            fitted.
        """
        self._validate_params()
        if isinstance(self.segmenter, BloodCellSegmenter):
            check_is_fitted(
                self.segmenter,
                "network_",
                msg="segmenter must be fitted; this %(name)s is not. Fit it on label maps, or "
                "leave it out for the published weights.",
            )
            self.segmenter_ = copy.copy(self.segmenter)
        else:
            given = list_models()[0] if self.segmenter is None else self.segmenter
            self.segmenter_ = BloodCellSegmenter.load(find_model(given, argument="segmenter"))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return a row of features for each smear.

        Parameters
        ----------
        X : ndarray of shape (n, H, W, 3), or sequence
            Smears, each of them an image (H, W, 3), the path of one (see
            `bloodseg.datasets.open_slide`), or several fields of one smear: the path of a folder of
            images, or a list or tuple of images and paths. Images are opened one at a time.

        Returns
        -------
        ndarray of float64 of shape (n, n_features)
            Or a DataFrame with names, after ``set_output(transform="pandas")``. A smear's row does
            not depend on the other smears.

        Raises
        ------
        FileNotFoundError
            If there is no such file, or a folder holds no image.
        ValueError
            If what is given is no image, or ``unit`` is "um" and the size of a pixel not known.
        """
        check_is_fitted(self, "segmenter_")
        names = self.get_feature_names_out()
        smears = [X] if isinstance(X, (str, os.PathLike)) else X
        rows = [self._features_of(fields) for fields in map(_fields_of, smears)]
        return np.array([[row[name] for name in names] for row in rows]).reshape(-1, len(names))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features, see Notes.

        Parameters
        ----------
        input_features : ignored
            It is there for pipelines.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self, "segmenter_")
        classes = self.segmenter_.class_names_[1:]
        names = []
        for name in classes:
            names.append(f"{name}_per_{_AREAS[self.unit]}")
            for measure in _measures_of(name):
                names += [f"{name}_{measure}_median", f"{name}_{measure}_iqr"]
        if {WHITE, RED} <= set(classes):
            names.append("white_to_red_ratio")
        return np.array([*names, "confidence"], dtype=object)

    def _features_of(self, fields: Any) -> dict[str, float]:
        """Return the features of the fields of a smear, by name."""
        import pandas as pd

        classes = self.segmenter_.class_names_[1:]
        tables, confidences, area = [], [], 0.0
        in_frame = dict.fromkeys(classes, 0)
        for found in self.segmenter_.segment(fields):
            tables.append(self._measure(found))
            confidences.append(found.mean_confidence)
            counts = found.count(excluded_sides=EXCLUDED_SIDES)
            for name in classes:
                in_frame[name] += counts[f"{name}_in_frame"]
            area += found.frame_area * self._side(found) ** 2 / 1e6
        cells = pd.concat(tables, ignore_index=True)
        cells = cells[~cells["touches_border"].astype(bool)]
        features: dict[str, float] = {}
        for name in classes:
            density = in_frame[name] / area if area else np.nan
            features[f"{name}_per_{_AREAS[self.unit]}"] = density
            of_class = cells[cells["class"] == name]
            for measure in _measures_of(name):
                low, median, high = of_class[measure].astype(float).quantile([0.25, 0.5, 0.75])
                features[f"{name}_{measure}_median"] = median
                features[f"{name}_{measure}_iqr"] = high - low
        if {WHITE, RED} <= set(classes):
            ratio = in_frame[WHITE] / in_frame[RED] if in_frame[RED] else np.nan
            features["white_to_red_ratio"] = ratio
        return features | {"confidence": float(np.mean(confidences))}

    def _side(self, found: Segmented) -> float:
        """Return the side of an image's pixel in units."""
        if self.unit == "px":
            return 1.0
        if found.pixel_size is None:
            raise ValueError(
                f"unit='um' needs the size of a pixel, which {found.label} does not tell. Set it: "
                "SmearFeatures(BloodCellSegmenter.from_pretrained(pixel_size=0.1), unit='um'), or "
                "take unit='px'."
            )
        return found.pixel_size

    def _measure(self, found: Segmented) -> Any:
        """Return the table of an image's cells, with diameters in units."""
        table = found.measure()
        per_unit = self._side(found) / (found.pixel_size or 1.0)
        table["diameter"] *= per_unit
        return table.assign(nucleus_share=table["nucleus_area"] / table["area"])

    def __sklearn_clone__(self) -> SmearFeatures:
        """Return a copy without fit, whose segmenter stays fitted: it is not trained here."""
        twin = super().__sklearn_clone__()
        twin.segmenter = copy.copy(self.segmenter)
        return twin

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: batches of images in, NaN out where there are no cells."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _measures_of(name: str) -> tuple[str, ...]:
    return _MEASURES + _OF_CLASS.get(name, ())


def _fields_of(smear: Any) -> Any:
    """Return the fields of a smear: images and paths."""
    if isinstance(smear, (str, os.PathLike)):
        path = expanded(smear)
        return list_images(path) if path.is_dir() and not is_zarr(path) else [smear]
    return list(smear) if isinstance(smear, (list, tuple)) else [smear]
