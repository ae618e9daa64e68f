"""Heun's method of order 2 with Euler's embedded."""

from fractions import Fraction as F

from ._tableau import make_tableau

HEUN = make_tableau(
    "heun",
    2,
    [[], [1]],
    [F(1, 2), F(1, 2)],
    [1, 0],
    1,
    whole_interval_tol=1e-3,
    source="Heun, Z. Math. Phys. 45, 1900",
)
