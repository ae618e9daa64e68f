"""The forms that a user may write the tolerances of the ODE-blocks in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from .._typing import Tolerances

# Section 3.3 of the paper: one ODE-block with 1e-6 and two with 1e-4 at the bottom of the U,
# read as 1e-6 at its very bottom, position 5.
_PAPER = {5: 1e-6}
_PAPER_ELSEWHERE = 1e-4


def resolve_tolerances(
    tol: Tolerances, ode_positions: Sequence[int], *, name: str = "ode_tol"
) -> dict[int, float]:
    """Return the tolerance of each ODE-block.

    Parameters
    ----------
    tol : float, mapping, sequence or "paper"
        One number for all; ``{position: number}`` that names every position; one number a
        position, in the order of ``ode_positions``; or ``"paper"``: 1e-6 at position 5 and 1e-4
        elsewhere (paper, Section 3.3).
    ode_positions : sequence of int
        Positions of the ODE-blocks, 1 to 9.
    name : str
        What the error messages call the argument.

    Returns
    -------
    dict of int to float

    Raises
    ------
    ValueError
        If the form, the number of values or a value is wrong.

    Examples
    --------
    >>> from bloodseg.networks import resolve_tolerances
    >>> resolve_tolerances("paper", (4, 5, 6))
    {4: 0.0001, 5: 1e-06, 6: 0.0001}
    >>> resolve_tolerances((1e-2, 1e-3), (4, 5))
    {4: 0.01, 5: 0.001}
    """
    positions = [int(position) for position in ode_positions]
    if hasattr(tol, "tolist"):  # numpy's and torch's numbers and arrays
        tol = tol.tolist()
    if isinstance(tol, str):
        if tol != "paper":
            raise ValueError(f"{name} must be a number, a dict, a tuple or 'paper'; got {tol!r}.")
        return {position: _PAPER.get(position, _PAPER_ELSEWHERE) for position in positions}
    if isinstance(tol, Real):
        values: list[Any] = [tol] * len(positions)
    elif isinstance(tol, Mapping):
        missing = [position for position in positions if position not in tol]
        if missing:
            raise ValueError(
                f"{name} must name every position in ode_positions={tuple(positions)}; "
                f"{missing} missing from {dict(tol)!r}."
            )
        values = [tol[position] for position in positions]
    elif isinstance(tol, Sequence):
        values = list(tol)
        if len(values) != len(positions):
            raise ValueError(
                f"{name} must hold one number for each of ode_positions={tuple(positions)}; "
                f"got {len(values)}: {tuple(values)!r}."
            )
    else:
        raise ValueError(f"{name} must be a number, a dict, a tuple or 'paper'; got {tol!r}.")
    for value in values:
        if (
            isinstance(value, bool)
            or not isinstance(value, Real)
            or not 0 < float(value) < math.inf
        ):
            raise ValueError(f"{name} must be positive and finite; got {value!r}.")
    return dict(zip(positions, map(float, values), strict=False))
