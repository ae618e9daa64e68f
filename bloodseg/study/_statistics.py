"""Differences between networks, with what a few seeds and test images can say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from .._images import CLASS_NAMES
from ..metrics import scores_of_each

METRICS = ("pixel_accuracy", "mean_iou", *(f"cpa_{name}" for name in CLASS_NAMES))
N_DRAWS = 10_000
_LEVEL, _POWER = 0.05, 0.8

FEWEST_SEEDS = 5
"""Seeds that a verdict takes: five fall on one side by chance once in 32 times, three in eight."""


# Columns of p-values, each with what it is corrected to.
_CORRECTED = {"p": "p_holm", "p_effect": "p_effect_holm", "p_equal": "p_equal_holm"}

Row = tuple[str, str, str]  # first network, second network, metric


def compare(
    matrices: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    *,
    effects: Mapping[Row, float] | None = None,
    margins: Mapping[Row, float] | None = None,
    n_draws: int = N_DRAWS,
    random_state: int = 0,
) -> pd.DataFrame:
    """Compare networks by resampling their per-image confusion matrices, paired.

    A draw takes seeds and test images with replacement, the same ones for all networks, pools each
    seed's matrices over the images, and averages the seeds' scores. The images of a draw are
    common to its seeds, as they are in the data: with images drawn for each seed by itself, what
    is easy or hard for a network seems to average out over seeds, and intervals get too short. In
    simulations with 3 seeds and 16 images, 95 % intervals so covered 78 to 86 %, and cover 90 to
    96 % as they are; 83 % where nothing but the seeds differs, which 3 of them can't show.

    Parameters
    ----------
    matrices : mapping of str to array-like of shape (n_seeds, n_images, 3, 3)
        Pixels of true class (row) and predicted class (column), of the same seeds and images in
        the same order for all networks. Or (n_seeds, n_conditions, n_images, 3, 3) for the same
        images under several conditions, such as blur of five strengths: scores are then averaged
        over the conditions.
    pairs : sequence of (str, str)
        Which networks to compare: scores of the first minus those of the second.
    effects : mapping of (first, second, metric) to float, optional
        Differences that somebody else found, to be tested whether these data exclude them.
    margins : mapping of (first, second, metric) to float, optional
        Differences, chosen before the data were seen, below which two networks count as equal.
    n_draws : int, default=10_000
        Draws.
    random_state : int, default=0
        Fixes the draws.

    Returns
    -------
    DataFrame
        One row a pair and metric: first, second, metric, difference, low and high (95 % interval,
        percentiles of the draws), lowest and highest (of the seeds), seeds_agree (whether the
        difference has one sign for every seed), n_seeds, detectable (the smallest true difference
        that data like these would find four times in five), effect and margin (as given, or NaN).
        p is two-sided and against no difference, p_effect two-sided and against the effect or
        more, p_equal the larger of two one-sided ones against plus and minus the margin [1]_;
        p_holm, p_effect_holm and p_equal_holm are corrected for all rows that have one.

    Raises
    ------
    ValueError
        If the matrices of a pair are not of one shape (n_seeds, n_images, 3, 3).

    References
    ----------
    .. [1] Schuirmann, "A comparison of the two one-sided tests procedure and the power approach
       for assessing the equivalence of average bioavailability", Journal of Pharmacokinetics and
       Biopharmaceutics 15, 1987.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.study import compare
    >>> poor = np.tile([[80, 10, 10], [5, 40, 5], [10, 0, 90]], (3, 8, 1, 1))
    >>> good = np.tile([[90, 5, 5], [2, 46, 2], [5, 0, 95]], (3, 8, 1, 1))
    >>> table = compare({"poor": poor, "good": good}, [("good", "poor")])
    >>> row = table[table.metric == "pixel_accuracy"].iloc[0]
    >>> round(float(row.difference), 3), bool(row.seeds_agree)
    (0.084, True)

    Does a gain of 0.2 that was reported elsewhere fit to these data?

    >>> reported = {("good", "poor", "pixel_accuracy"): 0.2}
    >>> row = compare({"poor": poor, "good": good}, [("good", "poor")], effects=reported).iloc[0]
    >>> bool(row.p_effect_holm < 0.05)
    True
    """
    counts = {name: np.asarray(each, dtype=float) for name, each in matrices.items()}
    _check_shapes(counts, pairs)
    rng = np.random.default_rng(random_state)
    counts = {name: each if each.ndim == 5 else each[:, None] for name, each in counts.items()}
    n_seeds, _, n_images = next(iter(counts.values())).shape[:3]
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_draws)
    images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=n_draws)
    by_seed = {name: _score_seeds(each) for name, each in counts.items()}
    drawn = {name: _score_draws(each, seeds, images) for name, each in counts.items()}
    effects, margins = effects or {}, margins or {}
    rows = [
        {
            "first": first,
            "second": second,
            "metric": metric,
            **_summarize(
                by_seed[first][metric] - by_seed[second][metric],
                drawn[first][metric] - drawn[second][metric],
                effect=effects.get((first, second, metric), np.nan),
                margin=margins.get((first, second, metric), np.nan),
            ),
        }
        for first, second in pairs
        for metric in METRICS
    ]
    return correct(pd.DataFrame(rows))


def correct(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `compare`, or several in one, with p-values corrected for all its rows."""
    return table.assign(
        **{corrected: correct_by_holm(table[p].to_numpy()) for p, corrected in _CORRECTED.items()}
    )


