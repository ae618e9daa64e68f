"""Kutta's method of order 3 with one of order 2 embedded."""

from fractions import Fraction as F

from ._tableau import make_tableau

KUTTA3 = make_tableau(
    "kutta3",
    3,
    [[], [F(1, 2)], [-1, 2]],
    [F(1, 6), F(2, 3), F(1, 6)],
    # The solutions of order 2 at these nodes are one family. This one has an estimate of bosh3's
    # size, z^3 / 24 for dy/dt = z y, without the fourth evaluation that bosh3 takes for its own.
    [F(1, 8), F(3, 4), F(1, 8)],
    2,
    whole_interval_tol=1e-3,
    source="Kutta, Z. Math. Phys. 46, 1901",
)
