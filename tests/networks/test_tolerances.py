"""Positions of ODE-blocks, and tolerances in all their forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import raises

from bloodseg.networks import (
    POSITIONS,
    check_positions,
    resolve_tolerances,
)

# ---------------------------------------------------------------- positions


@pytest.mark.parametrize(
    ("positions", "expected"),
    [((), ()), ([5], (5,)), (np.array([4, 6]), (4, 6)), (range(1, 10), POSITIONS), ((5.0,), (5,))],
)
def test_positions(positions, expected):
    assert check_positions(positions) == expected
    assert all(type(position) is int for position in check_positions(positions))


@pytest.mark.parametrize(
    "positions", [(0,), (10,), (4, 4), (4.5,), 5, None, "45", (None,), ("4",), [[4, 5]], (-1,)]
)
def test_positions_that_are_refused(positions):
    with raises(
        "ode_positions must hold different whole numbers from 1 to 9, or be empty for a plain "
        f"U-Net; got {positions!r}."
    ):
        check_positions(positions)


# ---------------------------------------------------------------- tolerances

tolerance = st.floats(1e-12, 1e3)
some_positions = st.lists(st.sampled_from(POSITIONS), unique=True)


@settings(deadline=None)
@given(some_positions, st.data())
def test_every_form_of_the_same_tolerances_is_the_same(positions, data):
    values = data.draw(st.lists(tolerance, min_size=len(positions), max_size=len(positions)))
    expected = dict(zip(positions, values, strict=True))
    unused = {position: 1.0 for position in POSITIONS if position not in positions}
    forms = [values, tuple(values), np.array(values), expected, expected | unused]
    forms.append(tuple(map(np.float64, values)))
    forms.append(torch.tensor(values, dtype=torch.float64))
    for form in forms:
        assert resolve_tolerances(form, positions) == expected
        assert list(resolve_tolerances(form, positions)) == positions


@settings(deadline=None)
@given(some_positions, tolerance)
def test_one_number_is_for_all(positions, tol):
    assert resolve_tolerances(tol, positions) == dict.fromkeys(positions, tol)
    for number in (np.float64(tol), np.array(tol), torch.tensor(tol, dtype=torch.float64)):
        assert resolve_tolerances(number, tuple(positions)) == dict.fromkeys(positions, tol)


@given(some_positions)
def test_the_papers_tolerances(positions):
    expected = {position: 1e-6 if position == 5 else 1e-4 for position in positions}
    assert resolve_tolerances("paper", positions) == expected


@pytest.mark.parametrize("name", ["ode_tol", "predict_ode_tol"])
@pytest.mark.parametrize(
    ("tol", "text"),
    [
        (0, "must be positive and finite; got 0."),
        (-1e-3, "must be positive and finite; got -0.001."),
        (float("nan"), "must be positive and finite; got nan."),
        (float("inf"), "must be positive and finite; got inf."),
        (True, "must be positive and finite; got True."),
        ((1e-3, "1e-3"), "must be positive and finite; got '1e-3'."),
        ((1e-3, None), "must be positive and finite; got None."),
        ({4: 1e-3, 5: 0}, "must be positive and finite; got 0."),
        ("tight", "must be a number, a dict, a tuple or 'paper'; got 'tight'."),
        (None, "must be a number, a dict, a tuple or 'paper'; got None."),
        ({1e-3}, "must be a number, a dict, a tuple or 'paper'; got {0.001}."),
        (
            (1e-3,),
            "must hold one number for each of ode_positions=(4, 5); got 1: (0.001,).",
        ),
        ((), "must hold one number for each of ode_positions=(4, 5); got 0: ()."),
        (
            {4: 1e-3},
            "must name every position in ode_positions=(4, 5); [5] missing from {4: 0.001}.",
        ),
    ],
)
def test_tolerances_that_are_refused(name, tol, text):
    with raises(f"{name} {text}"):
        resolve_tolerances(tol, (4, 5), name=name)
