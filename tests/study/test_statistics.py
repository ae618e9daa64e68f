"""Differences between networks: known answers, and how often the intervals are right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.verdicts import NOISE, simulate
from bloodseg.metrics import scores_of_each
from bloodseg.study import compare
from bloodseg.study._statistics import (
    METRICS,
    correct_by_holm,
    decide,
    falls_short,
    is_equal,
)

POOR = np.array([[80, 10, 10], [5, 40, 5], [10, 0, 90]])
GOOD = np.array([[90, 5, 5], [2, 46, 2], [5, 0, 95]])


def noisy(matrix, n_seeds, n_images, rng):
    """Matrices of as many pixels, drawn around one."""
    rows = [rng.multinomial(row.sum(), row / row.sum(), size=(n_seeds, n_images)) for row in matrix]
    return np.stack(rows, axis=2)


def test_identical_networks_are_undecided(rng):
    same = noisy(POOR, 3, 8, rng)
    table = compare({"a": same, "b": same}, [("a", "b")])
    assert table.metric.tolist() == list(METRICS)
    assert (table[["difference", "low", "high", "detectable"]] == 0).all(axis=None)
    assert (table[["p", "p_holm"]] == 1).all(axis=None)
    assert not table.seeds_agree.any()
    assert [decide(row) for _, row in table.iterrows()] == [0] * 5


def test_equal_networks_with_noise_are_undecided(rng):
    table = compare({n: noisy(POOR, 3, 8, rng) for n in "ab"}, [("a", "b")])
    assert (table.low < 0).all()
    assert (table.high > 0).all()
    assert [decide(row) for _, row in table.iterrows()] == [0] * 5


def test_a_clearly_better_network_is_told(rng):
    matrices = {"poor": noisy(POOR, 5, 16, rng), "good": noisy(GOOD, 5, 16, rng)}
    table = compare(matrices, [("good", "poor"), ("poor", "good")])
    row = table.set_index(["first", "metric"]).loc["good", "mean_iou"]
    pooled = {name: matrix.sum(axis=1) for name, matrix in matrices.items()}
    by_seed = np.subtract(*(scores_of_each(pooled[k])["mean_iou"] for k in ("good", "poor")))
    assert row.difference == pytest.approx(by_seed.mean())
    assert 0 < row.low < row.difference < row.high
    assert 0 < row.detectable < row.difference
    assert decide(row) == 1
    assert decide(table.set_index(["first", "metric"]).loc["poor", "mean_iou"]) == -1


def test_the_same_draws_for_all_networks():
    """What an image does to both networks alike leaves no trace in their difference."""
    hard = np.array([[50, 25, 25], [10, 30, 10], [25, 0, 75]])
    images = np.stack([GOOD, hard, GOOD, hard])[None].repeat(3, axis=0)
    better = images.copy()
    # One pixel of each image is no longer taken for background.
    better[..., 2, 0] -= 1
    better[..., 2, 2] += 1
    row = compare({"a": better, "b": images}, [("a", "b")]).iloc[0]
    assert row.low == pytest.approx(row.high) == pytest.approx(1 / 250)


@pytest.mark.parametrize("n_seeds", [1, 4])
def test_fewer_than_five_seeds_decide_nothing(n_seeds, rng):
    matrices = {"poor": noisy(POOR, n_seeds, 16, rng), "good": noisy(GOOD, n_seeds, 16, rng)}
    row = compare(matrices, [("good", "poor")]).iloc[0]
    assert row.low > 0
    assert decide(row) == 0


def test_seeds_that_disagree_decide_nothing(rng):
    good, poor = noisy(GOOD, 5, 16, rng), noisy(POOR, 5, 16, rng)
    good[2], poor[2] = poor[2].copy(), good[2].copy()
    row = compare({"good": good, "poor": poor}, [("good", "poor")]).iloc[0]
    assert not row.seeds_agree
    assert decide(row) == 0


def test_a_class_that_is_nowhere_is_no_number():
    matrix = np.array([[80, 0, 20], [0, 0, 0], [10, 0, 90]])
    table = compare({n: np.tile(matrix, (2, 4, 1, 1)) for n in "ab"}, [("a", "b")])
    rows = table.set_index("metric")
    assert np.isnan(rows.loc["cpa_white", ["difference", "low", "p", "p_holm"]].astype(float)).all()
    assert decide(rows.loc["cpa_white"]) == 0
    assert rows.loc["mean_iou", "p_holm"] == 1


def test_the_same_seed_gives_the_same_table(rng):
    matrices = {"a": noisy(GOOD, 2, 4, rng), "b": noisy(POOR, 2, 4, rng)}
    first, again, other = (
        compare(matrices, [("a", "b")], n_draws=200, random_state=seed) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.low.equals(other.low)


def test_intervals_cover_about_as_often_as_they_say():
    """Networks equal on average, whose images and seeds favour now one, now the other."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        by_image = rng.normal(scale=0.04, size=(1, 16))
        by_seed = rng.normal(scale=0.01, size=(3, 1))
        noise = rng.normal(scale=0.04, size=(3, 16))
        hits = np.round(1000 * np.clip(0.9 + by_image + by_seed + noise, 0, 1))
        first, second = np.zeros((2, 3, 16, 3, 3))
        first[..., 0, 0], first[..., 0, 1] = hits, 1000 - hits
        second[..., 0, 0], second[..., 0, 1] = 900, 100
        row = compare({"a": first, "b": second}, [("a", "b")], n_draws=500).iloc[0]
        covered.append(row.low <= 0 <= row.high)
    assert 0.88 <= np.mean(covered) <= 0.99