def _check_shapes(counts: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> None:
    shapes = {name: each.shape for name, each in counts.items()}
    sides = (len(CLASS_NAMES), len(CLASS_NAMES))
    if len(set(shapes.values())) != 1 or not all(
        len(shape) in (4, 5) and shape[-2:] == sides and min(shape) for shape in shapes.values()
    ):
        raise ValueError(
            "matrices must all have one shape (n_seeds, n_images, 3, 3), the same seeds and images "
            "for each network, perhaps with an axis of conditions after the seeds; got "
            f"{shapes}."
        )
    unknown = [name for pair in pairs for name in pair if name not in counts]
    if unknown or not pairs:
        raise ValueError(
            f"pairs must name at least one pair among {', '.join(counts)}; got {list(pairs)}."
        )


def _score_seeds(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of each seed's pooled images, averaged over the conditions."""
    found = scores_of_each(matrices.sum(axis=2))
    return {metric: found[metric].mean(axis=1) for metric in METRICS}


def _score_draws(
    matrices: np.ndarray, seeds: np.ndarray, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the scores of each draw: of each seed's pooled images, averaged over its seeds."""
    n_seeds, n_conditions, n_images = matrices.shape[:3]
    total = {metric: np.zeros(len(seeds)) for metric in METRICS}
    for condition in matrices.swapaxes(0, 1):  # one after the other: all draws of all are large
        pooled = np.stack(
            [
                (images @ each.reshape(n_images, -1)).reshape(-1, *each.shape[1:])
                for each in condition
            ],
            axis=1,
        )
        found = scores_of_each(pooled)
        for metric in METRICS:
            total[metric] += (found[metric] * seeds).sum(axis=1) / (n_seeds * n_conditions)
    return total


def _summarize(
    by_seed: np.ndarray, drawn: np.ndarray, *, effect: float, margin: float
) -> dict[str, Any]:
    """Return what the differences of seeds and of draws come to.

    Draws without a pixel of the class are left out; where no image has one, all is NaN.
    """
    drawn = drawn[np.isfinite(drawn)]
    told = {"n_seeds": len(by_seed), "effect": effect, "margin": margin}
    if not drawn.size:
        numbers = ("difference", "low", "high", "lowest", "highest", "detectable", *_CORRECTED)
        return {**dict.fromkeys(numbers, np.nan), "seeds_agree": False, **told}
    low, high = np.quantile(drawn, [_LEVEL / 2, 1 - _LEVEL / 2])
    below, above = _share((drawn <= 0).sum(), drawn), _share((drawn >= 0).sum(), drawn)
    reached = np.sign(effect) * drawn >= abs(effect)
    beyond = max(_share((drawn <= -margin).sum(), drawn), _share((drawn >= margin).sum(), drawn))
    return {
        "difference": by_seed.mean(),
        "low": low,
        "high": high,
        "lowest": by_seed.min(),
        "highest": by_seed.max(),
        "detectable": (norm.isf(_LEVEL / 2) + norm.ppf(_POWER)) * drawn.std(ddof=1),
        "p": min(1.0, 2 * min(below, above)),
        "p_effect": np.nan if np.isnan(effect) else min(1.0, 2 * _share(reached.sum(), drawn)),
        "p_equal": np.nan if np.isnan(margin) else beyond,
        "seeds_agree": bool((by_seed > 0).all() or (by_seed < 0).all()),
        **told,
    }


def _share(n: int, drawn: np.ndarray) -> float:
    """Return n draws as a probability: of n draws none below 1 / (n + 1) can be told from none."""
    return (n + 1) / (drawn.size + 1)


def correct_by_holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected by Holm's step-down method; NaN stands for no comparison."""
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN is sorted last
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return corrected


def decide(row: Any) -> int:
    """Return the sign of a difference that these data show, or 0 where they don't decide.

    Shown is one whose interval is off zero, whose corrected p is below 0.05, and on which at least
    five seeds and all of them agree.
    """
    if not (row["low"] > 0 or row["high"] < 0) or not row["p_holm"] < _LEVEL:
        return 0
    if not row["seeds_agree"] or row["n_seeds"] < FEWEST_SEEDS:
        return 0
    return 1 if row["difference"] > 0 else -1


def falls_short(row: Any) -> bool:
    """Return whether data exclude the effect of a row: the difference is smaller, or the opposite.

    Shown as `decide` has it: by an interval that ends before the effect, a corrected p below 0.05,
    and at least five seeds that all fall short of it.
    """
    ends = (row["high"], row["highest"]) if row["effect"] > 0 else (-row["low"], -row["lowest"])
    short = max(ends) < abs(row["effect"])
    return bool(row["n_seeds"] >= FEWEST_SEEDS and short and row["p_effect_holm"] < _LEVEL)


def is_equal(row: Any) -> bool:
    """Return whether data show that a difference is below the margin of a row, either way.

    By two one-sided tests, a corrected p below 0.05, and at least five seeds that all are below.
    """
    within = max(-row["lowest"], row["highest"]) < row["margin"]
    return bool(row["n_seeds"] >= FEWEST_SEEDS and within and row["p_equal_holm"] < _LEVEL)
