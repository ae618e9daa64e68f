"""Which tolerance to predict with, and what models say of images that they were not fitted to."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ._images import (
    CLASS_NAMES,
    NOT_LABELLED,
    PLATELET,
    check_classes,
    check_masks,
    in_container_of,
    label_of,
)
from ._typing import Images, Masks, Tolerances
from .metrics import score_as_masks_know

__all__ = ["choose_tolerance", "cross_val_predict", "rank_label_errors", "tolerance_curve"]

if TYPE_CHECKING:
    import pandas as pd

_PARAMETER = "predict_ode_tol"
_TOLERANCES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def tolerance_curve(
    estimator: Any,
    X: Images,
    y: Masks,
    tolerances: ArrayLike = _TOLERANCES,
    *,
    metric: Callable[[Masks, Masks], float] | None = None,
    n_repeats: int = 1,
) -> Bunch:
    """Predict at several tolerances of the solver, and return what each costs and loses.

    The estimator is not fitted again, and its ``predict_ode_tol`` is left as it was.

    Parameters
    ----------
    estimator : BloodCellSegmenter or Pipeline that ends in one
        Fitted, with at least one ODE-block.
    X : ndarray of shape (n, H, W, 3) or list of (H, W, 3) ndarrays
        Images, best ones that ``fit`` has not seen.
    y : ndarray of shape (n, H, W) or list of (H, W) ndarrays
        Their label maps.
    tolerances : array-like of float, default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
        Tolerances to predict with, each for all ODE-blocks.
    metric : callable, optional
        ``metric(y_true, y_pred)``, larger is better, such as those of `bloodseg.metrics`; by
        default the mean IoU, as the estimator's ``score`` gives it.
    n_repeats : int, default=1
        Predictions at each tolerance; ``seconds`` is their median.

    Returns
    -------
    Bunch
        tolerances : ndarray of shape (n_tolerances,), float64
            From the tightest to the loosest, each once; the others go with them.
        scores : ndarray of shape (n_tolerances,), float64
            The metric over all images.
        seconds : ndarray of shape (n_tolerances,), float64
            Time of an image.
        evaluations : ndarray of shape (n_tolerances,), float64
            Evaluations of f for an image, over all blocks.
        changed : ndarray of shape (n_tolerances,), float64
            Share of the pixels, in [0, 1], whose class is not that of the tightest tolerance.

    Raises
    ------
    ValueError
        If the estimator has no tolerance to set, or a tolerance is not positive and finite.

    Examples
    --------
    >>> from bloodseg import BloodCellSegmenter
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.model_selection import tolerance_curve
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> segmenter = BloodCellSegmenter(width=4, max_epochs=1, crop_size=32, random_state=0)
    >>> segmenter = segmenter.fit(smears.images, smears.masks)
    >>> curve = tolerance_curve(segmenter, smears.images, smears.masks, [1e-1, 1e-4])
    >>> curve.tolerances
    array([0.0001, 0.1   ])
    >>> bool(curve.evaluations[0] >= curve.evaluations[1]), float(curve.changed[0])
    (True, 0.0)
    """
    given = check_tolerances(tolerances)
    _check_estimator(estimator)
    if not isinstance(n_repeats, Integral) or n_repeats < 1:
        raise ValueError(f"n_repeats must be a whole number of at least 1; got {n_repeats!r}.")
    if metric is None:
        metric = partial(score_as_masks_know, classes=last_step(estimator).class_names_)
    scores, seconds, evaluations, changed = [], [], [], []
    predict_at(estimator, X[:1], given[0])  # what is done once is not any tolerance's cost
    tightest: Images | None = None
    for tolerance in given:
        found = predict_at(estimator, X, tolerance, n_repeats)
        tightest = found.maps if tightest is None else tightest
        scores.append(metric(y, found.maps))
        seconds.append(found.seconds / len(found.maps))
        evaluations.append(found.evaluations.mean())
        changed.append(share_that_differs(tightest, found.maps))
    columns = {"scores": scores, "seconds": seconds, "evaluations": evaluations, "changed": changed}
    arrays = {name: np.array(values, dtype=float) for name, values in columns.items()}
    return Bunch(tolerances=np.array(given), **arrays)


def choose_tolerance(
    estimator: Any,
    X: Images,
    y: Masks,
    *,
    max_drop: float | None = None,
    max_seconds: float | None = None,
    tolerances: ArrayLike = _TOLERANCES,
    metric: Callable[[Masks, Masks], float] | None = None,
    n_repeats: int = 3,
) -> float:
    """Set the tolerance of prediction that a budget of accuracy or of time allows.

    With ``max_drop`` it is the loosest tolerance that loses no more than that; with
    ``max_seconds`` alone, the tightest that is fast enough; with both, the loosest that meets
    both. The estimator's ``predict_ode_tol`` is set to it; nothing is fitted again.

    Parameters
    ----------
    estimator : BloodCellSegmenter or Pipeline that ends in one
        Fitted, with at least one ODE-block.
    X, y : images and label maps
        As for `tolerance_curve`. What chooses must not also report: keep test images out.
    max_drop : float, optional
        Largest loss of the metric against the tightest of ``tolerances``, such as 0.001.
    max_seconds : float, optional
        Longest time of an image, on this machine.
    tolerances, metric, n_repeats
        As for `tolerance_curve`.

    Returns
    -------
    float
        The tolerance.

    Raises
    ------
    ValueError
        If neither budget is given, or no tolerance meets them; the estimator is then unchanged.

    Examples
    --------
    >>> from bloodseg import BloodCellSegmenter
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.model_selection import choose_tolerance
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> segmenter = BloodCellSegmenter(width=4, max_epochs=1, crop_size=32, random_state=0)
    >>> segmenter = segmenter.fit(smears.images, smears.masks)
    >>> chosen = choose_tolerance(segmenter, smears.images, smears.masks, max_drop=0.01)
    >>> segmenter.predict_ode_tol == chosen
    True
    """
    if max_drop is None and max_seconds is None:
        raise ValueError("max_drop or max_seconds must be given; both are None.")
    for name, value in (("max_drop", max_drop), ("max_seconds", max_seconds)):
        if value is not None and not (isinstance(value, Real) and 0 <= value < math.inf):
            raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}.")
    curve = tolerance_curve(estimator, X, y, tolerances, metric=metric, n_repeats=n_repeats)
    allowed = np.ones(len(curve.tolerances), dtype=bool)
    if max_drop is not None:
        # Scores of equal maps may differ in the last bit where a metric adds up in another order.
        allowed &= curve.scores[0] - curve.scores <= max_drop + 1e-12
    if max_seconds is not None:
        allowed &= curve.seconds <= max_seconds
    if not allowed.any():
        fastest = int(curve.seconds.argmin())
        raise ValueError(
            f"no tolerance keeps to max_drop={max_drop!r} and max_seconds={max_seconds!r}: the "
            f"fastest, {curve.tolerances[fastest]:g}, takes {curve.seconds[fastest]:.3g} s an "
            f"image and loses {curve.scores[0] - curve.scores[fastest]:.3g}. Allow more, or use "
            "a smaller network or a faster machine."
        )
    candidates = np.flatnonzero(allowed)
    chosen = float(curve.tolerances[candidates[0 if max_drop is None else -1]])
    estimator.set_params(**{_parameter_of(estimator): chosen})
    return chosen


def cross_val_predict(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    cv: Any = None,
    method: str = "predict",
    params: Mapping[str, Any] | None = None,
) -> Any:
    """Predict each image by a model that was fitted to others.

    As scikit-learn's function of this name, which takes neither lists of images of several sizes
    nor probabilities of pixels.

    Parameters
    ----------
    estimator : BloodCellSegmenter, BloodCellCounter or Pipeline that ends in one
        Is cloned for each fold and left as it is.
    X : ndarray of shape (n, H, W, 3), or list of (H, W, 3) ndarrays and paths
        Images.
    y : ndarray, list or DataFrame
        Their label maps or counts.
    groups : array-like of shape (n,), optional
        For the splitter; ``params`` are for ``fit``.
    cv : int, splitter or iterable, optional
        As scikit-learn takes it: folds, 5 by default, or what splits into them.
    method : {"predict", "predict_proba"}, default="predict"
        What to call.
    params : dict, optional
        Arguments of ``fit``; of those with an entry an image, each fit gets its images' own.

    Returns
    -------
    ndarray or list
        An array for an array of images, else a list, in the order of ``X``; of a counter, an
        array.

    Raises
    ------
    ValueError
        If an image is in none of the test folds, or in several, or X and y differ in number.

    Examples
    --------
    >>> from bloodseg import BloodCellSegmenter
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.model_selection import cross_val_predict
    >>> smears = make_smears(4, image_size=64, random_state=0)
    >>> segmenter = BloodCellSegmenter(width=4, max_epochs=1, crop_size=32, random_state=0)
    >>> data = list(smears.images), list(smears.masks)
    >>> found = cross_val_predict(segmenter, *data, cv=2, method="predict_proba")
    >>> len(found), found[0].shape
    (4, (64, 64, 3))
    """
    check_consistent_length(X, y)
    n_images = len(X)
    predicted: list[Any] = [None] * n_images
    for train, test in check_cv(cv).split(np.zeros(n_images), groups=groups):
        of_fit = {
            name: _take(value, train)
            if hasattr(value, "__len__") and len(value) == n_images
            else value
            for name, value in (params or {}).items()
        }
        fitted = clone(estimator).fit(_take(X, train), _take(y, train), **of_fit)
        results = getattr(fitted, method)(_take(X, test))
        for place, result in zip(test, results, strict=True):
            if predicted[place] is not None:
                raise ValueError(_not_once(place, "several"))
            predicted[place] = result
    for place, result in enumerate(predicted):
        if result is None:
            raise ValueError(_not_once(place, "none"))
    if np.ndim(predicted[0]) == 1:  # counts
        return np.stack(predicted)
    return in_container_of(predicted, X)


def _not_once(place: int, found: str) -> str:
    return f"cv must put each image into one test fold; it puts image {place} into {found}."


def _take(values: Any, places: np.ndarray) -> Any:
    if isinstance(values, np.ndarray):
        return values[places]
    if hasattr(values, "iloc"):  # a table of counts: as a list it would be its columns
        return values.iloc[places]
    listed = list(values)
    return [listed[place] for place in places]


def rank_label_errors(
    y: Masks, probabilities: Sequence[np.ndarray], *, classes: Sequence[str] = CLASS_NAMES
) -> pd.DataFrame:
    """Rank the places where label maps are perhaps wrong.

    A place is a connected region that a model is sure to be of another class than its label. Rims
    of cells, where labels and maps differ by a pixel, come last.

    Parameters
    ----------
    y : ndarray of shape (n, H, W) or list of (H, W) ndarrays
        Label maps; what is labelled 255 is passed over. Where none holds a platelet, they do not
        know platelets: what a model takes for one counts as background.
    probabilities : sequence of ndarray of shape (H, W, n_classes)
        What models that have not seen an image say of it, as from `cross_val_predict` with
        ``method="predict_proba"``.
    classes : sequence of str, default=("background", "white", "red")
        Names of the classes.

    Returns
    -------
    DataFrame
        One row a place, the most suspicious first: ``image`` (its place in the batch), ``label``
        and ``predicted`` (names of classes), ``suspicion`` (over the pixels of the region, the sum
        of how much more probable the predicted class is), ``area`` in pixels, and the bounding box
        ``top``, ``left``, ``bottom``, ``right``, the latter two excluded.

    Raises
    ------
    ValueError
        If label maps and probabilities do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.model_selection import rank_label_errors
    >>> mask = np.zeros((8, 8), int)
    >>> mask[2:5, 2:5] = 1  # labelled white
    >>> probabilities = np.zeros((8, 8, 3)) + [0.9, 0.05, 0.05]
    >>> probabilities[2:5, 2:5] = [0.1, 0.1, 0.8]
    >>> rank_label_errors([mask], [probabilities])[["label", "predicted", "area"]]
       label predicted  area
    0  white       red     9
    """
    import pandas as pd

    names = check_classes(classes)
    wanted = f"(H, W, {len(names)})"
    probabilities = [np.asarray(each) for each in probabilities]
    for index, each in enumerate(probabilities):
        if each.ndim != 3 or each.shape[2] != len(names):
            raise ValueError(
                f"probabilities[{index}] must have shape {wanted}, as predict_proba gives them for "
                f"{len(names)} classes; got {each.shape}."
            )
    masks = check_masks(y, images=probabilities, classes=names, partial=True, name="y")
    platelet = label_of(names, PLATELET)
    if platelet is not None and any((mask == platelet).any() for mask in masks):
        platelet = None  # one like all others
    rows = [
        {"image": index, **place}
        for index, (mask, each) in enumerate(zip(masks, probabilities, strict=True))
        for place in _suspicious_places(mask, _with_background(each, platelet), names)
    ]
    columns = ["image", "label", "predicted", "suspicion", "area", "top", "left", "bottom", "right"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("suspicion", ascending=False, kind="stable", ignore_index=True)


def _with_background(probabilities: np.ndarray, label: int | None) -> np.ndarray:
    """Return probabilities in which a class, if any, is part of the background."""
    if label is None:
        return probabilities
    joined = np.array(probabilities)
    joined[..., 0] += joined[..., label]
    joined[..., label] = 0
    return joined


def _suspicious_places(
    mask: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the regions of one label and one prediction each, where these differ."""
    best = probabilities.argmax(axis=2)
    label = np.where(mask == NOT_LABELLED, best, mask)
    of_best, of_label = (
        np.take_along_axis(probabilities, classes[..., np.newaxis], 2)[..., 0]
        for classes in (best, label)
    )
    pairs = np.where(label == best, 0, 1 + label.astype(int) * len(names) + best)
    for pair in np.unique(pairs[pairs > 0]):
        regions, n_regions = ndimage.label(pairs == pair)
        numbers = np.arange(1, n_regions + 1)
        suspicions = ndimage.sum_labels(of_best - of_label, regions, numbers)
        areas = np.bincount(regions.ravel(), minlength=n_regions + 1)[1:]
        places = ndimage.find_objects(regions)
        for (rows, columns), suspicion, area in zip(places, suspicions, areas, strict=True):
            yield {
                "label": names[(pair - 1) // len(names)],
                "predicted": names[(pair - 1) % len(names)],
                "suspicion": float(suspicion),
                "area": int(area),
                **{"top": rows.start, "left": columns.start},
                **{"bottom": rows.stop, "right": columns.stop},
            }


class TimedPrediction(NamedTuple):
    """Class maps, the seconds they took, and each image's evaluations of f over all blocks."""

    maps: Images
    seconds: float
    evaluations: np.ndarray


def predict_at(
    estimator: Any, X: Images, tolerance: Tolerances | None, n_repeats: int = 1
) -> TimedPrediction:
    """Predict at a tolerance, in any form of ``predict_ode_tol``, and leave that as it was.

    The seconds are the median over ``n_repeats``.
    """
    seconds = []
    with _set_for_now(estimator, tolerance):
        for _ in range(n_repeats):
            started = time.perf_counter()
            maps = estimator.predict(X)
            seconds.append(time.perf_counter() - started)
    counts = last_step(estimator).n_function_evaluations_.values()
    evaluations = np.sum([*counts, np.zeros(len(maps), dtype=int)], axis=0)
    return TimedPrediction(maps, statistics.median(seconds), evaluations)


def share_that_differs(one: Images, other: Images) -> float:
    """Return the share of pixels, over all images, at which two sets of class maps differ."""
    differing = sum(int(np.count_nonzero(a != b)) for a, b in zip(one, other, strict=True))
    return differing / sum(np.size(a) for a in one)


@contextmanager
def _set_for_now(estimator: Any, tolerance: Any) -> Iterator[None]:
    name = _parameter_of(estimator)
    before = estimator.get_params()[name]
    estimator.set_params(**{name: tolerance})
    try:
        yield
    finally:
        estimator.set_params(**{name: before})


def last_step(estimator: Any) -> Any:
    """Return the estimator that a Pipeline ends in; any other as it is."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _parameter_of(estimator: Any) -> str:
    prefix = f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""
    return prefix + _PARAMETER


def _check_estimator(estimator: Any) -> None:
    segmenter = last_step(estimator)
    if not hasattr(segmenter, _PARAMETER):
        raise ValueError(
            f"estimator must be a BloodCellSegmenter or a Pipeline that ends in one; got "
            f"{type(estimator).__name__}. Of a search, pass its best_estimator_."
        )
    check_is_fitted(segmenter, "network_")
    if not segmenter.ode_tol_:
        raise ValueError(
            "estimator must have at least one ODE-block; its network has none, so no tolerance "
            'changes anything. Fit one with network="nodes-unet" and ode_positions that are '
            "not empty."
        )


def check_tolerances(tolerances: ArrayLike, name: str = "tolerances") -> list[float]:
    """Return the tolerances, each once, from the tightest to the loosest.

    Raises
    ------
    ValueError
        If there is none, or one that is not positive and finite.
    """
    try:
        given = np.asarray(tolerances, dtype=float)
    except (TypeError, ValueError):
        given = np.array(np.nan)
    if given.ndim != 1 or given.size == 0 or not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(
            f"{name} must hold at least one number, all positive and finite; got {tolerances!r}."
        )
    return [float(tolerance) for tolerance in np.unique(given)]