ROW = ("a", "b", "pixel_accuracy")


def against(first, second, **given):
    """The row of pixel accuracy."""
    table = compare({"a": first, "b": second}, [("a", "b")], **given)
    return table.set_index("metric").loc["pixel_accuracy"]


def test_an_effect_that_the_data_exclude(rng):
    """GOOD is better than POOR by 0.084."""
    matrices = noisy(GOOD, 5, 16, rng), noisy(POOR, 5, 16, rng)
    for effect, excluded in ((0.2, True), (0.084, False), (0.05, False), (-0.05, True)):
        row = against(*matrices, effects={ROW: effect})
        assert falls_short(row) == excluded, effect
        assert row.effect == effect
        assert (row.p_effect_holm < 0.05) == excluded
    row = against(*matrices)
    assert np.isnan(row[["effect", "p_effect", "p_effect_holm"]].astype(float)).all()
    assert not falls_short(row)


def test_an_effect_of_the_other_sign_is_excluded_from_the_other_side(rng):
    matrices = noisy(POOR, 5, 16, rng), noisy(GOOD, 5, 16, rng)
    for effect, excluded in ((-0.2, True), (-0.084, False), (-0.05, False), (0.05, True)):
        assert falls_short(against(*matrices, effects={ROW: effect})) == excluded, effect


def test_equality_by_two_one_sided_tests(rng):
    good, same, poor = (noisy(matrix, 5, 16, rng) for matrix in (GOOD, GOOD, POOR))
    assert is_equal(against(good, same, margins={ROW: 0.02}))
    assert not is_equal(against(good, same, margins={ROW: 0.0005}))
    for first, second in ((good, poor), (poor, good)):
        row = against(first, second, margins={ROW: 0.02})
        assert not is_equal(row)
        assert row.p_equal == 1  # all draws lie beyond one of the margins
    assert not is_equal(against(good, same))


def test_the_detectable_difference_goes_by_the_spread_of_the_draws(rng):
    row = against(noisy(GOOD, 5, 16, rng), noisy(POOR, 5, 16, rng))
    # In standard deviations, half an interval is 1.96 wide; 0.84 more, and four in five are found.
    assert row.detectable == pytest.approx((row.high - row.low) / 2 * 2.8 / 1.96, rel=0.05)


def test_one_seed_beyond_is_enough_against_a_verdict(rng):
    first, second = noisy(GOOD, 6, 16, rng), noisy(GOOD, 6, 16, rng)
    second[5] = noisy(POOR, 1, 16, rng)[0]
    row = against(first, second, effects={ROW: 0.06}, margins={ROW: 0.06})
    assert row.highest > 0.06 > row.high
    other_way = against(second, first, effects={ROW: -0.06}, margins={ROW: 0.06})
    assert other_way.lowest < -0.06 < other_way.low
    for each in (row, other_way):
        assert not falls_short(each)
        assert not is_equal(each)


@pytest.mark.parametrize("n_seeds", [1, 4])
def test_fewer_than_five_seeds_exclude_nothing(n_seeds, rng):
    first, second = noisy(GOOD, n_seeds, 16, rng), noisy(GOOD, n_seeds, 16, rng)
    row = against(first, second, effects={ROW: 0.2}, margins={ROW: 0.05})
    assert row.p_effect_holm < 0.05
    assert row.p_equal_holm < 0.05
    assert not falls_short(row)
    assert not is_equal(row)


def test_conditions_are_averaged(rng):
    """Scores are, not pixels: an empty image would count for nothing among pooled ones."""
    first = {n: noisy(m, 5, 16, rng) for n, m in (("a", GOOD), ("b", POOR))}
    same = {n: np.stack([m, m, m], axis=1) for n, m in first.items()}
    once, thrice = (compare(each, [("a", "b")]) for each in (first, same))
    pd.testing.assert_frame_equal(once, thrice)
    both = {n: np.stack([m, 10 * first["a"]], axis=1) for n, m in first.items()}
    half = compare(both, [("a", "b")])
    for name in ("difference", "low", "high"):
        assert half[name].tolist() == pytest.approx((once[name] / 2).tolist())


def test_p_values_are_corrected_for_the_rows_that_have_one(rng):
    matrices = {name: noisy(GOOD, 5, 16, rng) for name in "abc"}
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    margins = {(*pair, "mean_iou"): 0.012 for pair in pairs}
    table = compare(matrices, pairs, margins=margins)
    found = table[table.metric == "mean_iou"]
    assert table.p_equal_holm.notna().sum() == 3
    assert found.p_equal_holm.tolist() == correct_by_holm(found.p_equal.to_numpy()).tolist()


@pytest.mark.parametrize("noise", ["as measured", "seeds alone"])
def test_verdicts_are_seldom_wrong(noise):
    shares = simulate(NOISE[noise], 5, 16, 40, np.random.default_rng(0))
    assert shares["covered"] >= 0.7  # 0.85 in the long run where nothing but the seeds differs
    assert max(shares["holds, wrongly"], shares["less, wrongly"], shares["equal, wrongly"]) <= 0.1
    assert min(shares["holds, rightly"], shares["less, rightly"]) >= 0.9


def test_holm():
    p = np.array([0.01, 0.04, 0.03, 0.005])  # Holm: 0.03, 0.06, 0.06, 0.02
    assert correct_by_holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_by_holm(np.array([0.6, np.nan, 0.01])) == pytest.approx(
        [0.6, np.nan, 0.02], nan_ok=True
    )


@given(arrays(float, st.integers(1, 20), elements=st.floats(0, 1)))
@settings(max_examples=50)
def test_holm_between_none_and_bonferroni(p):
    corrected = correct_by_holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, len(p) * p) + 1e-12).all()
    order = np.argsort(p)
    assert (np.diff(corrected[order]) >= 0).all()


@pytest.mark.parametrize(
    ("matrices", "pairs", "text"),
    [
        ({"a": np.ones((2, 4, 3, 3)), "b": np.ones((3, 4, 3, 3))}, [("a", "b")], "one shape"),
        ({"a": np.ones((4, 3, 3))}, [("a", "a")], r"got \{'a': \(4, 3, 3\)\}"),
        ({"a": np.ones((2, 4, 3, 3))}, [("a", "b")], r"pair among a; got \[\('a', 'b'\)\]"),
        ({"a": np.ones((2, 4, 3, 3))}, [], "at least one pair"),
    ],
)
def test_bad_arguments(matrices, pairs, text):
    with pytest.raises(ValueError, match=text):
        compare(matrices, pairs)
